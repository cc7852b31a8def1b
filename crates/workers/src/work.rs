//! What passes between the board, the tasks that run steps, and the committer.

use std::sync::Arc;

use bus::{Inbound, Record, TopicPartition};
use events::lane::HeldLane;
use tokio_util::sync::CancellationToken;

use crate::held::Errand;
use crate::lanes::Lane;
use crate::ledger::Position;
use crate::tenure::{Leave, Tenure};

/// One assignment of one partition; never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Epoch(pub(crate) u64);

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
    /// Cancelled when the partition is about to go: a step that is under way leaves it.
    pub(crate) leave: CancellationToken,
    pub(crate) tenure: Arc<Tenure>,
    /// Known once its turn has come in its lane.
    pub(crate) errand: Errand,
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
    /// What it changes about its lane.
    pub(crate) lane_after: LaneAfter,
    /// What it adds to the load, from the board's taking it until its commit.
    pub(crate) held_bytes: usize,
}

/// What a result changes about the lane of its slip.
#[derive(Debug)]
pub(crate) enum LaneAfter {
    /// Nothing: the next slip of it may run.
    Same,
    /// A long call holds it from now on.
    Held(HeldLane, Leave),
    /// The slip that was to rest in it did not.
    TakenBack,
}

impl Finished {
    pub(crate) fn new(epoch: Epoch, lane: Lane, record: Arc<Inbound>, produced: Vec<Record>, dead: bool) -> Self {
        Self { epoch, lane, record, produced, dead, lane_after: LaneAfter::Same, held_bytes: 0 }
    }

    /// The same with what it changes about its lane.
    pub(crate) fn with_lane(self, lane_after: LaneAfter) -> Self {
        Self { lane_after, ..self }
    }

    /// The slip's step has left its partition, if the transaction that commits it says so.
    pub(crate) const fn leave(&self) -> Option<&Leave> {
        match &self.lane_after {
            LaneAfter::Held(_, leave) => Some(leave),
            LaneAfter::Same | LaneAfter::TakenBack => None,
        }
    }

    pub(crate) fn produced_bytes(&self) -> usize {
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
