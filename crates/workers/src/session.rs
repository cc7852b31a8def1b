//! One session: a consumer, a transactional producer, and the slips in flight between them. When any part fails, the
//! session is torn down, and another one begins at Kafka's committed offsets.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use bus::{ConsumerOptions, GroupConsumer, Interrupt, TopicPartition, TransactionalProducer, TxError};
use service_kit::CancellationToken;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

use crate::commit::Committer;
use crate::config::Config;
use crate::desk::Desk;
use crate::intake::{Intake, topics_of};
use crate::native::words_of;
use crate::run_step::Runner;
use crate::telemetry;

/// The time for taking over the transactional id, before readiness says that Kafka is missing.
const INIT_TIMEOUT: Duration = Duration::from_secs(3);
/// The time that giving the partitions back may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The age at which a session that was not fenced counts as the only one under its name.
const UNDISPUTED_AFTER: Duration = Duration::from_secs(30);
/// Slips fetched ahead. A quarter of it left workers idle for a fourth of the time.
const PREFETCH_MAX_KIB: u32 = 4096;
/// The interval at which the gauges are set.
const FIGURES_INTERVAL: Duration = Duration::from_secs(1);

/// The cause of a session's end before it was asked to end.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Another producer took the transactional id over.
    Fenced,
    /// A partition that was left unread can be read again: a new session reads it.
    Repaired(TopicPartition),
    /// Anything else that a new session may mend.
    Failed(anyhow::Error),
}

/// Everything that a session is started from.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) bus: bus::Settings,
    pub(crate) instance: String,
    pub(crate) config: Config,
    pub(crate) runner: Arc<Runner>,
    pub(crate) queues: watch::Receiver<BTreeSet<String>>,
}

/// The parts that run.
struct Parts {
    desk: Arc<Desk>,
    consumer: GroupConsumer,
    committer: JoinHandle<()>,
    interrupt: Interrupt,
}

impl Session {
    /// Runs until shutdown, or until something breaks.
    pub(crate) async fn run(self, shutdown: &CancellationToken) -> Result<(), Ending> {
        match self.run_parts(shutdown).await {
            Ok(None) => Ok(()),
            Ok(Some(repaired)) => Err(Ending::Repaired(repaired)),
            Err(failure) => Err(match failure.downcast_ref() {
                Some(TxError::Fenced) => Ending::Fenced,
                _ => Ending::Failed(failure),
            }),
        }
    }

    /// Ends in good order at shutdown (none), or when a halted partition can be read again.
    async fn run_parts(self, shutdown: &CancellationToken) -> anyhow::Result<Option<TopicPartition>> {
        let Some(producer) = shutdown.run_until_cancelled(self.producer()).await else { return Ok(None) };
        let producer = producer?;
        self.runner.long_calls.session_began();
        self.runner.readiness.ready("kafka");
        let started = Instant::now();
        let (failures, mut failed) = mpsc::unbounded_channel();
        let parts = self.start(producer, &failures)?;
        let trim_interval = Duration::from_millis(self.config.trim_interval_ms);
        let trim = crate::trim::run(&self.bus, trim_interval, &parts.desk);
        let group = self.runner.writer.topics.workers_group();
        let ending = tokio::select! {
            () = shutdown.cancelled() => Ok(None),
            failure = failed.recv() => Err(failure.unwrap_or_else(|| anyhow!("the session's parts are gone"))),
            () = self.watch(&parts, started) => Err(anyhow!("a thread of the session ended before it was asked to")),
            () = trim => Ok(None),
            repaired = self.runner.halted.repaired(&group) => Ok(Some(repaired)),
        };
        let ending = match ending {
            Err(failure) => Err(failure),
            Ok(repaired) => self.drain(&parts, &mut failed).await.map(|()| repaired),
        };
        parts.tear_down(self.config.transaction_timeout()).await;
        ending
    }

    /// Takes the transactional id over: a predecessor's open transaction ends here.
    async fn producer(&self) -> anyhow::Result<TransactionalProducer> {
        let transactional_id = self.runner.writer.topics.workers_ids() + &self.instance;
        let (settings, timeout) = (self.bus.clone(), self.config.transaction_timeout());
        let start = move || -> anyhow::Result<TransactionalProducer> {
            let mut producer = TransactionalProducer::new(&settings, &transactional_id, timeout)?;
            producer.init(INIT_TIMEOUT)?;
            Ok(producer)
        };
        spawn_blocking(start).await.context("starting the producer")?
    }

    fn start(
        &self,
        producer: TransactionalProducer,
        failures: &mpsc::UnboundedSender<anyhow::Error>,
    ) -> anyhow::Result<Parts> {
        let (runner, interrupt) = (&self.runner, producer.interrupt());
        // Its last heartbeat may have been before it was stopped.
        let desk = Arc::new(Desk::new(self.config.limits(), self.gap_max()));
        let mut queues = self.queues.clone();
        let topics = topics_of(runner, &queues.borrow_and_update());
        runner.long_calls.know_queues(queues.borrow().iter());
        runner.downstreams.share().begin();
        let mut options = ConsumerOptions::new(runner.writer.topics.workers_group(), topics);
        options.session_timeout = Duration::from_millis(self.config.session_timeout_ms);
        options.prefetch_max_kib = PREFETCH_MAX_KIB;
        let intake = |consumer| Intake {
            desk: Arc::clone(&desk),
            runner: Arc::clone(runner),
            runtime: Handle::current(),
            queues,
            consumer,
            transaction_timeout: self.config.transaction_timeout(),
            is_kafka_missing: false,
            failures: failures.clone(),
        };
        let consumer = GroupConsumer::start_with(&self.bus, options, intake)?;
        let interval_max = Duration::from_millis(self.config.commit_interval_ms_max);
        let capacity = self.bus.dev_capacity(&runner.writer.topics);
        let (control, to_commit) = (consumer.control(), Arc::clone(&desk));
        let committer = Committer::new(producer, control, to_commit, Arc::clone(runner), interval_max, capacity);
        let failures = failures.clone();
        let abandoned = Arc::clone(&desk);
        let commit = move || {
            let failure = match catch_unwind(AssertUnwindSafe(|| committer.run())) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.into(),
                Err(panic) => {
                    abandoned.abandon();
                    anyhow!("the committer panicked: {}", words_of(panic.as_ref()))
                }
            };
            // The other end is gone only when the session is over already.
            let _ = failures.send(failure);
        };
        let committer = std::thread::Builder::new().name("committer".to_owned()).spawn(commit)?;
        Ok(Parts { desk, consumer, committer, interrupt })
    }

    /// Lets running steps finish and be committed, until the drain time is over; then lets them leave their partitions.
    async fn drain(
        &self,
        parts: &Parts,
        failed: &mut mpsc::UnboundedReceiver<anyhow::Error>,
    ) -> Result<(), anyhow::Error> {
        parts.desk.drain();
        parts.consumer.wake();
        let (desk, timeout) = (Arc::clone(&parts.desk), self.config.drain_timeout());
        let idle = spawn_blocking(move || desk.wait_idle(timeout));
        tokio::select! {
            failure = failed.recv() => Err(failure.unwrap_or_else(|| anyhow!("the session's parts are gone"))),
            idle = idle => {
                if !idle.unwrap_or(false) {
                    let desk = Arc::clone(&parts.desk);
                    let left = spawn_blocking(move || desk.leave_all()).await;
                    if !left.unwrap_or(false) {
                        let (slips, ..) = parts.desk.figures();
                        tracing::warn!(slips, "steps were still running; others will run them again");
                    }
                }
                Ok(())
            }
        }
    }

    /// The time after which a process that did nothing counts as stopped.
    fn gap_max(&self) -> Duration {
        Duration::from_millis(self.config.session_timeout_ms) / 2
    }

    /// Ends when a thread of the session has: it heartbeats no more, or nothing is committed any more.
    async fn watch(&self, parts: &Parts, started: Instant) {
        let Parts { desk, consumer, committer, .. } = parts;
        while !consumer.is_finished() && !committer.is_finished() {
            if started.elapsed() > UNDISPUTED_AFTER {
                // No other process runs under this name any more.
                self.runner.readiness.ready("instance");
            }
            tokio::time::sleep(FIGURES_INTERVAL.min(self.gap_max() / 4)).await;
            desk.is_doubted();
            let (slips, running, oldest_ms) = desk.figures();
            let age_ms = oldest_ms.map_or(0, |oldest_ms| self.runner.clock.now_ms() - oldest_ms);
            telemetry::in_flight(slips, running, age_ms);
        }
    }
}

impl Parts {
    /// No more transactions, then no more partitions; the running transaction may end in between.
    async fn tear_down(self, transaction_timeout: Duration) {
        let Self { desk, consumer, committer, interrupt } = self;
        desk.stop();
        let leave = move || {
            let mut patience = consumer.stop(LEAVE_TIMEOUT);
            if !patience {
                interrupt.raise();
            }
            let deadline = Instant::now() + transaction_timeout;
            while !committer.is_finished() && patience {
                std::thread::sleep(Duration::from_millis(1));
                patience = Instant::now() < deadline;
            }
            interrupt.raise();
            committer.join().is_ok()
        };
        if !spawn_blocking(leave).await.unwrap_or(false) {
            tracing::error!("the committer panicked");
        }
        desk.close();
    }
}
