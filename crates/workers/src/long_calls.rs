//! The calls of this process that have left their partitions: their worker's name, their count, and their ends.
//!
//! Such calls live as long as the process, not as a session. Their outcomes are records on `meanwhile.waits`, sent
//! until Kafka has taken them. While there are such calls, the process sends signs of life. Once it is declared lost,
//! it gives up its calls and goes on under another name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Producer, Record};
use events::Writer;
use events::lane::lost_worker_tombstone;
use events::wait::{Alive, Wait};
use parking_lot::{Mutex, MutexGuard};
use process::Process;
use service_kit::retry::Backoff;
use service_kit::trace::fresh;
use service_kit::{CancellationToken, Clock, Ids};
use tokio::sync::{Notify, watch};

use crate::load::Load;
use crate::pulse::Pulse;
use crate::tenure::Tenure;

/// The count of signs of life per lease.
const SIGNS_PER_LEASE: u32 = 6;
/// A process that was stopped for this part of the lease may have lost its calls. Together with the time since its last
/// sign of life it is less than the silence after which it is asked.
const STOP_PER_LEASE: u32 = 4;
/// Looks per time after which the process counts as stopped.
const LOOKS_PER_STOP: u32 = 4;
/// The interval at which the gauges are set.
const FIGURES_INTERVAL: Duration = Duration::from_secs(1);
/// The time that handing calls over may take when the process stops.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Limits of the calls that have left their partitions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LongCallLimits {
    /// The silence after which a worker counts as lost, once two questions have proved it.
    pub(crate) lease: Duration,
    /// Calls per queue. At this count, steps that are known to take long rest.
    pub(crate) calls_max: usize,
    /// The same limit in bytes of the calls' slips.
    pub(crate) bytes_max: usize,
}

/// The registry of long calls; there is one per process.
#[derive(Debug)]
pub(crate) struct LongCalls {
    producer: Producer,
    writer: Writer,
    instance: String,
    limits: LongCallLimits,
    clock: Clock,
    ids: Ids,
    state: Mutex<State>,
    /// A call has ended.
    ended: Notify,
    /// The count of times that the transactional id was taken over; each time ends all transactions that were open.
    sessions: watch::Sender<u64>,
    /// Cancelled once the process begins no more sessions.
    stopping: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// The name under which calls are made, `instance/start`.
    worker: String,
    next: u64,
    calls: HashMap<u64, Call>,
    queues: HashMap<String, Load>,
    pulse: Pulse,
    /// The count of times that this process was stopped.
    stops: u64,
}

#[derive(Debug)]
struct Call {
    queue: String,
    bytes: usize,
    since: Instant,
    worker: String,
    tenure: Arc<Tenure>,
}

/// A call's entry in the registry; dropping it removes the entry.
#[derive(Debug)]
pub(crate) struct LongCall {
    /// The worker's name under which the call is made.
    pub(crate) worker: String,
    /// The session in which the call left its partition.
    pub(crate) session: u64,
    /// The count of stops of the process before that.
    stops: u64,
    number: u64,
    calls: Arc<LongCalls>,
}

impl Drop for LongCall {
    fn drop(&mut self) {
        let mut state = self.calls.lock();
        if let Some(call) = state.calls.remove(&self.number)
            && let Some(load) = state.queues.get_mut(&call.queue)
        {
            load.remove(1, call.bytes);
        }
        drop(state);
        self.calls.ended.notify_waiters();
    }
}

impl LongCalls {
    pub(crate) fn new(
        producer: Producer,
        writer: Writer,
        instance: &str,
        limits: LongCallLimits,
        process: &Process,
    ) -> Arc<Self> {
        let Process { clock, ids, .. } = process.clone();
        let worker = name(instance, &clock, &ids);
        // The counter exists from the first scrape on, so that the first loss is an increase.
        metrics::counter!("meanwhile_leases_lost_total").increment(0);
        let pulse = Pulse::new(limits.lease / STOP_PER_LEASE);
        let state = State { worker, next: 0, calls: HashMap::new(), queues: HashMap::new(), pulse, stops: 0 };
        Arc::new(Self {
            producer,
            writer,
            instance: instance.to_owned(),
            limits,
            clock,
            ids,
            state: Mutex::new(state),
            ended: Notify::new(),
            sessions: watch::Sender::new(0),
            stopping: CancellationToken::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Notes queues that may have long calls, so that their gauges exist, at zero.
    pub(crate) fn know_queues<'a>(&self, queues: impl IntoIterator<Item = &'a String>) {
        let mut state = self.lock();
        for queue in queues {
            state.queues.entry(queue.clone()).or_default();
        }
    }

    /// The lease of this worker in milliseconds.
    pub(crate) fn lease_ms(&self) -> u64 {
        u64::try_from(self.limits.lease.as_millis()).unwrap_or(u64::MAX)
    }

    /// Registers a call that leaves its partition.
    pub(crate) fn begin(self: &Arc<Self>, queue: &str, bytes: usize, tenure: &Arc<Tenure>) -> LongCall {
        let mut state = self.lock();
        let (number, worker, stops) = (state.next, state.worker.clone(), state.stops);
        state.next += 1;
        state.queues.entry(queue.to_owned()).or_default().add(1, bytes);
        let call = Call {
            queue: queue.to_owned(),
            bytes,
            since: Instant::now(),
            worker: worker.clone(),
            tenure: Arc::clone(tenure),
        };
        state.calls.insert(number, call);
        LongCall { worker, session: *self.sessions.borrow(), stops, number, calls: Arc::clone(self) }
    }

    /// True if this process was stopped since the call left its partition: it may be another worker's by now.
    pub(crate) fn was_stopped_since(&self, call: &LongCall) -> bool {
        self.look() > call.stops
    }

    /// Looks whether this process was stopped. Returns how often it was, so far.
    fn look(&self) -> u64 {
        let mut state = self.lock();
        state.stops += u64::from(state.pulse.was_stopped());
        state.stops
    }

    /// Looks often enough that no other gap counts as a stop. Never ends.
    async fn look_on(&self) {
        loop {
            tokio::time::sleep(self.limits.lease / STOP_PER_LEASE / LOOKS_PER_STOP).await;
            self.look();
        }
    }

    /// True while this queue has as many long calls as it may have.
    pub(crate) fn is_full(&self, queue: &str) -> bool {
        let LongCallLimits { calls_max, bytes_max, .. } = self.limits;
        self.lock().queues.get(queue).is_some_and(|load| load.slips >= calls_max || load.bytes >= bytes_max)
    }

    /// The transactional id was taken over: all earlier transactions have ended.
    pub(crate) fn session_began(&self) {
        self.sessions.send_modify(|sessions| *sessions += 1);
    }

    /// Waits until the transactions of this session have ended, one way or the other, or no further session will come.
    pub(crate) async fn session_ended(&self, session: u64) {
        let mut sessions = self.sessions.subscribe();
        // An error is impossible: `self` owns the sender.
        let ended = async { sessions.wait_for(|sessions| *sessions > session).await.is_ok() };
        self.stopping.run_until_cancelled(ended).await;
    }

    /// Sends a record until Kafka has taken it. Gives up a record that is too large: it fitted when it was measured, so
    /// the topic's limit was lowered since.
    pub(crate) async fn send(&self, record: &Record) {
        let mut backoff = Backoff::default();
        while let Err(error) = self.producer.send(record).await {
            if matches!(error, bus::Error::TooLarge { .. }) {
                tracing::error!(topic = record.topic, %error, "a record is given up; its hold stays until a restart");
                return;
            }
            tracing::info!(topic = record.topic, %error, "a record was not taken yet; retrying");
            tokio::time::sleep(backoff.next_delay(&self.ids)).await;
        }
    }

    /// True for every start of this instance.
    pub(crate) fn is_ours(&self, worker: &str) -> bool {
        worker.rsplit_once('/').is_some_and(|(instance, _)| instance == self.instance)
    }

    /// Deletes the record that declares a start of this instance lost.
    pub(crate) async fn forget_loss(self: Arc<Self>, worker: String) {
        self.send(&lost_worker_tombstone(&self.writer.topics, &worker)).await;
    }

    /// Notes that a worker of this name was declared lost: if it is this one, other workers have its calls now.
    pub(crate) fn lose(&self, worker: &str) {
        let mut state = self.lock();
        let lost: Vec<_> = state.calls.values().filter(|call| call.worker == worker).collect();
        lost.iter().for_each(|call| call.tenure.give_up(true));
        let lost = lost.len();
        if state.worker == worker {
            state.worker = name(&self.instance, &self.clock, &self.ids);
        } else if lost == 0 {
            return;
        }
        metrics::counter!("meanwhile_leases_lost_total").increment(1);
        tracing::warn!(
            worker,
            calls = lost,
            "this worker was silent for longer than its lease; its long calls were given to others"
        );
    }

    /// Sends signs of life while the process has long calls. Sends one at first in any case, so that the calls of an
    /// earlier start of this instance go on elsewhere. After `shutdown`, gives the calls until `drain` to end, and
    /// hands over the rest. `sessions_over` is cancelled once no more calls leave their partitions.
    pub(crate) async fn run(
        self: Arc<Self>,
        shutdown: CancellationToken,
        sessions_over: CancellationToken,
        drain: Duration,
    ) -> anyhow::Result<()> {
        let live = async {
            // Sessions count from 1: the first one takes the transactional id over from an earlier start.
            self.session_ended(0).await;
            self.say_alive().await;
            self.beat().await;
        };
        tokio::select! {
            () = self.look_on() => {}
            () = self.run_until_handed_over(live, shutdown, sessions_over, drain) => {}
        }
        Ok(())
    }

    async fn run_until_handed_over(
        &self,
        live: impl Future<Output = ()>,
        shutdown: CancellationToken,
        sessions_over: CancellationToken,
        drain: Duration,
    ) {
        shutdown.run_until_cancelled(live).await;
        let deadline = tokio::time::Instant::now() + drain;
        let ended = async {
            sessions_over.cancelled().await;
            self.until_none().await;
        };
        let in_time = tokio::select! {
            over = tokio::time::timeout_at(deadline, ended) => over.is_ok(),
            () = self.beat() => false,
        };
        if !in_time {
            let last = async {
                sessions_over.cancelled().await;
                self.stopping.cancel();
                self.hand_over().await;
            };
            // Signs of life go on until the last call is handed over.
            tokio::select! {
                () = last => {}
                () = self.beat() => {}
            }
        }
    }

    async fn hand_over(&self) {
        let left = {
            let state = self.lock();
            state.calls.values().for_each(|call| call.tenure.give_up(false));
            state.calls.len()
        };
        tracing::warn!(calls = left, "long calls did not end within the drain time; others make them again");
        if tokio::time::timeout(HAND_OVER_TIMEOUT, self.until_none()).await.is_err() {
            let calls = self.lock().calls.len();
            tracing::warn!(calls, "long calls could not be handed over; they are made again after the lease");
        }
    }

    /// Sets the gauges and sends signs of life. Never ends.
    async fn beat(&self) {
        let (mut said_at, pause) = (Instant::now(), self.limits.lease / SIGNS_PER_LEASE);
        loop {
            tokio::time::sleep(pause.min(FIGURES_INTERVAL)).await;
            self.tell_figures();
            if said_at.elapsed() >= pause && !self.lock().calls.is_empty() {
                said_at = Instant::now();
                self.say_alive().await;
            }
        }
    }

    async fn say_alive(&self) {
        let worker = self.lock().worker.clone();
        let alive = Wait::Alive(Alive { worker, lease_ms: self.lease_ms(), at_ms: self.clock.now_ms() });
        match self.writer.wait(&alive, &fresh(&self.ids, 0)) {
            Ok(record) => self.send(&record).await,
            Err(error) => tracing::error!(%error, "a sign of life cannot be written"),
        }
    }

    fn tell_figures(&self) {
        let state = self.lock();
        for (queue, load) in &state.queues {
            let of_queue = state.calls.values().filter(|call| call.queue == *queue);
            let oldest = of_queue.map(|call| call.since.elapsed()).max().unwrap_or_default();
            metrics::gauge!("meanwhile_long_calls", "queue" => queue.clone()).set(load.slips as f64);
            metrics::gauge!("meanwhile_long_call_oldest_seconds", "queue" => queue.clone()).set(oldest.as_secs_f64());
        }
    }

    async fn until_none(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.lock().calls.is_empty() {
                return;
            }
            ended.await;
        }
    }
}

/// `<instance>/<start>`: no two starts of any instance share one, and later starts come later in the order of texts.
fn name(instance: &str, clock: &Clock, ids: &Ids) -> String {
    format!("{instance}/{}", ids.uuid_v7(clock.now_ms()).simple())
}
