//! Parked jobs: an operator sends them on, or has found out how the step has ended, and says so.

use flow::decide::{Prepared, Said, Verdict, awaits_verdict, can_be_ruled, prepare, ruled};

use super::Walk;
use super::completions::{outputs, stands};
use crate::finding::Kind;
use crate::flow_file::Part;
use crate::happening::{Change, What, has_effect};
use crate::state::{Rest, State};

impl Walk<'_> {
    /// A verdict is taken to be true.
    pub(super) fn expand_parked(&mut self, id: u32, state: &State) {
        let resumed = State { rest: Rest::Ready, made: false, ..state.clone() };
        self.turn(id, state, What::Resumed, resumed);
        let undone = Said::Undone(String::new());
        if can_be_ruled(&state.slip, &undone) {
            self.rule(id, state, undone, What::RuledUndone, Change::Undone);
        }
        let step = self.world.definition.step(&state.slip.step);
        if !awaits_verdict(&state.slip) {
            return;
        }
        if stands(state) || !step.is_some_and(has_effect) {
            for (output, value) in outputs(self.world, state).iter().enumerate() {
                self.rule(id, state, Said::Succeeded(value.clone()), What::RuledDone { output }, Change::None);
            }
        }
        if !stands(state) {
            self.rule(id, state, Said::Failed, What::RuledNotDone, Change::None);
        }
    }

    fn rule(&mut self, id: u32, state: &State, said: Said, what: What, change: Change) {
        let world = self.world;
        let verdict = Verdict { said, by: "somebody".to_owned() };
        let sent_on = State { slip: ruled(state.slip.clone(), &verdict), rest: Rest::Ready, ..state.clone() };
        match prepare(&world.definition, &sent_on.slip, &world.env, world.now_ms(sent_on.is_late)) {
            Prepared::Outcome(outcome) => self.decide(id, &sent_on, outcome, vec![(what, change)], false),
            // No call is to follow a verdict.
            Prepared::Missing(_) | Prepared::Http(_) | Prepared::Native(_) | Prepared::Simulated(_) => {
                self.note(Kind::RunsTwice, Part::Step(state.slip.step.clone()), id, None, String::new());
                self.turn(id, state, what, sent_on);
            }
        }
    }
}
