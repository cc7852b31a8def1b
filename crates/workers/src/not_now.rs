//! Attempts that are not made.

use flow::decide::{Busy, Missing};

/// The reason for which no attempt was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotNow {
    /// Something that it needs is not here.
    Missing(Missing),
    /// Its downstream is not to be called.
    Busy(Busy),
}
