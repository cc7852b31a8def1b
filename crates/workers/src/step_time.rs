//! The time of a step that has a deadline of its own: a duration that is counted down here, and with each rest.

use flow::slip::Slip;
use tokio::time::Instant;

use crate::task::Task;

/// What was left when the slip came to its step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepTime {
    left_ms: Option<i64>,
    since: Instant,
}

impl StepTime {
    pub(crate) fn of(slip: &Slip, task: &Task) -> Self {
        Self { left_ms: slip.step_left_ms, since: task.since }
    }

    /// Notes in the slip what is left now.
    pub(crate) fn note(self, slip: &mut Slip) {
        let spent_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        slip.step_left_ms = self.left_ms.map(|left_ms| left_ms.saturating_sub_unsigned(spent_ms).max(0));
    }
}
