//! The end of a slip's way through a worker.

use bus::Record;
use events::lane::HeldLane;

/// The records that follow from a slip, and their effect on its lane.
pub(crate) struct Ended {
    pub(crate) records: Vec<Record>,
    /// True if the records are a dead letter.
    pub(crate) dead: bool,
    /// The lane that the token holds while it rests.
    pub(crate) holds: Option<HeldLane>,
}

impl From<Vec<Record>> for Ended {
    fn from(records: Vec<Record>) -> Self {
        Self { records, dead: false, holds: None }
    }
}
