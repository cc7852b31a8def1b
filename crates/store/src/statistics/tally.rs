//! What a batch of events adds to the statistics. Pure.

use std::collections::{BTreeMap, HashMap};

use flow::event::{EventKind, JobEvent};
use flow::id::JobId;
use flow::slip::{HoldReason, Phase};

use super::Histogram;
use crate::observed::ObservedEvent;

const MINUTE_MS: i64 = 60_000;

/// How far the statistics know a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The last event that counts already.
    pub(super) cursor: Option<i64>,
    /// When the job came to its present step, in milliseconds since the Unix epoch.
    pub(crate) step_since_ms: Option<i64>,
    /// When it began, if that was not at its acceptance.
    pub(crate) begun_ms: Option<i64>,
}

/// The place of a sum; `step` is empty for jobs as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place<'a> {
    pub(super) tenant: &'a str,
    pub(super) flow: &'a str,
    pub(super) step: &'a str,
    pub(super) minute_ms: i64,
}

/// How jobs or steps ended, and how long those took that succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs only.
    pub accepted: u64,
    pub succeeded: u64,
    /// Steps only.
    pub skipped: u64,
    pub failed: u64,
    /// Jobs only.
    pub cancelled: u64,
    pub durations: Histogram,
}

impl Counts {
    pub fn merge(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.succeeded += other.succeeded;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.durations.merge(&other.durations);
    }
}

/// The sums of a batch, and how far its jobs are known then. Events count for the minute in which they happened, by the
/// clocks of those that tell of them: none later than `now_ms`, and none that is older than `kept_ms`.
pub(super) fn add_up<'a>(
    events: &'a [ObservedEvent],
    marks: &mut HashMap<JobId, Mark>,
    (now_ms, kept_ms): (i64, i64),
) -> BTreeMap<Place<'a>, Counts> {
    let mut sums = BTreeMap::new();
    for ObservedEvent { cursor, event, .. } in events {
        let mark = marks.entry(event.job).or_default();
        if mark.cursor.is_some_and(|known| known >= *cursor) {
            continue;
        }
        mark.cursor = Some(*cursor);
        let before = *mark;
        mark.move_on(event);
        let at_ms = event.at_ms.min(now_ms);
        if at_ms <= now_ms.saturating_sub(kept_ms) {
            continue;
        }
        let of = |step| {
            let minute_ms = at_ms - at_ms.rem_euclid(MINUTE_MS);
            Place { tenant: &event.tenant, flow: &event.flow, step, minute_ms }
        };
        let step = event.step.as_deref().filter(|_| event.phase == Phase::Forward);
        let (place, add): (_, fn(&mut Counts)) = match (event.kind, step) {
            (EventKind::JobAccepted, _) => (of(""), |counts| counts.accepted += 1),
            (EventKind::JobSucceeded, _) => (of(""), |counts| counts.succeeded += 1),
            (EventKind::JobFailed, _) => (of(""), |counts| counts.failed += 1),
            (EventKind::JobCancelled, _) => (of(""), |counts| counts.cancelled += 1),
            (EventKind::StepSucceeded, Some(step)) => (of(step), |counts| counts.succeeded += 1),
            (EventKind::StepSkipped, Some(step)) => (of(step), |counts| counts.skipped += 1),
            (EventKind::StepFailed, Some(step)) => (of(step), |counts| counts.failed += 1),
            (_, _) => continue,
        };
        let counts = sums.entry(place).or_insert_with(Counts::default);
        add(counts);
        let since_ms = match event.kind {
            EventKind::JobSucceeded => before.begun_ms.or(Some(event.accepted_at_ms)),
            EventKind::StepSucceeded => before.step_since_ms,
            _ => None,
        };
        if let Some(since_ms) = since_ms {
            // The times are those of several clocks.
            counts.durations.add(u64::try_from(event.at_ms.saturating_sub(since_ms)).unwrap_or_default());
        }
    }
    sums
}

impl Mark {
    /// A step begins where the one before has ended. The time of a rest before the first one, and that for which a job
    /// was parked, are no step's.
    fn move_on(&mut self, event: &JobEvent) {
        let is_late_start = event.hop == 0 && event.reason == Some(HoldReason::Timer);
        match event.kind {
            EventKind::JobAccepted
            | EventKind::JobResumed
            | EventKind::StepSucceeded
            | EventKind::StepSkipped
            | EventKind::StepFailed => self.step_since_ms = Some(event.at_ms),
            EventKind::StepWaiting if is_late_start => {
                let after_ms = event.next_attempt_after_ms.unwrap_or_default();
                self.begun_ms = Some(event.at_ms.saturating_add_unsigned(after_ms));
                self.step_since_ms = self.begun_ms;
            }
            _ => {}
        }
    }
}
