//! The board behind a lock, and who waits at it: the committer for results, a revocation for the running transaction's
//! end, a shutdown for quiet.
//!
//! Invariant: nothing here waits with a time-out to look again; whoever changes what is waited for says so.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bus::{AssignedPartition, Inbound, TopicPartition};
use events::lane::HeldLane;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::board::Board;
use crate::cadence::Cadence;
use crate::ledger::UnknownMetadata;
use crate::load::Limits;
use crate::work::{Batch, Delivered, Finished, FlowControl, Work};

/// How long a revocation waits for steps that are under way to end, before it asks them to leave.
const END_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a revocation waits for the steps that are under way to leave their partition. What has not left by then is
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
}

impl Desk {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State {
            board: Board::new(limits),
            stopped: false,
            doomed: false,
            committer_waits: false,
            committed_offsets: HashMap::new(),
        };
        Self { limits, state: Mutex::new(state), ready: Condvar::new(), ended: Condvar::new() }
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
            let end = ends.get(&place).copied().unwrap_or(i64::MAX);
            let held = held(&place);
            state.board.assign(place, *offset, &partition.metadata, end, held)?;
        }
        Ok(())
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

    /// Takes a record.
    pub(crate) fn deliver(&self, record: Inbound) -> Delivered {
        self.lock().board.deliver(record)
    }

    /// What to pause and resume now.
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

    /// Waits until the cadence or a full batch calls for a transaction. None once stopped.
    pub(crate) fn next_batch(&self, cadence: &Cadence, results_max: usize) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            let wait = match state.board.ready() {
                0 => None,
                _ if state.board.is_full(results_max) => Some(Duration::ZERO),
                _ => Some(cadence.wait(Instant::now())),
            };
            if wait == Some(Duration::ZERO)
                && let Some(batch) = state.board.take_batch(results_max)
            {
                state.doomed = false;
                return Some(batch);
            }
            // Ready and due but barred, or not fitting: the end of the revocation, or the next result, tells.
            let until_told = wait.is_none_or(|wait| wait.is_zero());
            state.committer_waits = until_told;
            if until_told {
                self.ready.wait(&mut state);
            } else {
                self.ready.wait_for(&mut state, wait.unwrap_or_default());
            }
            state.committer_waits = false;
        }
    }

    /// Whether the running transaction must be aborted in place of committed.
    pub(crate) fn is_doomed(&self) -> bool {
        self.lock().doomed
    }

    /// The running transaction has been committed. True when paused partitions may go on.
    pub(crate) fn committed(&self, batch: &Batch) -> bool {
        let mut state = self.lock();
        state.board.committed(batch);
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

    /// Waits before the next attempt, unless the end comes first.
    pub(crate) fn pause(&self, pause: Duration) {
        self.ready.wait_while_for(&mut self.lock(), |state| !state.stopped, pause);
    }

    /// Lets every step that is under way leave its partition. False when that took too long.
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
            // The committer may wait for no more than the partitions' being quiet.
            self.ready.notify_one();
            let under_way = |state: &mut State| !state.stopped && !state.board.is_quiet(places);
            self.ended.wait_while_for(state, under_way, timeout);
            state.board.ask_to_leave(places);
        }
    }

    /// Takes nothing more; what runs may finish.
    pub(crate) fn drain(&self) {
        self.lock().board.drain();
        self.ended.notify_all();
    }

    /// Waits until nothing runs and everything finished is committed. False when that took longer.
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

    /// The committer has gone, its transaction's outcome open: nobody has to wait for it.
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
