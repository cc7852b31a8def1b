//! Values that pass between the board, the tasks that run steps, and the committer.

use std::sync::Arc;
use std::time::Instant;

use bus::{Inbound, Record, TopicPartition};
use events::lane::{HeldLane, Places};
use flow::id::TokenId;
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
    /// When it was taken.
    pub(crate) entered: Instant,
    /// Cancelled when the partition is revoked: the result would be dropped.
    pub(crate) revoked: CancellationToken,
    /// True if the slip was in the partition when it was assigned: an earlier owner may have begun it.
    pub(crate) redelivered: bool,
    /// Cancelled when the partition is about to go: a step that is under way leaves it.
    pub(crate) leave: CancellationToken,
    pub(crate) tenure: Arc<Tenure>,
    /// Known once its turn has come in its lane.
    pub(crate) errand: Errand,
}

impl Work {
    /// The lane of this slip, once its token rests and holds it.
    pub(crate) fn lane_held_by(&self, lane: String, holder: &TokenId) -> HeldLane {
        let places = match &self.errand {
            Errand::Run(Some(lane)) => lane.places.clone(),
            Errand::Run(None) | Errand::Rest(..) | Errand::Free(_) => Places::default(),
        };
        let (topic, partition) = (self.record.topic.clone(), self.record.partition);
        HeldLane { topic, partition, lane, holder: holder.to_string(), places }
    }
}

/// The result of a slip, to be committed together with its offset.
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
    /// The change of the slip's lane.
    pub(crate) lane_after: LaneAfter,
    /// The bytes that it adds to the load, from its delivery to the board until its commit.
    pub(crate) held_bytes: usize,
}

/// The change that a result makes to the lane of its slip.
#[derive(Debug)]
pub(crate) enum LaneAfter {
    /// No change: the next slip of the lane may run.
    Same,
    /// The token rests, and holds the lane from now on. Its step may be under way, apart from the partition.
    Held(HeldLane, Option<Leave>),
    /// The slip that was to rest in this place of the lane did not rest.
    TakenBack(u32),
}

impl Finished {
    pub(crate) fn new(epoch: Epoch, lane: Lane, record: Arc<Inbound>, produced: Vec<Record>, dead: bool) -> Self {
        Self { epoch, lane, record, produced, dead, lane_after: LaneAfter::Same, held_bytes: 0 }
    }

    /// The same with what it changes about its lane.
    pub(crate) fn with_lane(self, lane_after: LaneAfter) -> Self {
        Self { lane_after, ..self }
    }

    /// Present if the commit of this result makes the slip's step leave its partition.
    pub(crate) const fn leave(&self) -> Option<&Leave> {
        match &self.lane_after {
            LaneAfter::Held(_, leave) => leave.as_ref(),
            LaneAfter::Same | LaneAfter::TakenBack(_) => None,
        }
    }

    pub(crate) fn produces_to(&self, topic: &str) -> bool {
        self.produced.iter().any(|record| record.topic == topic)
    }

    pub(crate) fn produced_bytes(&self) -> usize {
        self.produced.iter().map(Record::size_bytes).sum()
    }
}

/// The consequences of a delivery.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// The slip to run now, if its lane is free.
    pub(crate) start: Option<Work>,
    /// True if so much is in flight that partitions may have to be paused.
    pub(crate) flow_control_due: bool,
}

/// The committer's next task.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Commit this.
    Commit(Batch),
    /// Look whether this topic takes records again.
    Look(String),
}

/// The content of one transaction.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) results: Vec<Finished>,
    pub(crate) positions: Vec<(TopicPartition, Position)>,
}

impl Batch {
    /// True if it only proves, by the positions as they are, that the partitions are ours.
    pub(crate) fn is_proof(&self) -> bool {
        self.results.is_empty()
    }
}

/// Partitions to pause and to resume.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowControl {
    pub(crate) pause: Vec<TopicPartition>,
    pub(crate) resume: Vec<TopicPartition>,
}
