//! The one-token invariant, read back from the topics.
//!
//! A slip and a hold are places of a job's token; each move of it raises its hop by one, except that a released hold
//! becomes a slip of the same hop. So per `(job, branch, hop)` there is one slip, or one hold, or one hold and then one
//! slip. Anything else is a job that was split or lost.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use bus::{Reader, Registry};
use events::header;
use events::lane::Freed;
use events::record::Inbound;
use events::topic::Topics;
use events::wait::{RunningCall, Turn, Wait};
use events::{decode_event, decode_slip, decode_wait};
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::{JobId, TokenId};
use flow::slip::{Hold, HoldReason, Slip};

use crate::topics::{read_topic, topic_names};

/// Problems that are listed before it says how many more there are.
const PROBLEMS_SHOWN_MAX: usize = 50;

/// Every token's places and every event under one topic prefix.
#[derive(Debug, Default)]
pub struct Tokens {
    /// From all queues.
    pub slips: Vec<Slip>,
    /// From `waits`.
    pub holds: Vec<Hold>,
    /// From `waits`: slips that nobody could read when their turn came. Each was sent again as it was.
    pub unread: Vec<TokenId>,
    /// From `events`, in order per job.
    pub events: Vec<JobEvent>,
    /// The number of records on `dead-letters`.
    pub dead_letters: usize,
    /// Those of them that were commands: no job was lost with them.
    pub dead_commands: usize,
    /// By topic and bytes: where something lies that is none of the above, and why it cannot be read. A record that was
    /// set aside while the registry was away, and sent again, is one.
    pub unreadable: BTreeMap<(String, Option<Vec<u8>>), String>,
}

impl Tokens {
    /// Reads all topics of the prefix to their present ends.
    pub async fn read_back(brokers: &str, registry_url: &str, prefix: &str) -> Result<Self> {
        let topics = Topics::new(prefix);
        let reader = Reader::new(Registry::new(registry_url, None).context("the registry's URL")?);
        let mut tokens = Self::default();
        for topic in topic_names(brokers)?.iter().filter(|topic| topics.queue_of(topic).is_some()) {
            for record in read_topic(brokers, topic).await? {
                if Freed::read(&record).is_some() {
                    continue;
                }
                let slip = reader.read(record.value.as_deref(), decode_slip).await;
                tokens.slips.extend(readable(slip, &record, &mut tokens.unreadable));
            }
        }
        for record in read_topic(brokers, &topics.waits()).await? {
            let wait = reader.read(record.value.as_deref(), decode_wait).await;
            match readable(wait, &record, &mut tokens.unreadable) {
                Some(Wait::Hold(hold) | Wait::Running(RunningCall { hold, .. }) | Wait::Turn(Turn { hold, .. })) => {
                    tokens.holds.push(hold);
                }
                Some(Wait::Unread(unread)) => {
                    let id = unread.record.header(header::MESSAGE_ID);
                    let id = id.and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
                    tokens.unread.extend::<Option<TokenId>>(id);
                }
                // An outcome is a wish: what it led to stands on the other topics.
                Some(Wait::Signal(_) | Wait::Outcome(_) | Wait::Alive(_) | Wait::Question(_) | Wait::Breaker(_))
                | None => {}
            }
        }
        for record in read_topic(brokers, &topics.events()).await? {
            let event = reader.read(record.value.as_deref(), decode_event).await;
            tokens.events.extend(readable(event, &record, &mut tokens.unreadable));
        }
        let letters = read_topic(brokers, &topics.dead_letters()).await?;
        let commands = topics.commands();
        let is_command = |letter: &&Inbound| letter.header_text(header::FAILURE_TOPIC) == Some(commands.as_str());
        tokens.dead_letters = letters.len();
        tokens.dead_commands = letters.iter().filter(is_command).count();
        Ok(tokens)
    }

    /// Leaves these jobs out.
    pub fn forget(&mut self, jobs: &BTreeSet<JobId>) {
        self.slips.retain(|slip| !jobs.contains(&slip.job));
        self.holds.retain(|hold| !jobs.contains(&hold.slip.job));
        self.events.retain(|event| !jobs.contains(&event.job));
    }

    /// The final event of each job that has ended.
    pub fn ends(&self) -> BTreeMap<JobId, &JobEvent> {
        self.events.iter().filter(|event| event.status.is_final()).map(|event| (event.job, event)).collect()
    }

    /// Contradictions to the invariant: jobs that were split, lost, never ended or ended twice. `accepted` are the jobs
    /// that a caller was promised.
    pub fn problems(&self, accepted: impl IntoIterator<Item = JobId>) -> Vec<String> {
        let mut jobs: BTreeMap<JobId, Trail<'_>> = BTreeMap::new();
        let mut unread = self.unread.clone();
        for slip in &self.slips {
            // Once more for each time that it rested unread.
            if let Some(index) = unread.iter().position(|token| *token == slip.token()) {
                unread.swap_remove(index);
                continue;
            }
            jobs.entry(slip.job).or_default().slips.push((&slip.branch, slip.hop));
        }
        for hold in &self.holds {
            let trail = jobs.entry(hold.slip.job).or_default();
            trail.holds.push((&hold.slip.branch, hold.slip.hop));
            if hold.reason == HoldReason::MissingStep && hold.slip.hop > 1 {
                trail.before_holds.push((&hold.slip.branch, hold.slip.hop - 1));
            }
        }
        for event in &self.events {
            jobs.entry(event.job).or_default().events.push(event);
        }
        let mut problems = vec![];
        for job in accepted {
            if !jobs.contains_key(&job) {
                problems.push(format!("{job}: lost: accepted, but on no topic"));
            }
        }
        for (job, trail) in &jobs {
            problems.extend(trail.problems().into_iter().map(|problem| format!("{job}: {problem}")));
        }
        problems
    }

    /// Holds the invariant.
    ///
    /// # Panics
    /// When it is broken; the message lists how.
    pub fn assert_one_token(&self, accepted: impl IntoIterator<Item = JobId>) {
        let mut problems = self.problems(accepted);
        problems.extend(self.unreadable.values().map(|what| format!("unreadable: {what}")));
        let shown = problems.iter().take(PROBLEMS_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(problems.is_empty(), "{} tokens are not in one place; the first:\n{shown}", problems.len());
    }
}

impl Tokens {
    /// Holds that no job was ever announced as stuck: what ends by itself, however late, is not.
    ///
    /// # Panics
    /// When one was.
    pub fn assert_none_stuck(&self) {
        let stuck: Vec<_> = self.events.iter().filter(|event| event.kind == EventKind::JobStuck).collect();
        assert!(stuck.is_empty(), "{} jobs were announced as stuck; the first: {:?}", stuck.len(), stuck[0]);
    }
}

/// Reads back all topics of the prefix and holds the one-token invariant; returns what it read.
///
/// # Panics
/// When it is broken, or a topic cannot be read.
pub async fn assert_one_token(
    brokers: &str,
    registry_url: &str,
    prefix: &str,
    accepted: impl IntoIterator<Item = JobId>,
) -> Tokens {
    let read = Tokens::read_back(brokers, registry_url, prefix).await;
    let tokens = read.unwrap_or_else(|error| panic!("reading the topics of {prefix} back: {error:#}"));
    tokens.assert_one_token(accepted);
    tokens
}

fn readable<T, E: std::fmt::Display>(
    read: Result<T, E>,
    record: &Inbound,
    unreadable: &mut BTreeMap<(String, Option<Vec<u8>>), String>,
) -> Option<T> {
    let tell = |error| {
        let place = format!("{}[{}]@{}: {error}", record.topic, record.partition, record.offset);
        unreadable.insert((record.topic.clone(), record.value.clone()), place);
    };
    read.map_err(tell).ok()
}

/// One job, as the topics show it.
#[derive(Default)]
struct Trail<'a> {
    slips: Vec<(&'a str, u32)>,
    holds: Vec<(&'a str, u32)>,
    /// The hops before holds of slips that missed something: a queue without a topic is missed in the outbox already.
    before_holds: Vec<(&'a str, u32)>,
    events: Vec<&'a JobEvent>,
}

impl Trail<'_> {
    fn problems(&self) -> Vec<String> {
        let mut problems = repeated("slips", &self.slips);
        problems.extend(repeated("holds", &self.holds));
        let hops: BTreeSet<_> = self.slips.iter().chain(&self.holds).chain(&self.before_holds).collect();
        let mut next: BTreeMap<&str, u32> = BTreeMap::from([("", 1)]);
        for (branch, hop) in hops {
            let expected = next.entry(branch).or_insert(*hop);
            if hop != expected {
                problems.push(format!("lost between: branch {branch:?} goes from hop {expected} on at {hop}"));
            }
            *expected = hop + 1;
        }
        let hop_last = next.get("").map_or(0, |next| next - 1);
        problems.extend(self.problems_of_events(hop_last));
        problems
    }

    fn problems_of_events(&self, hop_last: u32) -> Vec<String> {
        let mut problems = vec![];
        let mut seen = BTreeSet::new();
        for event in &self.events {
            if !seen.insert(event.message_id()) {
                problems.push(format!("event {} ({}) stands twice", event.message_id(), event.kind.as_str()));
            }
        }
        let acceptances = self.events.iter().filter(|event| event.kind == EventKind::JobAccepted).count();
        if acceptances != 1 {
            problems.push(format!("{acceptances} events job.accepted"));
        }
        let ends: Vec<_> = self.events.iter().filter(|event| event.status.is_final()).collect();
        match ends[..] {
            [] if self.events.last().is_some_and(|event| event.status == JobStatus::NeedsAttention) => {}
            [] => problems.push(format!("not ended; last hop {hop_last}")),
            [end] if end.hop == hop_last => {}
            [end] => problems.push(format!("ended at hop {}, but the token went on to {hop_last}", end.hop)),
            _ => problems.push(format!("ended {} times", ends.len())),
        }
        problems
    }
}

fn repeated(what: &str, places: &[(&str, u32)]) -> Vec<String> {
    let mut counts: BTreeMap<_, u32> = BTreeMap::new();
    for place in places {
        *counts.entry(place).or_default() += 1;
    }
    let split = counts.into_iter().filter(|(_, count)| *count > 1);
    split.map(|((branch, hop), count)| format!("split: {count} {what} of branch {branch:?} hop {hop}")).collect()
}

#[cfg(test)]
mod tests;
