//! The board: every slip that this process has taken and not yet committed, and which results go into a transaction.
//!
//! Pure: [`crate::desk`] puts it behind a lock. An [`Epoch`] names one assignment of one partition; work and results
//! carry it, so whatever belongs to a revoked assignment finds no home and is dropped.
//!
//! Invariant: a batch has results of current epochs only, and no batch is taken while a partition is being revoked.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bus::{Inbound, Record, TopicPartition};
use tokio_util::sync::CancellationToken;

use crate::lanes::{Lane, Lanes};
use crate::ledger::{Delivery, Ledger, Position, UnknownMetadata, WINDOW_OFFSETS};
use crate::load::{Limits, Load};

#[cfg(test)]
mod tests;

/// No more is taken of a partition whose finished and unfinished offsets span this much of the bitmap.
const SPAN_PAUSE: i64 = WINDOW_OFFSETS / 8 * 7;
/// A partition paused for its span goes on below this.
const SPAN_RESUME: i64 = WINDOW_OFFSETS / 2;

static NEXT_EPOCH: AtomicU64 = AtomicU64::new(1);

/// One assignment of one partition; never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Epoch(u64);

/// A slip to be run.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) epoch: Epoch,
    pub(crate) lane: Lane,
    pub(crate) record: Arc<Inbound>,
    /// Cancelled when the partition is revoked: the result would be dropped.
    pub(crate) revoked: CancellationToken,
    /// It lay in the partition when that was assigned: a worker that is gone may have begun it.
    pub(crate) redelivered: bool,
}

/// What a slip led to: to be committed together with its offset.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) epoch: Epoch,
    pub(crate) lane: Lane,
    /// The record that was consumed.
    pub(crate) record: Arc<Inbound>,
    /// The records to produce, encoded.
    pub(crate) produced: Vec<Record>,
    /// True for a dead letter.
    pub(crate) dead: bool,
    /// What it adds to the load, from the board's taking it until its commit.
    held_bytes: usize,
}

impl Finished {
    pub(crate) fn new(epoch: Epoch, lane: Lane, record: Arc<Inbound>, produced: Vec<Record>, dead: bool) -> Self {
        Self { epoch, lane, record, produced, dead, held_bytes: 0 }
    }

    fn produced_bytes(&self) -> usize {
        self.produced.iter().map(Record::size_bytes).sum()
    }
}

/// What a delivery asks for.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// To be run now: its lane is free.
    pub(crate) start: Option<Work>,
    /// So much is in flight that partitions may have to be paused.
    pub(crate) flow_control_due: bool,
}

/// What goes into one transaction.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) results: Vec<Finished>,
    pub(crate) positions: Vec<(TopicPartition, Position)>,
}

/// Partitions to pause and to resume.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowControl {
    pub(crate) pause: Vec<TopicPartition>,
    pub(crate) resume: Vec<TopicPartition>,
}

#[derive(Debug)]
struct Partition {
    place: TopicPartition,
    ledger: Ledger,
    /// What lies below was there at the assignment.
    end_at_assignment: i64,
    lanes: Lanes<Work>,
    revoked: CancellationToken,
    paused: bool,
    span_full: bool,
    load: Load,
}

/// See the module's own words.
#[derive(Debug)]
pub(crate) struct Board {
    limits: Limits,
    partitions: HashMap<Epoch, Partition>,
    /// By topic and partition: looked up for each record, without an allocation.
    epochs: HashMap<String, HashMap<i32, Epoch>>,
    ready: VecDeque<Finished>,
    ready_bytes: usize,
    queues: HashMap<String, Load>,
    /// True while a batch is out: from `take_batch` to `committed` or `aborted`.
    running: bool,
    /// How many revocations forbid new batches.
    bars: u32,
    draining: bool,
}

impl Board {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            partitions: HashMap::new(),
            epochs: HashMap::new(),
            ready: VecDeque::new(),
            ready_bytes: 0,
            queues: HashMap::new(),
            running: false,
            bars: 0,
            draining: false,
        }
    }

    /// Opens a new epoch for a partition, from what was committed last; `end` is where it ends now.
    pub(crate) fn assign(
        &mut self,
        place: TopicPartition,
        offset: i64,
        metadata: &str,
        end: i64,
    ) -> Result<(), UnknownMetadata> {
        assert!(self.epoch(&place.topic, place.partition).is_none(), "{place} was assigned twice without a revocation");
        let epoch = Epoch(NEXT_EPOCH.fetch_add(1, Ordering::Relaxed));
        let partition = Partition {
            place: place.clone(),
            ledger: Ledger::restore(offset, metadata)?,
            end_at_assignment: end,
            lanes: Lanes::default(),
            revoked: CancellationToken::new(),
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

    /// Takes a record.
    pub(crate) fn deliver(&mut self, record: Inbound) -> Delivered {
        let mut delivered = Delivered::default();
        let epoch = self.epoch(&record.topic, record.partition).filter(|_| !self.draining);
        let Some(epoch) = epoch else { return delivered };
        let Some(partition) = self.partitions.get_mut(&epoch) else { return delivered };
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
        let work = Work { epoch, lane, record: Arc::new(record), revoked: partition.revoked.clone(), redelivered };
        delivered.start = partition.lanes.enter(lane, work);
        delivered
    }

    /// Takes a result, unless its epoch is over; hands out what may run next in its lane.
    pub(crate) fn complete(&mut self, mut finished: Finished) -> Option<Work> {
        let partition = self.partitions.get_mut(&finished.epoch)?;
        let mut next = partition.lanes.leave(finished.lane);
        // While draining, what waits in a lane is left to the partition's next owner.
        while self.draining && next.is_some() {
            next = partition.lanes.leave(finished.lane);
        }
        let bytes = finished.produced_bytes();
        partition.load.add(0, bytes);
        if let Some(queue) = self.queues.get_mut(&partition.place.topic) {
            queue.add(0, bytes);
        }
        self.ready_bytes += bytes;
        finished.held_bytes = finished.record.size_bytes() + bytes;
        self.ready.push_back(finished);
        next
    }

    /// How many results wait for a transaction.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// True if a batch of at most `results_max` would be full.
    pub(crate) fn is_full(&self, results_max: usize) -> bool {
        self.ready.len() >= results_max || self.ready_bytes >= self.limits.batch_bytes_max
    }

    /// Takes what goes into the next transaction; none while one runs or a revocation bars it, or when nothing is
    /// ready.
    pub(crate) fn take_batch(&mut self, results_max: usize) -> Option<Batch> {
        if self.running || self.bars > 0 {
            return None;
        }
        let (mut results, mut left, mut bytes) = (Vec::new(), VecDeque::new(), 0);
        let mut touched = HashSet::new();
        while results.len() < results_max && bytes < self.limits.batch_bytes_max {
            let Some(finished) = self.ready.pop_front() else { break };
            let partition = self.partitions.get_mut(&finished.epoch);
            let partition = partition.expect("results of an epoch are dropped with it");
            if !partition.ledger.fits(finished.record.offset) {
                left.push_back(finished);
                continue;
            }
            partition.ledger.finish(finished.record.offset);
            touched.insert(finished.epoch);
            bytes += finished.produced_bytes();
            results.push(finished);
        }
        left.append(&mut self.ready);
        self.ready = left;
        if results.is_empty() {
            return None;
        }
        self.ready_bytes -= bytes;
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
        for finished in &batch.results {
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
            self.ready_bytes += finished.produced_bytes();
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

    /// Ends a partition's epoch: its work is cancelled, its results are dropped.
    pub(crate) fn revoke(&mut self, place: &TopicPartition) {
        assert!(!self.running && self.bars > 0, "a revocation bars transactions and waits for the running one");
        let epoch = self.epochs.get_mut(&place.topic).and_then(|topic| topic.remove(&place.partition));
        let Some(epoch) = epoch else { return };
        let Some(partition) = self.partitions.remove(&epoch) else { return };
        partition.revoked.cancel();
        self.ready.retain(|finished| finished.epoch != epoch);
        self.ready_bytes = self.ready.iter().map(Finished::produced_bytes).sum();
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

    /// How many steps run now.
    pub(crate) fn steps_running(&self) -> usize {
        self.partitions.values().map(|partition| partition.lanes.running()).sum()
    }

    /// How many slips are taken and not committed.
    pub(crate) fn slips_in_flight(&self) -> usize {
        self.queues.values().map(|queue| queue.slips).sum()
    }

    /// When the oldest slip in flight was written, milliseconds since the Unix epoch.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        self.partitions.values().filter_map(|partition| partition.ledger.oldest_ms()).min()
    }

    /// The partitions assigned now.
    pub(crate) fn assigned(&self) -> Vec<TopicPartition> {
        self.partitions.values().map(|partition| partition.place.clone()).collect()
    }

    /// Whether any partition is paused.
    pub(crate) fn has_paused(&self) -> bool {
        self.partitions.values().any(|partition| partition.paused)
    }

    /// What to pause and what to resume, with hysteresis; counts as done once returned.
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
