//! A consumer on a thread of its own: it polls, and calls a `Handler`; nothing runs on a tokio worker.
//!
//! After `revoked` no record of those partitions is delivered until they are `assigned` again. The handler chooses the
//! start offsets at each assignment. This consumer commits nothing and never resets (`auto.offset.reset=error`).

mod client;
mod handler;
mod kept;
mod membership;
mod owned;
mod poll;
mod rebalance;
mod stopped;
mod wake;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientConfig;

pub(crate) use self::handler::Command;
pub use self::handler::{AssignedPartition, Commands, ConsumerError, Handler, Start, TopicPartition};
pub use self::membership::GroupMetadata;
use self::membership::Membership;
use self::poll::Poller;
pub(crate) use self::poll::inbound;
use self::rebalance::Callbacks;
use self::wake::Wake;
use crate::in_process::InProcess;
use crate::settings::MESSAGE_BYTES_MAX;
use crate::{Error, Settings};

/// The time that the in-process broker may hold a fetch of a consumer that a caller waits for. It answers a fetch that
/// found nothing only after this time, whatever is written meanwhile (librdkafka's `rd_kafka_mock_handle_Fetch`), so a
/// record waits for half of it on average. Each such consumer costs an idle process 200 fetches a second, about 1 % of
/// a processor.
const IN_PROCESS_FETCH_WAIT_MAX: Duration = Duration::from_millis(5);

/// A consumer's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// The consumer group; it divides the partitions and keeps committed offsets.
    pub group: String,
    /// The topics, by full name. Changed at run time by `Commands::subscribe`.
    pub topics: Vec<String>,
    /// The time that the broker may hold a fetch on an idle topic. The lower, the sooner a lone record arrives.
    pub fetch_wait_max: Duration,
    /// The bytes at which the broker answers a fetch before that time is over; 1: at any record. The more, the fewer
    /// fetches a busy topic costs the broker, and the later a lone record arrives.
    pub fetch_min_bytes: u32,
    /// The time without a heartbeat after which the group gives our partitions to others.
    pub session_timeout: Duration,
    /// The time without a poll (a handler that blocks) after which we leave the group.
    pub poll_interval_max: Duration,
    /// Records fetched ahead, in KiB, all partitions together.
    pub prefetch_max_kib: u32,
    /// `Handler::tick` is called at least this often.
    pub tick_interval: Duration,
}

impl ConsumerOptions {
    /// The defaults: low latency, small memory.
    pub fn new(group: impl Into<String>, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            fetch_wait_max: Duration::from_millis(100),
            fetch_min_bytes: 1,
            session_timeout: Duration::from_secs(10),
            poll_interval_max: Duration::from_secs(300),
            prefetch_max_kib: 1024,
            tick_interval: Duration::from_millis(100),
        }
    }

    fn fetch_wait(&self, settings: &Settings, scope: Scope) -> Duration {
        // Tables change seldom, and large batches are asked for where no caller waits.
        let is_waited_for = scope != Scope::WholeWithEnds && self.fetch_min_bytes <= 1;
        match settings.in_process {
            Some(_) if is_waited_for => self.fetch_wait_max.min(IN_PROCESS_FETCH_WAIT_MAX),
            Some(_) | None => self.fetch_wait_max,
        }
    }

    fn client_config(&self, settings: &Settings, scope: Scope) -> ClientConfig {
        let session_ms = self.session_timeout.as_millis();
        // One answer may carry as much as may wait in all, but the largest record must fit (librdkafka insists).
        let fetch_max_bytes = (self.prefetch_max_kib * 1024).max(MESSAGE_BYTES_MAX);
        // A member hears of a rebalance with its next heartbeat, so this is what a rebalance takes.
        let heartbeat_ms = (session_ms / 10).clamp(1, 1000).to_string();
        settings.client_config(&[
            ("group.id", &self.group),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("auto.offset.reset", "error"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", if scope == Scope::WholeWithEnds { "true" } else { "false" }),
            ("session.timeout.ms", &session_ms.to_string()),
            ("heartbeat.interval.ms", &heartbeat_ms),
            ("max.poll.interval.ms", &self.poll_interval_max.max(self.session_timeout).as_millis().to_string()),
            ("fetch.wait.max.ms", &self.fetch_wait(settings, scope).as_millis().to_string()),
            ("fetch.min.bytes", &self.fetch_min_bytes.to_string()),
            ("fetch.max.bytes", &fetch_max_bytes.to_string()),
            ("fetch.error.backoff.ms", "100"),
            ("fetch.queue.backoff.ms", "5"),
            ("queued.min.messages", "10000"),
            ("queued.max.messages.kbytes", &self.prefetch_max_kib.to_string()),
        ])
    }
}

/// The partitions to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those that the group gives us.
    Group,
    /// All, without a group: tails.
    Whole,
    /// All, and `Handler::end` is called at the end of each: tables.
    WholeWithEnds,
}

/// A running consumer. Dropping it stops it.
#[derive(Debug)]
pub struct GroupConsumer {
    control: Control,
    thread: Option<JoinHandle<()>>,
}

/// A running consumer's handle for other threads. Cheap to clone; it does not keep the consumer alive.
#[derive(Clone)]
#[cfg_attr(test, derive(Default))]
pub struct Control {
    stop: Arc<AtomicBool>,
    wake: Arc<Wake>,
    /// The reason, while Kafka cannot be reached.
    down: Arc<Mutex<Option<String>>>,
    membership: Membership,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("stopping", &self.stop).finish_non_exhaustive()
    }
}

impl Control {
    /// Makes the consumer call `Handler::tick` now.
    pub fn wake(&self) {
        self.wake.signal();
    }

    /// The membership as of now; none before the first start or after the end.
    pub fn group_metadata(&self) -> Option<GroupMetadata> {
        self.membership.now()
    }

    /// True if Kafka could not be reached when it was last tried.
    pub fn is_down(&self) -> bool {
        self.down.lock().is_some()
    }

    /// The reason, while Kafka could not be reached when it was last tried.
    pub fn why_down(&self) -> Option<String> {
        self.down.lock().clone()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Asks the consumer to leave; `GroupConsumer::stop` also waits for it.
    pub fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake.signal();
    }
}

impl GroupConsumer {
    /// Starts the thread. Fails only for settings that make no client; everything later goes to `Handler::error`.
    pub fn start(settings: &Settings, options: ConsumerOptions, handler: impl Handler) -> Result<Self, Error> {
        Self::start_with(settings, options, |_| handler)
    }

    /// Reads all partitions, without a group.
    pub(crate) fn start_whole(
        settings: &Settings,
        options: ConsumerOptions,
        scope: Scope,
        handler: impl Handler,
    ) -> Result<Self, Error> {
        Self::start_in(settings, options, scope, |_| handler)
    }

    /// [`GroupConsumer::start`] for a handler that needs the control (to wake the thread, or for the group's metadata).
    pub fn start_with<H: Handler>(
        settings: &Settings,
        options: ConsumerOptions,
        handler: impl FnOnce(Control) -> H,
    ) -> Result<Self, Error> {
        Self::start_in(settings, options, Scope::Group, handler)
    }

    fn start_in<H: Handler>(
        settings: &Settings,
        options: ConsumerOptions,
        scope: Scope,
        handler: impl FnOnce(Control) -> H,
    ) -> Result<Self, Error> {
        let membership = match settings.in_process {
            Some(_) => Membership::in_process(&options.group),
            None => Membership::default(),
        };
        let control = Control { stop: Arc::default(), wake: Arc::default(), down: Arc::default(), membership };
        let handler = Box::new(handler(control.clone()));
        let callbacks = Callbacks::new(handler, options.group.clone(), settings.in_process.clone(), control.clone());
        let config = options.client_config(settings, scope);
        let consumer = client::make(&config, callbacks, &control)?;
        // The in-process broker has no groups: there, every member has all partitions.
        let reader = settings.in_process.as_ref().map(InProcess::reader);
        let poller = Poller::new(consumer, config, options, control.clone(), scope, reader);
        let thread = std::thread::Builder::new()
            .name("kafka-consumer".to_owned())
            .spawn(move || poller.run())
            .map_err(|error| Error::settings(format!("no thread for the consumer: {error}")))?;
        Ok(Self { control, thread: Some(thread) })
    }

    /// A handle for other threads.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Makes the consumer call `Handler::tick` now.
    pub fn wake(&self) {
        self.control.wake();
    }

    /// The membership as of now; none after the end.
    pub fn group_metadata(&self) -> Option<GroupMetadata> {
        self.control.group_metadata()
    }

    /// True if the thread has ended by itself, after a fatal error.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Gives the partitions back (`revoked` is called), leaves the group, and waits for the thread, at most
    /// `timeout`. Blocks. False when it has not ended by then (an unreachable broker); it then ends on its own.
    pub fn stop(mut self, timeout: Duration) -> bool {
        self.end(timeout)
    }

    fn end(&mut self, timeout: Duration) -> bool {
        self.control.ask_to_stop();
        let Some(thread) = self.thread.take() else { return true };
        let deadline = Instant::now() + timeout;
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.join().is_err() {
            tracing::error!("the consumer's thread panicked");
        }
        true
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.control.ask_to_stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_ms(settings: &Settings, scope: Scope, fetch_min_bytes: u32) -> String {
        let options = ConsumerOptions { fetch_min_bytes, ..ConsumerOptions::new("g", ["t"]) };
        options.client_config(settings, scope).get("fetch.wait.max.ms").unwrap().to_owned()
    }

    #[test]
    fn the_in_process_broker_holds_no_fetch_for_long_that_somebody_waits_for() {
        let in_process = Settings::of_in_process(crate::InProcess::start().unwrap());
        assert_eq!([Scope::Group, Scope::Whole].map(|scope| wait_ms(&in_process, scope, 1)), ["5", "5"]);
        assert_eq!(wait_ms(&in_process, Scope::Group, 4_096), "100");
        assert_eq!(wait_ms(&in_process, Scope::WholeWithEnds, 1), "100");
        assert_eq!(wait_ms(&Settings::new("kafka:9092", ""), Scope::Group, 1), "100");
    }
}
