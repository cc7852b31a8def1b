//! Slips whose call may have been made without an outcome, and those for which none is to be made.

use crate::slip::{Phase, ReleasedBy, Slip};

/// A slip that may have been taken before, by a worker that stopped without a commit: what lay in a partition when
/// it was assigned. Its step may have been run already, so it is undone unless a success, or an answer that the step
/// names in `fail_on`, says otherwise.
pub fn redelivered(slip: Slip) -> Slip {
    let attempt_uncertain = slip.attempt_uncertain || slip.phase == Phase::Forward;
    Slip { attempt_uncertain, ..slip }
}

/// A slip whose call was broken off, since its job is cancelled: the call may have its effect all the same. To be given
/// to [`advance`](super::advance) with [`Outcome::Cancelled`](super::Outcome::Cancelled).
pub fn broken_off(slip: Slip) -> Slip {
    redelivered(slip)
}

/// True if a cancel changes anything for this slip: a job on its way back is undone already.
pub fn is_cancellable(slip: &Slip) -> bool {
    slip.phase == Phase::Forward
}

/// True if no further attempt is to be made for this slip. `is_wanted`: somebody wants its job cancelled, as far as the
/// caller knows. A slip that a cancel has released says so itself.
pub fn is_cancelled(slip: &Slip, is_wanted: bool) -> bool {
    let says_so = slip.released.as_ref().is_some_and(|released| released.by == ReleasedBy::Cancel);
    is_cancellable(slip) && (is_wanted || says_so)
}
