//! Callbacks of the consumer's thread: partitions come and go, records arrive. They wait only at an assignment (for
//! ends and held lanes) and at a revocation (for steps to leave and the running transaction to end).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bus::{AssignedPartition, Commands, ConsumerError, Control, Handler, Inbound, Start, TopicPartition};
use service_kit::error_chain;
use service_kit::retry::Backoff;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::desk::Desk;
use crate::run_step::Runner;
use crate::telemetry;
use crate::work::FlowControl;

/// The time that Kafka has to tell the ends of partitions at their assignment.
const ENDS_TIMEOUT: Duration = Duration::from_secs(3);
/// The time for reading the held lanes at an assignment, in addition to the time that the open transaction of a lost
/// worker may take. After it the session ends, and another one tries again.
const LANES_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval at which a broker aborts transactions whose time is over (the default of
/// `transaction.abort.timed.out.transaction.cleanup.interval.ms`).
const ABORT_INTERVAL: Duration = Duration::from_secs(10);

/// The consumer's handler of one session.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) desk: Arc<Desk>,
    pub(crate) runner: Arc<Runner>,
    pub(crate) runtime: Handle,
    /// The queues to subscribe to, as they change.
    pub(crate) queues: watch::Receiver<BTreeSet<String>>,
    pub(crate) consumer: Control,
    /// The age at which Kafka aborts an open transaction.
    pub(crate) transaction_timeout: Duration,
    /// True while readiness says that Kafka is missing.
    pub(crate) is_kafka_missing: bool,
    /// The channel for errors that end the session.
    pub(crate) failures: mpsc::UnboundedSender<anyhow::Error>,
}

impl Intake {
    /// The present ends of the partitions. Where one does not answer, any record may have been begun before then.
    fn ends(&self, partitions: &[(AssignedPartition, i64)]) -> BTreeMap<TopicPartition, i64> {
        let places: Vec<TopicPartition> = partitions.iter().map(|(partition, _)| partition.place()).collect();
        self.runtime.block_on(self.runner.limits.ends_of(&places, ENDS_TIMEOUT))
    }

    /// Asks for the ends that were not known at the assignment, until they are, or the partitions are not ours.
    fn learn_ends(&self) {
        let unknown = self.desk.unknown_ends().len();
        if unknown == 0 {
            return;
        }
        tracing::info!(partitions = unknown, "the ends of partitions are not known yet; asking again");
        let (desk, runner) = (Arc::clone(&self.desk), Arc::clone(&self.runner));
        self.runtime.spawn(async move {
            let mut backoff = Backoff::default();
            loop {
                tokio::time::sleep(backoff.next_delay(&runner.ids)).await;
                let unknown = desk.unknown_ends();
                if unknown.is_empty() {
                    return;
                }
                let places: Vec<TopicPartition> = unknown.iter().map(|(place, _)| place.clone()).collect();
                desk.know_ends(&unknown, &runner.limits.ends_of(&places, ENDS_TIMEOUT).await);
            }
        });
    }

    /// Counts the partitions of all queues, for the share of this worker in the limits of downstreams.
    fn learn_share(&self) {
        let topics = topics_of(&self.runner, &self.queues.borrow());
        let runner = Arc::clone(&self.runner);
        let count = runner.downstreams.share().begin_count();
        self.runtime.spawn(async move {
            runner.limits.count_partitions(&topics, runner.downstreams.share(), count).await;
        });
    }

    /// Waits until all lanes are known that earlier owners of partitions left held.
    fn read_lanes(&self) -> anyhow::Result<()> {
        let timeout = self.transaction_timeout + ABORT_INTERVAL + LANES_TIMEOUT;
        let to_end = async { tokio::time::timeout(timeout, self.runner.lanes.to_end()).await };
        self.runtime
            .block_on(to_end)
            .with_context(|| format!("{} cannot be read to its end", self.runner.writer.topics.lanes()))
    }

    fn control_flow(&self, commands: &mut Commands) {
        let FlowControl { pause, resume } = self.desk.flow_control();
        if !pause.is_empty() {
            commands.pause(pause);
        }
        if !resume.is_empty() {
            commands.resume(resume);
        }
    }
}

impl Handler for Intake {
    fn assigned(&mut self, partitions: &[AssignedPartition]) -> anyhow::Result<Vec<Start>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let known = partitions.iter().filter_map(|partition| Some((partition.clone(), partition.committed?)));
        let known: Vec<(AssignedPartition, i64)> = known.collect();
        self.read_lanes()?;
        self.desk.assign(&known, &self.ends(&known), |place| self.runner.lanes.of(place))?;
        self.learn_ends();
        self.runner.downstreams.share().got(partitions.len());
        self.learn_share();
        self.runner.readiness.ready("kafka");
        self.runner.halted.forget(known.iter().map(|(partition, _)| partition.place()));
        tracing::debug!(partitions = partitions.len(), "assigned");
        let start = |partition: &AssignedPartition| {
            if let Some(offset) = partition.committed {
                return Start::Offset(offset);
            }
            let TopicPartition { topic, partition } = partition.place();
            self.runner.halted.halt(&ConsumerError::NoOffset { topic, partition });
            Start::Unread
        };
        Ok(partitions.iter().map(start).collect())
    }

    fn revoked(&mut self, partitions: &[TopicPartition], lost: bool) {
        self.desk.revoke(partitions, lost);
        self.runner.downstreams.share().gave(partitions.len());
        self.runner.halted.forget(partitions.iter().cloned());
        tracing::debug!(partitions = partitions.len(), lost, "revoked");
    }

    fn record(&mut self, record: Inbound, commands: &mut Commands) {
        let delivered = self.desk.deliver(record);
        if let Some(work) = delivered.start {
            self.runtime.spawn(Arc::clone(&self.runner).run(Arc::clone(&self.desk), work));
        }
        if delivered.flow_control_due {
            self.control_flow(commands);
        }
    }

    fn tick(&mut self, commands: &mut Commands) {
        self.control_flow(commands);
        if self.is_kafka_missing && !self.consumer.is_down() {
            self.is_kafka_missing = false;
            self.runner.readiness.ready("kafka");
        }
        if self.queues.has_changed().unwrap_or(false) {
            let queues = self.queues.borrow_and_update();
            self.runner.long_calls.know_queues(queues.iter());
            commands.subscribe(topics_of(&self.runner, &queues));
        }
    }

    fn error(&mut self, error: ConsumerError) {
        match error {
            ConsumerError::Unavailable(_) => {
                self.is_kafka_missing = true;
                self.runner.readiness.missing("kafka", error_chain(&error));
            }
            ConsumerError::OffsetOutOfRange { .. } | ConsumerError::Unreadable { .. } => {
                self.runner.halted.halt(&error)
            }
            error if error.is_fatal() => {
                // The other end is gone only when the session is over already.
                let _ = self.failures.send(error.into());
            }
            error => telemetry::consumer(&error),
        }
    }
}

/// The steps topics of these queues, in order.
pub(crate) fn topics_of(runner: &Runner, queues: &BTreeSet<String>) -> Vec<String> {
    queues.iter().map(|queue| runner.writer.topics.steps(queue)).collect()
}
