//! `deploy/kafka/topics.yaml`, compiled in.

use std::collections::{BTreeMap, BTreeSet};

use events::topic::Topics;
use serde::Deserialize;

const SOURCE: &str = include_str!("../../../../deploy/kafka/topics.yaml");
/// The name in the file that stands for every queue.
const QUEUES: &str = "steps.*";

/// The name in the file that stands for the commands of every tenant.
const COMMANDS: &str = "commands";

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Declaration {
    partitions: i32,
    config: BTreeMap<String, Setting>,
    topics: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    partitions: Option<i32>,
    #[serde(default)]
    config: BTreeMap<String, Setting>,
}

/// A value as YAML may write it.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Setting {
    Integer(i64),
    Number(f64),
    Text(String),
}

impl Setting {
    fn text(&self) -> String {
        match self {
            Self::Integer(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(value) => value.clone(),
        }
    }
}

/// One topic as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredTopic {
    /// Its name; without prefix, and `steps.*` for the queues, as the file has it.
    pub name: String,
    /// Fixed at creation.
    pub partitions: i32,
    /// Kafka's own settings.
    pub config: BTreeMap<String, String>,
}

/// Reads the compiled-in file.
pub(super) fn declaration() -> Declaration {
    serde_saphyr::from_str(SOURCE).expect("topics.yaml is compiled in, and a test reads it")
}

impl Declaration {
    /// Every topic under the prefix, and one per queue.
    pub(super) fn all(&self, topics: &Topics, queues: &BTreeSet<String>) -> Vec<DeclaredTopic> {
        let fixed = self.topics.iter().filter(|(name, _)| *name != QUEUES);
        let fixed = fixed.map(|(name, entry)| self.topic(format!("{}.{name}", topics.prefix()), entry));
        fixed.chain(queues.iter().map(|queue| self.queue(topics, queue))).collect()
    }

    /// The commands topics of these tenants: like that of the default one.
    pub(super) fn commands(&self, topics: &Topics, tenants: &[String]) -> Vec<DeclaredTopic> {
        let entry = self.topics.get(COMMANDS).expect("topics.yaml is compiled in, and a test looks for the commands");
        tenants.iter().map(|tenant| self.topic(topics.commands_of(tenant), entry)).collect()
    }

    /// The steps topic of one queue.
    pub(super) fn queue(&self, topics: &Topics, queue: &str) -> DeclaredTopic {
        let entry = self.topics.get(QUEUES).expect("topics.yaml is compiled in, and a test looks for the queues");
        self.topic(topics.steps(queue), entry)
    }

    fn topic(&self, name: String, entry: &Entry) -> DeclaredTopic {
        let all = self.config.iter().chain(&entry.config);
        let config = all.map(|(name, value)| (name.clone(), value.text())).collect();
        DeclaredTopic { name, partitions: entry.partitions.unwrap_or(self.partitions), config }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<DeclaredTopic> {
        declaration().all(&Topics::new("m"), &BTreeSet::from(["default".to_owned()]))
    }

    #[track_caller]
    fn check(name: &str, partitions: i32, setting: &str, value: &str) {
        let all = all();
        let topic = all.iter().find(|topic| topic.name == name).expect(name);
        assert_eq!(topic.partitions, partitions, "{name}");
        assert_eq!(topic.config.get(setting).map(String::as_str), Some(value), "{name} {setting}");
    }

    #[test]
    fn the_file_declares_what_the_design_asks_for() {
        check("m.commands", 6, "retention.ms", "604800000");
        let of_tenant = declaration().commands(&Topics::new("m"), &["acme".to_owned()]);
        assert_eq!((of_tenant[0].name.as_str(), of_tenant[0].partitions), ("m.commands.acme", 6));
        check("m.steps.default", 6, "retention.ms", "-1");
        check("m.waits", 6, "retention.ms", "-1");
        check("m.cancels", 6, "cleanup.policy", "compact");
        check("m.flows", 1, "cleanup.policy", "compact");
        check("m.relay", 1, "cleanup.policy", "compact");
        check("m.events", 6, "max.message.bytes", "1048576");
        check("m.dead-letters", 6, "max.message.bytes", "1114112");
    }

    #[test]
    fn the_file_and_the_names_in_events_agree() {
        let topics = Topics::new("m");
        let named = BTreeSet::from(topics.all("default"));
        let declared: BTreeSet<String> = all().into_iter().map(|topic| topic.name).collect();
        assert_eq!(declared, named);
    }
}
