//! The way to a state, as the walk keeps it.

use flow::event::JobStatus;
use flow::slip::Phase;

use crate::happening::What;
use crate::state::{Rest, State};

/// A rare happening is as long as so many others.
const RARE: usize = 3;

/// One happening in a story.
#[derive(Debug, Clone)]
pub(crate) struct Happening {
    /// The step at which it happened.
    pub(crate) step: String,
    pub(crate) phase: Phase,
    pub(crate) what: What,
    /// True if the job's deadline passed meanwhile.
    pub(crate) is_late: bool,
    /// Steps that were passed over then.
    pub(crate) skipped: Vec<String>,
    pub(crate) then: Then,
}

impl Happening {
    /// Its part in the length of a story. What is rare counts more, so that stories are told with everyday failures.
    pub(crate) const fn weight(&self) -> usize {
        let rare = matches!(
            self.what,
            What::OutputLost
                | What::Redirected { .. }
                | What::WorkerLost { .. }
                | What::Cancelled
                | What::DeadlinePasses
                | What::StepDeadlinePasses
                | What::CannotTell
                | What::SaidNotDone { late: true }
                | What::Resumed
                | What::RuledDone { .. }
                | What::RuledNotDone
                | What::RuledUndone
        );
        if rare || self.is_late { RARE } else { 1 }
    }
}

/// The turn that a job takes after a happening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    GoesOn,
    TurnsBack,
    Parks,
    Ends(JobStatus),
}

/// A state that was come to, and from where.
pub(crate) struct Node {
    pub(crate) parent: Option<u32>,
    /// None for a start.
    pub(crate) happening: Option<Happening>,
    pub(crate) start: usize,
    /// Steps that a start passes over.
    pub(crate) skipped: Vec<String>,
    pub(crate) rest: Rest,
    pub(crate) step: String,
    /// The length of the shortest story that leads to it.
    pub(crate) length: usize,
    pub(crate) is_visited: bool,
}

/// The turn between two states.
pub(crate) fn then(before: &State, after: &State) -> Then {
    match after.rest {
        Rest::Ended(status) => Then::Ends(status),
        Rest::Parked => Then::Parks,
        Rest::Ready | Rest::Waiting { .. } | Rest::ForEver if before.slip.phase != after.slip.phase => Then::TurnsBack,
        Rest::Ready | Rest::Waiting { .. } | Rest::ForEver => Then::GoesOn,
    }
}
