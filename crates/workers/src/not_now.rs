//! Attempts that are not made.

use flow::decide::{Busy, Decision, Missing};

/// The reason for which no attempt was made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NotNow {
    /// Something that it needs is not here.
    Missing(Missing),
    /// Its downstream is not to be called.
    Busy(Busy),
    /// Nobody knows whether the mark of its call was committed, or whether the hold is still this worker's. The slip
    /// goes on as it came, where it is.
    Doubtful(Box<Decision>),
}
