//! The board: every slip that this process has taken and not yet committed, and which results go into a transaction.
//!
//! Pure: [`crate::desk`] puts it behind a lock. An [`Epoch`] names one assignment of one partition; work and results
//! carry it, so whatever belongs to a revoked assignment finds no home and is dropped.
//!
//! Invariant: a batch has results of current epochs only, and no batch is taken while a partition is being revoked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bus::{Inbound, TopicPartition};
use events::lane::HeldLane;
use tokio_util::sync::CancellationToken;

pub(crate) use self::ends::END_UNKNOWN;
use crate::held::{Errand, Held};
use crate::lanes::{Lane, Lanes};
use crate::ledger::{Delivery, Ledger, UnknownMetadata, WINDOW_OFFSETS};
use crate::load::{Limits, Load};
use crate::ready::Ready;
use crate::tenure::Tenure;
use crate::work::{Batch, Delivered, Epoch, Finished, FlowControl, LaneAfter, Work};

mod ends;
mod proof;
#[cfg(test)]
mod tests;

/// No more is taken of a partition whose finished and unfinished offsets span this much of the bitmap.
const SPAN_PAUSE: i64 = WINDOW_OFFSETS / 8 * 7;
/// A partition paused for its span goes on below this.
const SPAN_RESUME: i64 = WINDOW_OFFSETS / 2;

static NEXT_EPOCH: AtomicU64 = AtomicU64::new(1);

#[derive(Debug)]
struct Partition {
    place: TopicPartition,
    ledger: Ledger,
    /// The partition's end at its assignment: records below it may have been begun by another worker.
    end_at_assignment: i64,
    lanes: Lanes<Work>,
    /// Lanes that a long call holds.
    held: Held,
    /// Tenures of the slips whose turn has come in their lanes, by offset.
    tenures: HashMap<i64, Arc<Tenure>>,
    revoked: CancellationToken,
    /// The partition is about to go: nothing more of it is begun.
    closing: bool,
    /// Cancelled when steps that are under way are to leave it.
    leave: CancellationToken,
    paused: bool,
    span_full: bool,
    load: Load,
}

impl Partition {
    /// Prepares a slip whose turn has come in its lane.
    fn start(&mut self, mut work: Work) -> Work {
        work.errand = self.held.errand(&work.record);
        self.tenures.insert(work.record.offset, Arc::clone(&work.tenure));
        work
    }

    /// True once no step of it can come to a transaction any more: each has left it, or was never begun.
    fn is_quiet(&self) -> bool {
        self.tenures.values().all(|tenure| tenure.is_over())
    }
}

/// The slips in flight of one session; see the head of this module.
#[derive(Debug)]
pub(crate) struct Board {
    limits: Limits,
    partitions: HashMap<Epoch, Partition>,
    /// By topic and partition: looked up for each record, without an allocation.
    epochs: HashMap<String, HashMap<i32, Epoch>>,
    pub(crate) ready: Ready,
    queues: HashMap<String, Load>,
    /// True while a batch is out: from `take_batch` to `committed` or `aborted`.
    running: bool,
    /// The count of revocations that forbid new batches.
    bars: u32,
    draining: bool,
}

impl Board {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            partitions: HashMap::new(),
            epochs: HashMap::new(),
            ready: Ready::default(),
            queues: HashMap::new(),
            running: false,
            bars: 0,
            draining: false,
        }
    }

    /// Opens a new epoch for a partition from its committed offset and metadata; `end` is the partition's present end.
    pub(crate) fn assign(
        &mut self,
        place: TopicPartition,
        offset: i64,
        metadata: &str,
        end: i64,
        held: Vec<HeldLane>,
    ) -> Result<(), UnknownMetadata> {
        assert!(self.epoch(&place.topic, place.partition).is_none(), "{place} was assigned twice without a revocation");
        let epoch = Epoch(NEXT_EPOCH.fetch_add(1, Ordering::Relaxed));
        let partition = Partition {
            place: place.clone(),
            ledger: Ledger::restore(offset, metadata)?,
            end_at_assignment: end,
            lanes: Lanes::default(),
            held: Held::restore(held),
            tenures: HashMap::new(),
            revoked: CancellationToken::new(),
            closing: false,
            leave: CancellationToken::new(),
            paused: false,
            span_full: false,
            load: Load::default(),
        };
        self.queues.entry(place.topic.clone()).or_default();
        self.partitions.insert(epoch, partition);
        self.epochs.entry(place.topic).or_default().insert(place.partition, epoch);
        Ok(())
    }

    fn epoch(&self, topic: &str, partition: i32) -> Option<Epoch> {
        self.epochs.get(topic)?.get(&partition).copied()
    }

    /// Takes a record in; ignores it if its partition is not assigned, or if it was finished or delivered before.
    pub(crate) fn deliver(&mut self, record: Inbound) -> Delivered {
        let mut delivered = Delivered::default();
        let epoch = self.epoch(&record.topic, record.partition).filter(|_| !self.draining);
        let Some(epoch) = epoch else { return delivered };
        let Some(partition) = self.partitions.get_mut(&epoch).filter(|partition| !partition.closing) else {
            return delivered;
        };
        let delivery = partition.ledger.deliver(record.offset, record.timestamp_ms);
        delivered.flow_control_due = !partition.paused && partition.ledger.span_at_most() >= SPAN_PAUSE;
        if delivery != Delivery::Fresh {
            return delivered;
        }
        let bytes = record.size_bytes();
        partition.load.add(1, bytes);
        if let Some(queue) = self.queues.get_mut(&record.topic) {
            queue.add(1, bytes);
            delivered.flow_control_due |= !partition.paused && queue.is_over(&self.limits);
        }
        let lane = Lane::of(record.key.as_deref().unwrap_or_default());
        let redelivered = record.offset < partition.end_at_assignment;
        let work = Work {
            epoch,
            lane,
            record: Arc::new(record),
            entered: Instant::now(),
            revoked: partition.revoked.clone(),
            redelivered,
            leave: partition.leave.clone(),
            tenure: Arc::new(Tenure::new()),
            errand: Errand::Run(None),
        };
        delivered.start = partition.lanes.enter(lane, work).map(|work| partition.start(work));
        delivered
    }

    /// Takes a result, unless its epoch is over; hands out what may run next in its lane.
    pub(crate) fn complete(&mut self, mut finished: Finished) -> Option<Work> {
        let partition = self.partitions.get_mut(&finished.epoch)?;
        partition.tenures.remove(&finished.record.offset);
        match &finished.lane_after {
            LaneAfter::Same => {}
            LaneAfter::Held(lane, _) => partition.held.hold(lane.clone()),
            LaneAfter::TakenBack(place) => partition.held.take_back(&finished.record, *place),
        }
        let mut next = partition.lanes.leave(finished.lane);
        // Slips that wait in the lane are left to the partition's next owner.
        let closing = self.draining || partition.closing;
        while closing && next.is_some() {
            next = partition.lanes.leave(finished.lane);
        }
        let next = next.map(|work| partition.start(work));
        let bytes = finished.produced_bytes();
        partition.load.add(0, bytes);
        if let Some(queue) = self.queues.get_mut(&partition.place.topic) {
            queue.add(0, bytes);
        }
        finished.held_bytes = finished.record.size_bytes() + bytes;
        self.ready.push(finished);
        next
    }

    /// True if a batch of at most `results_max` would be full.
    pub(crate) fn is_full(&self, results_max: usize) -> bool {
        self.ready.count() >= results_max || self.ready.bytes() >= self.limits.batch_bytes_max
    }

    /// Takes what goes into the next transaction; none while one runs or a revocation bars it, or when nothing is
    /// ready.
    pub(crate) fn take_batch(&mut self, results_max: usize) -> Option<Batch> {
        if self.running || self.bars > 0 {
            return None;
        }
        let (mut results, mut left, mut bytes) = (Vec::new(), Vec::new(), 0);
        let (mut touched, mut full) = (HashSet::new(), HashSet::new());
        while results.len() < results_max && bytes < self.limits.batch_bytes_max {
            let Some(finished) = self.ready.pop() else { break };
            let partition = self.partitions.get_mut(&finished.epoch);
            let partition = partition.expect("results of an epoch are dropped with it");
            // Later results of this partition must not overtake it: a lane's results are committed in their order.
            if full.contains(&finished.epoch) || !partition.ledger.fits(finished.record.offset) {
                full.insert(finished.epoch);
                left.push(finished);
                continue;
            }
            partition.ledger.finish(finished.record.offset);
            touched.insert(finished.epoch);
            bytes += finished.produced_bytes();
            results.push(finished);
        }
        left.into_iter().rev().for_each(|finished| self.ready.push_front(finished));
        if results.is_empty() {
            return None;
        }
        self.running = true;
        let position = |epoch| {
            let partition: &Partition = &self.partitions[epoch];
            (partition.place.clone(), partition.ledger.commit_position())
        };
        Some(Batch { results, positions: touched.iter().map(position).collect() })
    }

    /// The transaction has been committed: its slips are done with.
    pub(crate) fn committed(&mut self, batch: &Batch) {
        self.running = false;
        self.ready.committed(&batch.results);
        for finished in &batch.results {
            if let Some(leave) = finished.leave() {
                leave.committed();
            }
            let Some(partition) = self.partitions.get_mut(&finished.epoch) else { continue };
            partition.ledger.settle();
            partition.load.remove(1, finished.held_bytes);
            if let Some(queue) = self.queues.get_mut(&partition.place.topic) {
                queue.remove(1, finished.held_bytes);
            }
        }
    }

    /// The transaction has been aborted: its results are to be produced again, first of all.
    pub(crate) fn aborted(&mut self, batch: Batch) {
        self.running = false;
        for finished in batch.results.into_iter().rev() {
            let Some(partition) = self.partitions.get_mut(&finished.epoch) else { continue };
            partition.ledger.reopen(finished.record.offset);
            self.ready.push_front(finished);
        }
    }

    /// The batch that is out will neither be committed nor aborted here: its epochs end with this board.
    pub(crate) fn abandon(&mut self) {
        self.running = false;
    }

    /// True while a batch is out.
    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Forbids new batches until [`Board::unbar`].
    pub(crate) fn bar(&mut self) {
        self.bars += 1;
    }

    /// Takes one [`Board::bar`] back.
    pub(crate) fn unbar(&mut self) {
        self.bars -= 1;
    }

    /// These partitions are about to go: nothing more of them is begun.
    pub(crate) fn close(&mut self, places: &[TopicPartition]) {
        for place in places {
            if let Some(partition) = self.partition_mut(place) {
                partition.closing = true;
                partition.tenures.values().for_each(|tenure| tenure.forbid());
            }
        }
    }

    /// Asks the steps of these partitions that are under way to leave them.
    pub(crate) fn ask_to_leave(&mut self, places: &[TopicPartition]) {
        for place in places {
            if let Some(partition) = self.partition_mut(place) {
                partition.leave.cancel();
            }
        }
    }

    fn partition_mut(&mut self, place: &TopicPartition) -> Option<&mut Partition> {
        let epoch = self.epoch(&place.topic, place.partition)?;
        self.partitions.get_mut(&epoch)
    }

    /// True once nothing of these partitions is under way or waits for a transaction.
    pub(crate) fn is_quiet(&self, places: &[TopicPartition]) -> bool {
        places.iter().all(|place| {
            let Some(epoch) = self.epoch(&place.topic, place.partition) else { return true };
            let quiet = self.partitions.get(&epoch).is_none_or(Partition::is_quiet);
            quiet && !self.running && !self.ready.has(epoch)
        })
    }

    /// True while a revocation may wait for results.
    pub(crate) fn is_closing(&self) -> bool {
        self.partitions.values().any(|partition| partition.closing)
    }

    /// Ends a partition's epoch: its work is cancelled, its results are dropped.
    pub(crate) fn revoke(&mut self, place: &TopicPartition) {
        assert!(!self.running && self.bars > 0, "a revocation bars transactions and waits for the running one");
        let epoch = self.epochs.get_mut(&place.topic).and_then(|topic| topic.remove(&place.partition));
        let Some(epoch) = epoch else { return };
        let Some(partition) = self.partitions.remove(&epoch) else { return };
        partition.revoked.cancel();
        self.ready.drop_epoch(epoch);
        if let Some(queue) = self.queues.get_mut(&place.topic) {
            queue.remove(partition.load.slips, partition.load.bytes);
        }
    }

    /// Takes nothing more and starts nothing more; what runs may finish.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// True once nothing runs and everything finished is committed.
    pub(crate) fn is_idle(&self) -> bool {
        !self.running && self.ready.is_empty() && self.steps_running() == 0
    }

    /// The count of steps that run.
    pub(crate) fn steps_running(&self) -> usize {
        self.partitions.values().map(|partition| partition.lanes.running()).sum()
    }

    /// The count of slips that are taken and not committed.
    pub(crate) fn slips_in_flight(&self) -> usize {
        self.queues.values().map(|queue| queue.slips).sum()
    }

    /// The time at which the oldest slip in flight was written, in milliseconds since the Unix epoch.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        self.partitions.values().filter_map(|partition| partition.ledger.oldest_ms()).min()
    }

    /// The partitions assigned now.
    pub(crate) fn assigned(&self) -> Vec<TopicPartition> {
        self.partitions.values().map(|partition| partition.place.clone()).collect()
    }

    /// True if any partition is paused.
    pub(crate) fn has_paused(&self) -> bool {
        self.partitions.values().any(|partition| partition.paused)
    }

    /// Partitions to pause and to resume, with hysteresis; they count as paused and resumed once returned.
    pub(crate) fn flow_control(&mut self) -> FlowControl {
        let mut control = FlowControl::default();
        for queue in self.queues.values_mut() {
            queue.judge(&self.limits);
        }
        for partition in self.partitions.values_mut() {
            let span = partition.ledger.span();
            partition.span_full = if partition.span_full { span >= SPAN_RESUME } else { span >= SPAN_PAUSE };
            let queue_full = self.queues.get(&partition.place.topic).is_some_and(|queue| queue.full);
            let paused = partition.span_full || queue_full || self.draining;
            if paused != partition.paused {
                partition.paused = paused;
                let list = if paused { &mut control.pause } else { &mut control.resume };
                list.push(partition.place.clone());
            }
        }
        control
    }
}
