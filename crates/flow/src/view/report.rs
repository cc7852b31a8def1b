//! Reports of steps under way: outside of the events, lossy, and only for who looks at the job.

use crate::event::{JobEvent, JobStatus};
use crate::slip::Phase;

use super::{JobView, StepStatus, StepView};

/// The latest that is known of a step on its way forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The step.
    pub step: String,
    /// Its visit.
    pub visit: u32,
    /// The token's branch.
    pub branch: String,
    /// The begin of the latest attempt, where that has lasted for long enough to be told of.
    pub begun: Option<Begun>,
    /// The part of the step that is done, 0 to 100.
    pub percent: Option<u8>,
    /// The state, for a person.
    pub message: Option<String>,
}

/// The begin of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Begun {
    /// The token's hop.
    pub hop: u32,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Its time, in milliseconds since the Unix epoch, by the worker's clock.
    pub at_ms: i64,
}

/// What a step tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The part of it that is done, 0 to 100.
    pub percent: Option<u8>,
    /// The state, for a person.
    pub message: Option<String>,
}

impl Report {
    /// Takes in a later report of the same step. One of an earlier visit changes nothing, and within a visit the percent
    /// never falls. True if anything changed.
    pub fn merge(&mut self, later: Self) -> bool {
        if later.visit < self.visit {
            return false;
        }
        if later.visit > self.visit {
            *self = later;
            return true;
        }
        let before = self.clone();
        self.begun = self.begun.max(later.begun);
        self.percent = self.percent.max(later.percent);
        self.message = later.message.or(self.message.take());
        *self != before
    }
}

impl JobView {
    /// Shows a report at its step. False, and no change, for a report of a step that is over, as far as the events tell,
    /// or of an earlier visit. `events`: all those of the view.
    ///
    /// The job's own status is left as the events have it: whoever asks another process, which does not know of the
    /// report, never sees it go back.
    pub fn add_report<'e>(&mut self, events: impl Iterator<Item = &'e JobEvent> + Clone, report: &Report) -> bool {
        if !matches!(self.status, JobStatus::Accepted | JobStatus::Running | JobStatus::Waiting) {
            return false;
        }
        let of_step = |event: &&JobEvent| event.step.as_ref() == Some(&report.step) && event.phase == Phase::Forward;
        let visit = events.clone().filter(of_step).map(|event| event.visit).max().unwrap_or(0);
        let index = self.steps.iter().position(|step| step.id == report.step);
        let is_over = index.and_then(|index| self.steps.get(index)).is_some_and(StepView::is_over);
        if report.visit < visit || (report.visit == visit && is_over) {
            return false;
        }
        let hop = events.filter(|event| event.branch == report.branch).map(|event| event.hop).max().unwrap_or(0);
        let index = index.unwrap_or_else(|| {
            self.steps.push(StepView::pending(&report.step));
            self.steps.len() - 1
        });
        let Some(step) = self.steps.get_mut(index) else { return false };
        // An event with the hop of the attempt tells what became of it.
        if let Some(begun) = report.begun.filter(|begun| begun.hop > hop) {
            step.begin(begun);
        }
        let (percent, message) = (report.percent, report.message.clone());
        step.reported = (percent.is_some() || message.is_some()).then_some(Reported { percent, message });
        true
    }

    /// The message of the step that is under way, if it tells one.
    pub fn message(&self) -> Option<&str> {
        self.steps.iter().rev().find_map(|step| step.reported.as_ref()?.message.as_deref())
    }
}

impl StepView {
    fn is_over(&self) -> bool {
        match self.status {
            StepStatus::Succeeded | StepStatus::Skipped | StepStatus::Failed | StepStatus::Compensated => true,
            StepStatus::Pending | StepStatus::Running | StepStatus::Retrying | StepStatus::Waiting => false,
        }
    }

    fn begin(&mut self, Begun { attempt, at_ms, .. }: Begun) {
        self.status = StepStatus::Running;
        self.attempts = self.attempts.max(attempt);
        self.started_at_ms.get_or_insert(at_ms);
        self.next_attempt_at_ms = None;
        self.waiting_for = None;
    }

    pub(super) fn reported_percent(&self) -> u64 {
        self.reported.as_ref().and_then(|reported| reported.percent).map_or(0, |percent| u64::from(percent.min(100)))
    }
}

#[cfg(test)]
mod tests;
