//! A job as far as its future depends on it, together with what stands at the services.

use std::collections::BTreeSet;

use flow::decide::code;
use flow::event::JobStatus;
use flow::slip::{Phase, Slip};
use serde_json::Value;

/// A state of a job.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) slip: Slip,
    pub(crate) rest: Rest,
    /// True once the job's deadline has passed.
    pub(crate) is_late: bool,
    /// Effects that were made and not undone, by step and visit.
    pub(crate) stands: BTreeSet<(String, u32)>,
    /// True if the present step was done by an attempt since it was come to, or since an operator sent it on.
    pub(crate) made: bool,
    /// The number of the start that it came from: an input, and conditions that are taken to hold.
    pub(crate) start: usize,
    /// By completed step: the number of its output.
    pub(crate) outputs: Vec<(String, usize)>,
}

/// The place of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It has come to a worker.
    Ready,
    /// It waits for an operator.
    Parked,
    /// It waits for a signal. `ends`: a time ends the wait.
    Waiting { ends: bool },
    /// It rests, and nothing releases it.
    ForEver,
    /// There is none any more.
    Ended(JobStatus),
}

impl State {
    /// Equal keys have equal futures. `class` says as much of the start as the future can read.
    pub(crate) fn key(&self, class: u32) -> String {
        let slip = &self.slip;
        let cancelled = slip.failure.as_ref().is_some_and(|failure| failure.code == code::CANCELLED);
        let mut key = format!(
            "{class} {:?} {} {:?} {} {} {} {} {} {} {:?} {:?} {cancelled}",
            self.rest,
            slip.step,
            slip.phase,
            slip.visit.min(2),
            slip.attempt,
            slip.attempt_uncertain,
            self.is_late,
            self.made,
            slip.deadline_ms.is_some(),
            slip.released.as_ref().map(|released| released.by),
            slip.step_left_ms,
        );
        key.extend(slip.step_state.clone().map(|kept| format!(" {}", with_few_rounds(kept))));
        // Of the visits after the first, one stands for all.
        let mut parts: Vec<String> = Vec::new();
        for done in &slip.done {
            // On the way back only earlier steps and the step itself are read.
            if done.undone && slip.phase == Phase::Undo {
                continue;
            }
            let output = done.output.is_some().then(|| self.output_of(&done.step)).flatten();
            parts.push(format!(" {}.{}.{output:?}", done.step, done.visit.min(2)));
        }
        parts.extend(self.stands.iter().map(|(step, visit)| format!(" +{step}.{}", visit.min(&2))));
        for (place, part) in parts.iter().enumerate() {
            if !parts.iter().take(place).any(|earlier| earlier == part) {
                key.push_str(part);
            }
        }
        key
    }

    /// The number of the output that a step was done with.
    pub(crate) fn output_of(&self, step: &str) -> Option<usize> {
        self.outputs.iter().rev().find(|(done, _)| done == step).map(|(_, output)| *output)
    }

    /// True if the present step has had an effect that still stands.
    pub(crate) fn stands_here(&self) -> bool {
        self.stands.iter().any(|(step, _)| *step == self.slip.step)
    }
}

/// Of the rounds of a callback after the first, one stands for all.
fn with_few_rounds(mut kept: Value) -> Value {
    if let Some(round) = kept.pointer_mut("/completion/round") {
        *round = round.as_u64().unwrap_or_default().min(2).into();
    }
    kept
}
