//! The board behind a lock, and the threads that wait at it: the committer for results, a revocation for the end of
//! the running transaction, a shutdown for the end of all work.
//!
//! Invariant: no thread polls here. Whoever changes a condition that a thread waits for notifies that thread.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bus::{AssignedPartition, Inbound, TopicPartition};
use events::lane::HeldLane;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::board::{Board, END_UNKNOWN};
use crate::cadence::Cadence;
use crate::ledger::UnknownMetadata;
use crate::load::Limits;
use crate::pulse::Pulse;
use crate::work::{Batch, Delivered, Epoch, Finished, FlowControl, Turn, Work};

/// The time that a revocation gives to steps under way to end, before it asks them to leave.
const END_TIMEOUT: Duration = Duration::from_millis(200);
/// The time that a revocation gives to steps under way to leave their partition. Steps that have not left by then are
/// cut off, and run again by the partition's next owner.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The board and its lock; see the head of this module.
#[derive(Debug)]
pub(crate) struct Desk {
    limits: Limits,
    state: Mutex<State>,
    /// Something is ready, or the end has come: the committer waits here.
    ready: Condvar,
    /// A transaction has ended: revocations and shutdowns wait here.
    ended: Condvar,
    /// It is sure again that the partitions are ours: attempts wait here.
    proved: Notify,
}

#[derive(Debug)]
struct State {
    board: Board,
    /// No transaction begins any more.
    stopped: bool,
    /// Partitions were lost while a transaction ran: it must not commit.
    doomed: bool,
    /// The committer waits until there is something to do, however long that takes.
    committer_waits: bool,
    committed_offsets: HashMap<TopicPartition, i64>,
    pulse: Pulse,
    /// The process was stopped: no attempt begins before a transaction has proved that the partitions are still ours.
    doubted: bool,
}

impl Desk {
    /// `gap_max`: a process that does nothing for so long may have lost its partitions.
    pub(crate) fn new(limits: Limits, gap_max: Duration) -> Self {
        let state = State {
            board: Board::new(limits),
            stopped: false,
            doomed: false,
            committer_waits: false,
            committed_offsets: HashMap::new(),
            pulse: Pulse::new(gap_max),
            doubted: false,
        };
        Self { limits, state: Mutex::new(state), ready: Condvar::new(), ended: Condvar::new(), proved: Notify::new() }
    }

    /// Waits until it is sure that the partitions are ours: at once, unless this process was stopped.
    pub(crate) async fn sure(&self) {
        loop {
            let proved = self.proved.notified();
            tokio::pin!(proved);
            proved.as_mut().enable();
            if !self.is_doubted() {
                return;
            }
            proved.await;
        }
    }

    /// Looks whether this process was stopped; called at least as often as `gap_max` says.
    pub(crate) fn is_doubted(&self) -> bool {
        let mut state = self.lock();
        if state.pulse.was_stopped() {
            tracing::info!(
                "this process was stopped; no step begins before Kafka confirms that its partitions are ours"
            );
            state.doubted = true;
            self.ready.notify_one();
        }
        state.doubted
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Opens an epoch for each partition. Where an end is not known, everything may have been begun before.
    pub(crate) fn assign(
        &self,
        assigned: &[(AssignedPartition, i64)],
        ends: &BTreeMap<TopicPartition, i64>,
        held: impl Fn(&TopicPartition) -> Vec<HeldLane>,
    ) -> Result<(), UnknownMetadata> {
        let mut state = self.lock();
        for (partition, offset) in assigned {
            let place = partition.place();
            let end = ends.get(&place).copied().unwrap_or(END_UNKNOWN);
            let held = held(&place);
            state.board.assign(place, *offset, &partition.metadata, end, held)?;
        }
        Ok(())
    }

    /// The partitions whose ends at their assignment are not known.
    pub(crate) fn unknown_ends(&self) -> Vec<(TopicPartition, Epoch)> {
        self.lock().board.unknown_ends()
    }

    /// Learns the ends of partitions that were asked for under these epochs.
    pub(crate) fn know_ends(&self, asked: &[(TopicPartition, Epoch)], ends: &BTreeMap<TopicPartition, i64>) {
        let mut state = self.lock();
        for (place, epoch) in asked {
            if let Some(end) = ends.get(place) {
                state.board.know_end(*epoch, *end);
            }
        }
    }

    /// Ends the epochs of these partitions: lets steps that are under way leave (unless the partitions are lost
    /// already), bars transactions, waits for the running one to end (the caller's thread is the consumer's), drops
    /// what was in flight.
    pub(crate) fn revoke(&self, places: &[TopicPartition], lost: bool) {
        let mut state = self.lock();
        if !lost && !state.stopped {
            self.let_leave(&mut state, places);
        }
        state.board.bar();
        state.doomed |= lost && state.board.is_running();
        self.ended.wait_while(&mut state, |state| state.board.is_running());
        for place in places {
            state.board.revoke(place);
        }
        state.board.unbar();
        drop(state);
        self.ready.notify_one();
        self.ended.notify_all();
    }

    /// Takes a record in; see [`Board::deliver`].
    pub(crate) fn deliver(&self, record: Inbound) -> Delivered {
        self.lock().board.deliver(record)
    }

    /// Partitions to pause and to resume.
    pub(crate) fn flow_control(&self) -> FlowControl {
        self.lock().board.flow_control()
    }

    /// Takes a result; hands out what may run next in its lane.
    pub(crate) fn complete(&self, finished: Finished) -> Option<Work> {
        let mut state = self.lock();
        let next = state.board.complete(finished);
        let news = state.committer_waits || state.board.is_full(self.limits.batch_results_max);
        let closing = state.board.is_closing();
        drop(state);
        if news {
            self.ready.notify_one();
        }
        if closing {
            self.ended.notify_all();
        }
        next
    }

    /// Waits until the cadence or a full batch calls for a transaction, or a topic for a look. None once stopped.
    pub(crate) fn next_turn(&self, cadence: &Cadence, results_max: usize) -> Option<Turn> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if state.doubted
                && let Some(proof) = state.board.take_proof()
            {
                state.doomed = false;
                return Some(Turn::Commit(proof));
            }
            let now = Instant::now();
            if let Some(topic) = state.board.ready.look_due(now) {
                return Some(Turn::Look(topic.to_owned()));
            }
            let wait = match state.board.ready.count() {
                0 => None,
                _ if state.board.is_full(results_max) => Some(Duration::ZERO),
                _ => Some(cadence.wait(now)),
            };
            if wait == Some(Duration::ZERO)
                && let Some(batch) = state.board.take_batch(results_max)
            {
                state.doomed = false;
                return Some(Turn::Commit(batch));
            }
            // Results are due, but barred or beyond the bitmap: the end of the revocation or the next result wakes us.
            let cadence_wait = wait.filter(|wait| !wait.is_zero());
            state.committer_waits = cadence_wait.is_none();
            let look = state.board.ready.next_look().map(|at| at.saturating_duration_since(now));
            match cadence_wait.into_iter().chain(look).min() {
                None => self.ready.wait(&mut state),
                Some(wait) => drop(self.ready.wait_for(&mut state, wait)),
            }
            state.committer_waits = false;
        }
    }

    /// True if the running transaction must be aborted instead of committed.
    pub(crate) fn is_doomed(&self) -> bool {
        self.lock().doomed
    }

    /// The running transaction has been committed. True when paused partitions may go on.
    pub(crate) fn committed(&self, batch: &Batch) -> bool {
        let mut state = self.lock();
        state.board.committed(batch);
        if batch.is_proof() {
            // It may have been stopped again while the proof was under way.
            state.doubted = state.pulse.was_stopped();
            self.proved.notify_waiters();
        }
        let positions = batch.positions.iter().map(|(place, position)| (place.clone(), position.offset));
        state.committed_offsets.extend(positions);
        let paused = state.board.has_paused();
        drop(state);
        self.ended.notify_all();
        paused
    }

    /// The last positions committed in this session.
    pub(crate) fn committed_offsets(&self) -> Vec<(TopicPartition, i64)> {
        self.lock().committed_offsets.iter().map(|(place, offset)| (place.clone(), *offset)).collect()
    }

    /// The session is over: whatever still runs is cancelled.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.board.abandon();
        state.board.bar();
        for place in state.board.assigned() {
            state.board.revoke(&place);
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The running transaction has been aborted.
    pub(crate) fn aborted(&self, batch: Batch) {
        self.lock().board.aborted(batch);
        self.ended.notify_all();
    }

    /// Changes what results produce that wait for a transaction.
    pub(crate) fn amend(&self, change: impl FnMut(&mut Finished)) {
        self.lock().board.ready.amend(change);
    }

    /// Puts results for this topic aside, which takes none now.
    pub(crate) fn set_aside(&self, topic: &str) {
        self.lock().board.ready.set_aside(topic, Instant::now());
    }

    /// A topic whose results wait aside was looked at.
    pub(crate) fn looked_at(&self, topic: &str, is_well: bool) {
        self.lock().board.ready.looked_at(topic, is_well, Instant::now());
    }

    /// The topics whose results wait aside.
    pub(crate) fn topics_aside(&self) -> Vec<String> {
        self.lock().board.ready.topics_aside()
    }

    /// Waits before the next attempt, unless the end comes first.
    pub(crate) fn pause(&self, pause: Duration) {
        self.ready.wait_while_for(&mut self.lock(), |state| !state.stopped, pause);
    }

    /// Lets every step that is under way leave its partition. False if some did not leave in time.
    pub(crate) fn leave_all(&self) -> bool {
        let mut state = self.lock();
        let places = state.board.assigned();
        self.let_leave(&mut state, &places);
        state.board.is_quiet(&places)
    }

    /// Begins nothing more of these partitions, gives what is under way a moment to end, and lets the rest leave.
    fn let_leave(&self, state: &mut MutexGuard<'_, State>, places: &[TopicPartition]) {
        state.board.close(places);
        for timeout in [END_TIMEOUT, LEAVE_TIMEOUT] {
            // The committer may be waiting: results of a closing partition are committed at once.
            self.ready.notify_one();
            let under_way = |state: &mut State| !state.stopped && !state.board.is_quiet(places);
            self.ended.wait_while_for(state, under_way, timeout);
            state.board.ask_to_leave(places);
        }
    }

    /// Takes no more slips; steps that run may finish.
    pub(crate) fn drain(&self) {
        self.lock().board.drain();
        self.ended.notify_all();
    }

    /// Waits until no step runs and all results are committed. False if that takes longer than `timeout`.
    pub(crate) fn wait_idle(&self, timeout: Duration) -> bool {
        let busy = |state: &mut State| !state.stopped && !state.board.is_idle();
        let mut state = self.lock();
        self.ended.wait_while_for(&mut state, busy, timeout);
        state.board.is_idle()
    }

    /// No transaction begins from now on; the committer leaves.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.ready.notify_all();
        self.ended.notify_all();
    }

    /// The committer has ended, and its transaction's outcome is unknown: nobody has to wait for it any more.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.board.abandon();
        drop(state);
        self.ended.notify_all();
    }

    /// Slips in flight, steps that run, and when the oldest slip in flight was written.
    pub(crate) fn figures(&self) -> (usize, usize, Option<i64>) {
        let state = self.lock();
        (state.board.slips_in_flight(), state.board.steps_running(), state.board.oldest_ms())
    }
}
