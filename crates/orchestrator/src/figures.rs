//! Metrics of waiting work: the slips of each queue with the age of the oldest, and the holds by reason. They are
//! counted here, not by workers, so that they are seen while no worker runs.
//!
//! Every orchestrator counts all queues and holds: take the largest figure, not the sum.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::{Backlog, Waiting};
use events::finished;
use events::topic::Topics;
use flow::slip::HoldReason;
use metrics::{describe_gauge, gauge};
use service_kit::error_chain;
use service_kit::identity::Clock;
use store::Pool;
use store::holds::{count_by_reason, oldest_running_ms};
use store::watched::count_stuck;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const QUEUE_LAG: &str = "meanwhile_queue_lag";
const QUEUE_OLDEST_AGE: &str = "meanwhile_queue_oldest_age_seconds";
const HOLDS: &str = "meanwhile_holds";
const RUNNING_OLDEST: &str = "meanwhile_holds_running_oldest_seconds";
const STUCK: &str = "meanwhile_jobs_stuck";
/// Queues in the metrics, at most: each is a label's value.
const QUEUES_MAX: usize = 200;
/// Counting holds reads all of them. The pause after it is so many times as long as the count took.
const REST_PARTS: u32 = 50;
/// The longest pause between two counts of holds.
const REST_MAX: Duration = Duration::from_secs(300);

/// The last figures of one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Queue {
    slips: u64,
    oldest_ms: Option<i64>,
}

/// Counts the slips that wait in the queues.
pub(crate) struct Queues {
    topics: Topics,
    backlog: Backlog,
    clock: Clock,
    /// The last figures by queue; kept while Kafka does not answer, so that the age of the oldest slip grows.
    seen: BTreeMap<String, Queue>,
}

impl Queues {
    pub(crate) fn new(bus: &bus::Settings, topics: &Topics, clock: Clock) -> Result<Self, bus::Error> {
        describe_gauge!(QUEUE_LAG, "Slips of the queue that are not done");
        describe_gauge!(QUEUE_OLDEST_AGE, "For how long the oldest slip of the queue has been there");
        let backlog = Backlog::new(bus, &topics.workers_group())?;
        Ok(Self { topics: topics.clone(), backlog, clock, seen: BTreeMap::new() })
    }

    /// Reads the figures and sets the gauges. Without an answer from Kafka the last figures stay, and ages grow.
    async fn count(&mut self) -> Result<(), bus::Error> {
        let looked = self.backlog.look(&self.topics.steps("")).await;
        let outcome = looked.map(|waiting| {
            // A queue that is gone is reported once more, as empty.
            self.seen.values_mut().for_each(|queue| *queue = Queue::default());
            for (name, queue) in by_queue(&self.topics, &waiting) {
                if self.seen.len() < QUEUES_MAX || self.seen.contains_key(&name) {
                    self.seen.insert(name, queue);
                }
            }
        });
        let now_ms = self.clock.now_ms();
        for (name, queue) in &self.seen {
            let age_ms = queue.oldest_ms.map_or(0, |oldest_ms| (now_ms - oldest_ms).max(0));
            gauge!(QUEUE_LAG, "queue" => name.clone()).set(queue.slips as f64);
            gauge!(QUEUE_OLDEST_AGE, "queue" => name.clone()).set(age_ms as f64 / 1_000.0);
        }
        outcome
    }
}

/// The backlog by queue, without the slips that workers have finished out of order.
fn by_queue(topics: &Topics, waiting: &[Waiting]) -> BTreeMap<String, Queue> {
    let mut queues: BTreeMap<String, Queue> = BTreeMap::new();
    for Waiting { place, offset, metadata, records, oldest_ms, .. } in waiting {
        let Some(name) = topics.queue_of(&place.topic) else { continue };
        let queue = queues.entry(name.to_owned()).or_default();
        queue.slips += records.saturating_sub(finished::count(*offset, metadata));
        queue.oldest_ms = queue.oldest_ms.into_iter().chain(*oldest_ms).min();
    }
    queues
}

/// Runs until shutdown.
pub(crate) async fn count_queues(
    mut queues: Queues,
    every: Duration,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut failing = false;
    loop {
        let Some(outcome) = shutdown.run_until_cancelled(queues.count()).await else { return Ok(()) };
        let failed = outcome.is_err();
        match outcome {
            Err(error) => {
                let error = error_chain(&error);
                if failing {
                    tracing::debug!(error, "queues cannot be counted");
                } else {
                    tracing::warn!(error, "queues cannot be counted; trying again");
                }
            }
            Ok(()) if failing => tracing::info!("queues can be counted again"),
            Ok(()) => {}
        }
        failing = failed;
        if !rest(every, &shutdown).await {
            return Ok(());
        }
    }
}

/// Runs until shutdown. Other loops report that Postgres is unavailable.
pub(crate) async fn count_holds(pool: Pool, every: Duration, shutdown: CancellationToken) -> anyhow::Result<()> {
    describe_gauge!(HOLDS, "Slips at rest in Postgres, by what they wait for");
    describe_gauge!(RUNNING_OLDEST, "For how long the oldest long call has rested as one");
    describe_gauge!(STUCK, "Jobs that have made no progress for long, although nothing that they wait for is known");
    loop {
        let started = Instant::now();
        match count_by_reason(&pool).await {
            Ok(counts) => {
                for reason in HoldReason::ALL {
                    let holds = counts.iter().find(|(counted, _)| *counted == reason).map_or(0, |(_, holds)| *holds);
                    gauge!(HOLDS, "reason" => reason.as_str().to_owned()).set(holds as f64);
                }
                // Of later versions.
                let others = counts.iter().filter(|(reason, _)| !HoldReason::ALL.contains(reason));
                let others: u64 = others.map(|(_, holds)| *holds).sum();
                gauge!(HOLDS, "reason" => "other").set(others as f64);
            }
            Err(error) => tracing::debug!(%error, "holds cannot be counted"),
        }
        match oldest_running_ms(&pool).await {
            Ok(age_ms) => gauge!(RUNNING_OLDEST).set(age_ms.unwrap_or_default() as f64 / 1_000.0),
            Err(error) => tracing::debug!(%error, "the oldest long call cannot be found"),
        }
        match count_stuck(&pool).await {
            Ok(jobs) => gauge!(STUCK).set(jobs as f64),
            Err(error) => tracing::debug!(%error, "stuck jobs cannot be counted"),
        }
        if !rest(every.max((started.elapsed() * REST_PARTS).min(REST_MAX)), &shutdown).await {
            return Ok(());
        }
    }
}

/// Sleeps for this time. False if shutdown came first.
async fn rest(pause: Duration, shutdown: &CancellationToken) -> bool {
    shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
}

#[cfg(test)]
mod tests {
    use bus::TopicPartition;

    use super::*;

    fn waiting(topic: &str, partition: i32, records: u64, oldest_ms: Option<i64>, metadata: String) -> Waiting {
        Waiting {
            place: TopicPartition::new(topic, partition),
            offset: 10,
            metadata,
            end: 20,
            records,
            first: None,
            oldest_ms,
        }
    }

    #[test]
    fn a_queue_is_the_sum_of_its_partitions_without_what_is_finished_and_as_old_as_the_oldest() {
        let topics = Topics::new("m");
        let finished = finished::encode(10, [11, 12].into_iter());
        let seen = [
            waiting("m.steps.a", 0, 5, Some(700), finished),
            waiting("m.steps.a", 1, 1, Some(500), String::new()),
            waiting("m.steps.a", 2, 1, None, "m9:later".to_owned()),
            waiting("m.steps.b", 0, 0, None, String::new()),
            waiting("m.stepsons", 0, 9, None, String::new()),
        ];
        let queues = by_queue(&topics, &seen);
        assert_eq!(queues["a"], Queue { slips: 5, oldest_ms: Some(500) });
        assert_eq!(queues["b"], Queue::default());
        assert_eq!(queues.len(), 2);
    }
}
