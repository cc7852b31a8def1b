//! What the walk keeps of what it sees: findings, and the values that conditions had.

use std::collections::BTreeSet;

use flow::slip::Phase;

use super::{Found, Walk};
use crate::apply::{Moved, Unevaluable};
use crate::finding::Kind;
use crate::flow_file::Part;
use crate::state::{Rest, State};
use crate::way::Happening;

impl Walk<'_> {
    pub(super) fn judge_end(&mut self, id: u32, state: &State, last: &Happening) {
        let steps: BTreeSet<&String> = state.stands.iter().map(|(step, _)| step).collect();
        for step in steps {
            self.note(Kind::EffectStands, Part::Step(step.clone()), id, Some(last.clone()), String::new());
        }
    }

    pub(super) fn note_branches(&mut self, moved: &Moved) {
        for step in &moved.skipped {
            self.branches.insert((step.clone(), false));
        }
        let slip = &moved.state.slip;
        if moved.state.rest == Rest::Ready && slip.phase == Phase::Forward {
            self.branches.insert((slip.step.clone(), true));
        }
    }

    pub(super) fn note_unevaluable(&mut self, unevaluable: Unevaluable, id: u32, last: Option<Happening>) {
        let (kind, part) = match unevaluable.step {
            Some(step) => (Kind::WhenFails, Part::When(step)),
            None => (Kind::ResultFails, Part::Result),
        };
        self.note(kind, part, id, last, unevaluable.message);
    }

    pub(super) fn note(&mut self, kind: Kind, part: Part, node: u32, last: Option<Happening>, detail: String) {
        let length = self.nodes[node as usize].length + last.as_ref().map_or(0, Happening::weight);
        let known = self.found.get(&(kind, part.clone()));
        if known.is_none_or(|known| length < known.length) {
            self.found.insert((kind, part.clone()), Found { kind, part, node, last, detail, length });
        }
    }
}
