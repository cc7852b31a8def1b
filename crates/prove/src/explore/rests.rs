//! Steps that rest: the signal comes in time, or too late, or never.

use flow::decide::{Outcome, Prepared, prepare};
use flow::definition::StepKind;
use flow::slip::{Released, ReleasedBy};
use serde_json::{Value, json};

use super::Walk;
use crate::finding::Kind;
use crate::flow_file::Part;
use crate::happening::{Change, What};
use crate::state::{Rest, State};
use crate::world::World;

impl Walk<'_> {
    /// The signal comes, or does not.
    pub(super) fn expand_waiting(&mut self, id: u32, state: &State, ends: bool) {
        let world = self.world;
        let step = &state.slip.step;
        let Some(wait) = world.definition.step(step).and_then(|step| step.wait()) else {
            return self.expand_accepted(id, state);
        };
        let outputs = world.index_of(step).and_then(|index| world.domain.outputs.get(index));
        for (output, value) in outputs.into_iter().flatten().enumerate() {
            let payload = if wait.approve.is_some() { decision("approved", value) } else { value.clone() };
            self.release(id, state, ReleasedBy::Signal, Some(payload), What::Signalled { output });
        }
        if wait.approve.is_some() {
            let payload = decision("rejected", &Value::Null);
            self.release(id, state, ReleasedBy::Signal, Some(payload), What::Rejected);
        }
        match &state.slip.released {
            Some(released) if ends => {
                let what = if released.by == ReleasedBy::Deadline { What::DeadlinePasses } else { What::WaitedInVain };
                self.release(id, state, released.by, None, what);
            }
            _ => self.note(Kind::NeverEnds, Part::Step(step.clone()), id, None, String::new()),
        }
        self.decide(id, state, Outcome::Cancelled, vec![(What::Cancelled, Change::None)], false);
    }

    fn release(&mut self, id: u32, state: &State, by: ReleasedBy, payload: Option<Value>, what: What) {
        self.release_by(id, state, by, payload, vec![(what, Change::None)]);
    }

    /// The same, in several ways.
    pub(super) fn release_by(
        &mut self,
        id: u32,
        state: &State,
        by: ReleasedBy,
        payload: Option<Value>,
        ways: Vec<(What, Change)>,
    ) {
        let mut released = State { rest: Rest::Ready, ..state.clone() };
        released.slip.released = Some(Released { by, payload });
        let world = self.world;
        let now_ms = world.now_ms(released.is_late);
        if let Prepared::Outcome(outcome) = prepare(&world.definition, &released.slip, &world.env, now_ms) {
            self.decide(id, &released, outcome, ways, false);
        }
    }
}

/// What a person who decides sends, with the fields that the flow reads.
fn decision(word: &str, read: &Value) -> Value {
    let mut payload = if read.is_object() { read.clone() } else { json!({}) };
    payload["decision"] = word.into();
    payload["by"] = "somebody".into();
    payload
}

/// True at a step that sleeps.
pub(super) fn is_sleep(world: &World, state: &State) -> bool {
    let step = world.definition.step(&state.slip.step);
    step.is_some_and(|step| matches!(step.kind, StepKind::Sleep(_)))
}
