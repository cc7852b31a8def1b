//! What the consumer's thread tells: partitions come and go, records arrive. Nothing here waits, except for the end of
//! a transaction when partitions are revoked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bus::{AssignedPartition, Commands, ConsumerError, Control, Handler, Inbound, Start, TopicPartition};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::desk::Desk;
use crate::run_step::Runner;
use crate::telemetry;
use crate::work::FlowControl;

/// Asking for the ends of partitions at their assignment.
const ENDS_TIMEOUT: Duration = Duration::from_secs(3);
/// Reading which lanes are held, at an assignment. Without that the session ends, and another one tries again.
const LANES_TIMEOUT: Duration = Duration::from_secs(10);

/// The consumer's handler of one session.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) desk: Arc<Desk>,
    pub(crate) runner: Arc<Runner>,
    pub(crate) runtime: Handle,
    /// The queues to subscribe to, as they change.
    pub(crate) queues: watch::Receiver<BTreeSet<String>>,
    pub(crate) consumer: Control,
    /// Kafka was said to be missing, and has not been seen since.
    pub(crate) is_kafka_missing: bool,
    /// Where to say that the session cannot go on.
    pub(crate) failures: mpsc::UnboundedSender<anyhow::Error>,
}

impl Intake {
    /// Where the partitions end now. Empty when Kafka does not say: whatever comes may have been begun before.
    fn ends(&self, partitions: &[AssignedPartition]) -> BTreeMap<TopicPartition, i64> {
        let topics: BTreeSet<&String> = partitions.iter().map(|partition| &partition.topic).collect();
        let topics: Vec<String> = topics.into_iter().cloned().collect();
        // Timers are made inside the runtime: this is the consumer's thread.
        let ends = self.runtime.block_on(async {
            let asked = tokio::time::timeout(ENDS_TIMEOUT, self.runner.limits.end_offsets(&topics));
            anyhow::Ok(asked.await??)
        });
        ends.unwrap_or_else(|error| {
            tracing::info!(error = format!("{error:#}"), "the ends of partitions are not to be had");
            BTreeMap::new()
        })
    }

    /// Waits until every lane is known that the last owners of these partitions left held.
    fn read_lanes(&self) -> anyhow::Result<()> {
        let to_end = async { tokio::time::timeout(LANES_TIMEOUT, self.runner.lanes.to_end()).await };
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
        let mut known = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let AssignedPartition { topic, partition: number, .. } = partition;
            let missing = || ConsumerError::NoOffset { topic: topic.clone(), partition: *number };
            known.push((partition.clone(), partition.committed.ok_or_else(missing)?));
        }
        self.read_lanes()?;
        self.desk.assign(&known, &self.ends(partitions), |place| self.runner.lanes.of(place))?;
        self.runner.readiness.ready("kafka");
        tracing::debug!(partitions = partitions.len(), "assigned");
        Ok(known.into_iter().map(|(_, offset)| Start::Offset(offset)).collect())
    }

    fn revoked(&mut self, partitions: &[TopicPartition], lost: bool) {
        self.desk.revoke(partitions, lost);
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
                self.runner.readiness.missing("kafka", error);
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
