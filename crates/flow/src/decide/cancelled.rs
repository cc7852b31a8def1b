//! Slips whose call may have been made without an outcome, and those for which none is to be made.

use super::Verdict;
use crate::slip::{Phase, ReleasedBy, Slip};

/// A slip that may have been taken before, by a worker that stopped without a commit: what lay in a partition when
/// it was assigned. Its step may have been run already, so it is undone unless a success, or an answer that the step
/// names in `fail_on`, says otherwise. Of a step that must not be repeated this says nothing: see
/// [`marks_first`](super::marks_first).
pub fn redelivered(slip: Slip) -> Slip {
    let attempt_uncertain = slip.attempt_uncertain || slip.phase == Phase::Forward;
    Slip { attempt_uncertain, ..slip }
}

/// A slip whose call was broken off, since its job is cancelled: the call may have its effect all the same. To be given
/// to [`advance`](super::advance) with [`Outcome::Cancelled`](super::Outcome::Cancelled).
pub fn broken_off(slip: Slip) -> Slip {
    super::doubt::begun(slip)
}

/// True if a cancel changes anything for this slip: a job on its way back is undone already.
pub fn is_cancellable(slip: &Slip) -> bool {
    slip.phase == Phase::Forward
}

/// True if no further attempt is to be made for this slip. `is_wanted`: somebody wants its job cancelled, as far as the
/// caller knows. A slip that a cancel has released says so itself.
///
/// A slip that tells how its step has ended (a callback, a verdict) tells that first: else an output that was accepted
/// would be lost, and what was done be undone without it. The step after that one is not called.
pub fn is_cancelled(slip: &Slip, is_wanted: bool) -> bool {
    let released_by = slip.released.as_ref().map(|released| &released.by);
    let tells = released_by == Some(&ReleasedBy::Signal) || Verdict::of(slip).is_some();
    is_cancellable(slip) && !tells && (is_wanted || released_by == Some(&ReleasedBy::Cancel))
}
