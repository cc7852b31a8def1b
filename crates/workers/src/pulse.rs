//! Notices that this process was stopped: by a signal, a pause of its container or of its virtual machine, or sleep.
//!
//! Its partitions may be another worker's by then, and its consumer hears of that only later.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Seen again and again by whoever is about to act; a long gap between two looks means that nobody could.
#[derive(Debug)]
pub(crate) struct Pulse {
    gap_max: Duration,
    seen: Duration,
}

impl Pulse {
    /// The process counts as stopped if nobody looks for so long.
    pub(crate) fn new(gap_max: Duration) -> Self {
        Self { gap_max, seen: since_boot() }
    }

    /// True if the process was stopped since the last look.
    pub(crate) fn was_stopped(&mut self) -> bool {
        let now = since_boot();
        now.saturating_sub(std::mem::replace(&mut self.seen, now)) > self.gap_max
    }
}

/// Time that goes on while the process is stopped, and while the machine sleeps.
fn since_boot() -> Duration {
    // It fails only for a clock that the system does not have; then nothing counts as a gap.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_noticed_once() {
        let mut pulse = Pulse::new(Duration::from_secs(60));
        assert!(!pulse.was_stopped());
        pulse.seen = since_boot().saturating_sub(Duration::from_secs(61));
        assert!(pulse.seen > Duration::ZERO || since_boot() < Duration::from_secs(61));
        assert_eq!((pulse.was_stopped(), pulse.was_stopped()), (since_boot() > Duration::from_secs(61), false));
    }
}
