//! The topics, by name.

/// The queue of the steps that name none; it always exists.
pub const DEFAULT_QUEUE: &str = flow::definition::limit::QUEUE_DEFAULT;

/// The names of all topics under one prefix. The prefix is `meanwhile` unless several deployments share a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
}

impl Default for Topics {
    fn default() -> Self {
        Self::new("meanwhile")
    }
}

impl Topics {
    /// Topics named `<prefix>.commands` and so on.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The prefix itself; consumer groups and transactional ids start with it too.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// JSON commands: the kcat door.
    pub fn commands(&self) -> String {
        format!("{}.commands", self.prefix)
    }

    /// The commands of a tenant that has a topic of its own.
    pub fn commands_of(&self, tenant: &str) -> String {
        self.commands() + "." + tenant
    }

    /// The tenant whose commands a topic holds; none where it is the default tenant's, or holds no commands.
    pub fn tenant_of_commands<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(self.prefix.as_str())?.strip_prefix(".commands.")
    }

    /// True of a topic that holds commands.
    pub fn is_commands(&self, topic: &str) -> bool {
        topic == self.commands() || self.tenant_of_commands(topic).is_some()
    }

    /// The slips of one queue.
    pub fn steps(&self, queue: &str) -> String {
        format!("{}.steps.{queue}", self.prefix)
    }

    /// The consumer group of ingest, for its commands.
    pub fn ingest_group(&self) -> String {
        self.prefix.clone() + "-ingest"
    }

    /// The consumer group of ingest, for a team's own topic.
    pub fn trigger_group(&self, topic: &str) -> String {
        self.ingest_group() + "-" + topic
    }

    /// The consumer group of the orchestrator, for all but tokens.
    pub fn orchestrator_group(&self) -> String {
        self.prefix.clone() + "-orchestrator"
    }

    /// The consumer group of the orchestrator that puts tokens to rest.
    pub fn waits_group(&self) -> String {
        self.orchestrator_group() + "-waits"
    }

    /// The consumer group of the notifier.
    pub fn notifier_group(&self) -> String {
        self.prefix.clone() + "-notifier"
    }

    /// The relay's transactional id: one relay delivers at a time.
    pub fn relay_id(&self) -> String {
        self.prefix.clone() + "-relay"
    }

    /// The beginning of the workers' transactional ids; an instance's name follows.
    pub fn workers_ids(&self) -> String {
        self.workers_group() + "-"
    }

    /// The consumer group of the workers, which take the slips of all queues.
    pub fn workers_group(&self) -> String {
        self.prefix.clone() + "-workers"
    }

    /// The queue of a steps topic, if it is one.
    pub fn queue_of<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(self.prefix.as_str())?.strip_prefix(".steps.")
    }

    /// Every transition of every job.
    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// Holds, signals, and the outcomes and signs of life of long calls.
    pub fn waits(&self) -> String {
        format!("{}.waits", self.prefix)
    }

    /// Cancel wishes, compacted.
    pub fn cancels(&self) -> String {
        format!("{}.cancels", self.prefix)
    }

    /// Lossy progress; never an input to decisions.
    pub fn progress(&self) -> String {
        format!("{}.progress", self.prefix)
    }

    /// Flow documents, compacted.
    pub fn flows(&self) -> String {
        format!("{}.flows", self.prefix)
    }

    /// Lanes that long calls hold, and workers that were lost; compacted.
    pub fn lanes(&self) -> String {
        format!("{}.lanes", self.prefix)
    }

    /// The breakers of downstreams that are, or were, not closed; compacted.
    pub fn breakers(&self) -> String {
        format!("{}.breakers", self.prefix)
    }

    /// The relay's own position, compacted.
    pub fn relay(&self) -> String {
        format!("{}.relay", self.prefix)
    }

    /// Records that no service could read or handle.
    pub fn dead_letters(&self) -> String {
        format!("{}.dead-letters", self.prefix)
    }

    /// Requests that change something, and how they were answered.
    pub fn audit(&self) -> String {
        format!("{}.audit", self.prefix)
    }

    /// True of a topic of ours that is there from the first `migrate` on; the queues' topics come and go with flows.
    pub fn is_fixed(&self, topic: &str) -> bool {
        self.queue_of(topic).is_none() && self.all(DEFAULT_QUEUE).iter().any(|ours| ours == topic)
    }

    /// Every topic, with one queue for all: what documents and declarations are held to.
    pub fn all(&self, queue: &str) -> [String; 12] {
        [
            self.commands(),
            self.steps(queue),
            self.events(),
            self.waits(),
            self.cancels(),
            self.progress(),
            self.flows(),
            self.lanes(),
            self.breakers(),
            self.relay(),
            self.dead_letters(),
            self.audit(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_topics_are_those_that_have_a_name_here() {
        let all = BTreeSet::from(Topics::new("{}").all("{queue}"));
        let forms = include_str!("topic.rs").lines().filter_map(|line| line.trim().strip_prefix("format!(\""));
        let named: BTreeSet<String> = forms.filter_map(|form| Some(form.split_once('"')?.0.to_owned())).collect();
        assert_eq!(named, all);
    }
}
