//! Steps whose answer only accepts the work: their callbacks and polls come out well, badly, or never.

use flow::decide::{Effect, Outcome, StepError, code, replied};
use flow::slip::ReleasedBy;
use serde_json::{Value, json};

use super::Walk;
use crate::happening::{Change, What, has_effect, kept_headers};
use crate::state::State;
use crate::world::World;

impl Walk<'_> {
    /// The work was accepted, and its callback comes, or does not.
    pub(super) fn expand_accepted(&mut self, id: u32, state: &State) {
        self.call_back(id, state);
        let ways = self.in_time_or_not(state, |done| What::NotCalledBack { done });
        match state.slip.released.as_ref().map(|released| released.by) {
            Some(by @ ReleasedBy::Time) => self.release_by(id, state, by, None, ways),
            Some(by) => self.release_by(id, state, by, None, vec![(What::DeadlinePasses, Change::None)]),
            None => {}
        }
        self.decide(id, state, Outcome::Cancelled, vec![(What::Cancelled, Change::None)], false);
    }

    /// A callback comes.
    pub(super) fn call_back(&mut self, id: u32, state: &State) {
        let world = self.world;
        let step = world.definition.step(&state.slip.step);
        let Some(step) = step.filter(|step| step.callback().is_some()) else { return };
        let done = if has_effect(step) && !stands(state) { Change::Done } else { Change::None };
        for (output, body) in outputs(world, state).iter().enumerate() {
            let payload = json!({ "outcome": "done", "body": body });
            let ways = vec![(What::Signalled { output }, done)];
            self.release_by(id, state, ReleasedBy::Signal, Some(payload), ways);
        }
        // Nobody calls what was done a failure.
        if stands(state) {
            return;
        }
        for (word, retryable) in [("failed", false), ("retry", true)] {
            let ways = vec![(What::CalledBackFailed { retryable }, Change::None)];
            self.release_by(id, state, ReleasedBy::Signal, Some(json!({ "outcome": word })), ways);
        }
    }

    /// One look of a poll.
    pub(super) fn poll(&mut self, id: u32, state: &State) {
        let world = self.world;
        let Some(step) = world.definition.step(&state.slip.step) else { return };
        let done = if has_effect(step) && !stands(state) { Change::Done } else { Change::None };
        for (output, body) in outputs(world, state).iter().enumerate() {
            let (http, text) = (step.http(), body.to_string());
            let headers = http.map(kept_headers).unwrap_or_default();
            let outcome = Outcome::done(body.clone());
            let outcome = replied(&world.definition, &state.slip, outcome, (200, &headers, text.as_bytes()));
            self.decide(id, state, outcome, vec![(What::Polled { output }, done)], false);
        }
        let not_yet = Outcome::NotYet { retry_after_ms: None };
        self.decide(id, state, not_yet, vec![(What::NotYet, Change::None)], false);
        for code in [code::STEP_FAILED, code::TIMED_OUT] {
            let error = StepError { code: code.to_owned(), message: String::new(), status: None };
            let outcome = Outcome::Failed { error, retryable: false, effect: Effect::Unknown, retry_after_ms: None };
            let ways = match code == code::TIMED_OUT {
                true => self.in_time_or_not(state, |done| What::PolledInVain { done }),
                false => self.in_time_or_not(state, |done| What::PollRefused { done }),
            };
            self.decide(id, state, outcome, ways, false);
        }
    }

    /// The work that was accepted is done meanwhile, or is not.
    fn in_time_or_not(&self, state: &State, what: impl Fn(bool) -> What) -> Vec<(What, Change)> {
        let step = self.world.definition.step(&state.slip.step);
        match stands(state) {
            true => vec![(what(true), Change::None)],
            false if step.is_some_and(has_effect) => vec![(what(true), Change::Done), (what(false), Change::None)],
            false => vec![(what(false), Change::None)],
        }
    }
}

/// True if this visit has had its effect.
pub(super) fn stands(state: &State) -> bool {
    state.stands.iter().any(|(step, visit)| *step == state.slip.step && *visit == state.slip.visit)
}

pub(super) fn outputs<'w>(world: &'w World, state: &State) -> &'w [Value] {
    let outputs = world.index_of(&state.slip.step).and_then(|index| world.domain.outputs.get(index));
    outputs.map(Vec::as_slice).unwrap_or_default()
}
