//! How often the simulation did the things that it is there for.

use std::iter::Sum;

/// How often things were done.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) kills: u64,
    pub(crate) kills_after_commit: u64,
    pub(crate) reassignments: u64,
    pub(crate) zombie_results_refused: u64,
    pub(crate) redeliveries: u64,
    pub(crate) holds_released: u64,
    pub(crate) operator_acts: u64,
    pub(crate) cancels: u64,
    pub(crate) too_large: u64,
    pub(crate) undone: u64,
    pub(crate) detached: u64,
    pub(crate) turns: u64,
    pub(crate) calls_lost: u64,
    pub(crate) outcomes_refused: u64,
    pub(crate) missing: u64,
    pub(crate) undone_again: u64,
    pub(crate) came_late: u64,
    pub(crate) broken_off: u64,
    pub(crate) released_by_cancel: u64,
    pub(crate) cancelled_too_late: u64,
    pub(crate) signals: u64,
    pub(crate) signalled: u64,
    pub(crate) held_back: u64,
    pub(crate) probes: u64,
    pub(crate) callbacks: u64,
    pub(crate) callbacks_twice: u64,
    pub(crate) called_back: u64,
    pub(crate) looks: u64,
}

impl Tally {
    pub(crate) fn named(self) -> [(&'static str, u64); 28] {
        [
            ("kill", self.kills),
            ("kill after commit", self.kills_after_commit),
            ("reassign", self.reassignments),
            ("refuse a zombie", self.zombie_results_refused),
            ("deliver again", self.redeliveries),
            ("release", self.holds_released),
            ("act as operator", self.operator_acts),
            ("cancel", self.cancels),
            ("too large", self.too_large),
            ("undo", self.undone),
            ("leave a partition", self.detached),
            ("wait for a turn", self.turns),
            ("lose a long call", self.calls_lost),
            ("refuse an outcome", self.outcomes_refused),
            ("miss something", self.missing),
            ("undo once more", self.undone_again),
            ("come late", self.came_late),
            ("break a call off", self.broken_off),
            ("release by a cancel", self.released_by_cancel),
            ("cancel too late", self.cancelled_too_late),
            ("send a signal", self.signals),
            ("meet a signal", self.signalled),
            ("hold a call back", self.held_back),
            ("send a probe", self.probes),
            ("call back", self.callbacks),
            ("call back twice", self.callbacks_twice),
            ("meet a callback", self.called_back),
            ("poll", self.looks),
        ]
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |a, b| Self {
            kills: a.kills + b.kills,
            kills_after_commit: a.kills_after_commit + b.kills_after_commit,
            reassignments: a.reassignments + b.reassignments,
            zombie_results_refused: a.zombie_results_refused + b.zombie_results_refused,
            redeliveries: a.redeliveries + b.redeliveries,
            holds_released: a.holds_released + b.holds_released,
            operator_acts: a.operator_acts + b.operator_acts,
            cancels: a.cancels + b.cancels,
            too_large: a.too_large + b.too_large,
            undone: a.undone + b.undone,
            detached: a.detached + b.detached,
            turns: a.turns + b.turns,
            calls_lost: a.calls_lost + b.calls_lost,
            outcomes_refused: a.outcomes_refused + b.outcomes_refused,
            missing: a.missing + b.missing,
            undone_again: a.undone_again + b.undone_again,
            came_late: a.came_late + b.came_late,
            broken_off: a.broken_off + b.broken_off,
            released_by_cancel: a.released_by_cancel + b.released_by_cancel,
            cancelled_too_late: a.cancelled_too_late + b.cancelled_too_late,
            signals: a.signals + b.signals,
            signalled: a.signalled + b.signalled,
            held_back: a.held_back + b.held_back,
            probes: a.probes + b.probes,
            callbacks: a.callbacks + b.callbacks,
            callbacks_twice: a.callbacks_twice + b.callbacks_twice,
            called_back: a.called_back + b.called_back,
            looks: a.looks + b.looks,
        })
    }
}
