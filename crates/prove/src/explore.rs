//! The walk through every state of a job, the ones with the shortest stories first.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use flow::decide::{Outcome, Prepared, Rest as Rested, advance, asks_first, code, is_polling, lost, prepare};
use flow::event::JobStatus;
use flow::slip::Phase;

use crate::apply::{Moved, moved};
use crate::finding::Kind;
use crate::flow_file::Part;
use crate::happening::{Change, Possible, What, answers, has_effect, verdicts};
use crate::probe::missing_path;
use crate::state::{Rest, State};
use crate::way::{Happening, Node, Then, then};
use crate::world::World;

mod completions;
mod notes;
mod parked;
mod reach;
mod rests;

use reach::leading_to;
use rests::is_sleep;

/// States between two reports of progress.
const REPORT_EVERY: usize = 1_000;

/// A finding, by the state before it and the happening that brings it about.
pub(crate) struct Found {
    pub(crate) kind: Kind,
    pub(crate) part: Part,
    pub(crate) node: u32,
    pub(crate) last: Option<Happening>,
    /// The message of the expression that could not be evaluated.
    pub(crate) detail: String,
    /// The length of its story.
    length: usize,
}

/// All states of a flow.
pub(crate) struct Walk<'w> {
    world: &'w World,
    pub(crate) nodes: Vec<Node>,
    known: HashMap<String, u32>,
    /// States to be visited, by the length of the stories that lead to them.
    open: Vec<VecDeque<(u32, State)>>,
    /// By state: those that lead to it.
    sources: Vec<Vec<u32>>,
    found: BTreeMap<(Kind, Part), Found>,
    /// Steps with a condition, and the values that it had.
    pub(crate) branches: BTreeSet<(String, bool)>,
    /// False if there are more states than were to be visited.
    pub(crate) is_complete: bool,
}

impl<'w> Walk<'w> {
    /// Visits every state, `states_max` at most.
    pub(crate) fn all(world: &'w World, states_max: usize, progress: &mut dyn FnMut(usize)) -> Self {
        let mut walk = Self {
            world,
            nodes: Vec::new(),
            known: HashMap::new(),
            open: Vec::new(),
            sources: Vec::new(),
            found: BTreeMap::new(),
            branches: BTreeSet::new(),
            is_complete: true,
        };
        for number in 0..world.starts.len() {
            if let Some((before, moved)) = world.begin(number) {
                walk.begin(&before, moved);
            }
        }
        let mut length = 0;
        while length < walk.open.len() {
            let Some((id, state)) = walk.open[length].pop_front() else {
                length += 1;
                continue;
            };
            // A shorter story has led there meanwhile.
            if std::mem::replace(&mut walk.nodes[id as usize].is_visited, true) {
                continue;
            }
            if walk.nodes.len() > states_max {
                walk.is_complete = false;
                break;
            }
            if (id as usize).is_multiple_of(REPORT_EVERY) {
                progress(walk.nodes.len());
            }
            walk.expand(id, &state);
        }
        if walk.is_complete {
            walk.find_what_never_ends();
        }
        walk
    }

    /// What was found, the kinds in order.
    pub(crate) fn found(&self) -> impl Iterator<Item = &Found> {
        self.found.values()
    }

    fn begin(&mut self, before: &State, moved: Moved) {
        let is_real = moved.unevaluable.as_ref().map(|it| self.is_real(&it.message, before));
        if is_real == Some(false) && moved.unevaluable.as_ref().is_some_and(|it| it.step.is_some()) {
            return;
        }
        self.note_branches(&moved);
        let Moved { state, skipped, unevaluable } = moved;
        let node = Node {
            parent: None,
            happening: None,
            start: before.start,
            skipped,
            rest: state.rest,
            step: state.slip.step.clone(),
            length: 0,
            is_visited: false,
        };
        let id = self.insert(self.world.key(&state), node, state);
        if let Some(unevaluable) = unevaluable.filter(|_| is_real == Some(true)) {
            self.note_unevaluable(unevaluable, id, None);
        }
    }

    fn expand(&mut self, id: u32, state: &State) {
        match state.rest {
            Rest::Ended(_) => {}
            Rest::ForEver => {
                let step = state.slip.step.clone();
                self.note(Kind::NeverEnds, Part::Step(step), id, None, String::new());
            }
            Rest::Parked => self.expand_parked(id, state),
            Rest::Waiting { ends } => self.expand_waiting(id, state, ends),
            Rest::Ready => self.expand_ready(id, state),
        }
    }

    fn expand_ready(&mut self, id: u32, state: &State) {
        let world = self.world;
        let now_ms = world.now_ms(state.is_late);
        match prepare(&world.definition, &state.slip, &world.env, now_ms) {
            Prepared::Outcome(outcome) => match self.decided(id, state, &outcome) {
                Some(what) => self.decide(id, state, outcome, vec![(what, Change::None)], false),
                None if is_sleep(world, state) => {
                    let rest = Outcome::Rests(Rested { release_after_ms: Some(1), signal: None });
                    self.decide(id, state, rest, vec![(What::Rests, Change::None)], false);
                }
                None => self.call(id, state),
            },
            // Whatever the worker of this proof does not have, another one has.
            Prepared::Missing(_) | Prepared::Http(_) | Prepared::Native(_) | Prepared::Simulated(_)
                if is_polling(&world.definition, &state.slip) =>
            {
                self.poll(id, state);
            }
            Prepared::Missing(_) | Prepared::Http(_) | Prepared::Native(_) | Prepared::Simulated(_) => {
                self.call(id, state)
            }
        }
        if state.slip.phase == Phase::Undo {
            return;
        }
        if state.slip.deadline_ms.is_some() && !state.is_late {
            self.turn(id, state, What::DeadlinePasses, State { is_late: true, ..state.clone() });
        }
        let has_time = self.world.definition.step(&state.slip.step).is_some_and(|step| step.deadline_ms().is_some());
        if has_time && state.slip.step_left_ms.is_none() {
            let mut late = state.clone();
            late.slip.step_left_ms = Some(0);
            self.turn(id, state, What::StepDeadlinePasses, late);
        }
        self.decide(id, state, Outcome::Cancelled, vec![(What::Cancelled, Change::None)], false);
    }

    /// What happens without a call; none where only the values of this proof are at fault.
    fn decided(&mut self, id: u32, state: &State, outcome: &Outcome) -> Option<What> {
        let error = match outcome {
            Outcome::Failed { error, .. } => error,
            Outcome::Rests(_) | Outcome::Accepted { .. } | Outcome::NotYet { .. } => return Some(What::Rests),
            Outcome::Succeeded { .. } => return Some(What::Slept),
            Outcome::NotSignalled => return Some(What::WaitedInVain),
            Outcome::NothingToUndo { .. } | Outcome::Skipped | Outcome::Cancelled | Outcome::NotDone => {
                return Some(What::SkippedAnew);
            }
        };
        if error.code == code::OUTCOME_UNKNOWN {
            return Some(What::NobodyKnows);
        }
        if error.code != code::EXPRESSION_FAILED {
            return Some(What::DeadlineFound);
        }
        if !self.is_real(&error.message, state) {
            return None;
        }
        let step = state.slip.step.clone();
        let (kind, part) = match state.slip.phase {
            Phase::Undo => (Kind::CompensationFails, Part::Compensation(step)),
            Phase::Forward if error.message.starts_with("`when`") => (Kind::WhenFails, Part::When(step)),
            Phase::Forward => (Kind::CallFails, Part::Step(step)),
        };
        self.note(kind, part, id, None, error.message.clone());
        Some(What::Unevaluable { message: error.message.clone() })
    }

    fn call(&mut self, id: u32, state: &State) {
        let world = self.world;
        let slip = &state.slip;
        let Some(step) = world.definition.step(&slip.step) else { return };
        let is_forward = slip.phase == Phase::Forward;
        let asks = asks_first(&world.definition, slip);
        if is_forward && !step.is_idempotent() && state.made && !asks {
            self.note(Kind::RunsTwice, Part::Step(slip.step.clone()), id, None, String::new());
        }
        let outputs = match world.index_of(&slip.step).and_then(|index| world.domain.outputs.get(index)) {
            Some(outputs) if is_forward => outputs.as_slice(),
            Some(_) | None => &[serde_json::Value::Null],
        };
        let can_be_late = is_forward && slip.deadline_ms.is_some() && !state.is_late;
        let is_late: &[bool] = if can_be_late { &[false, true] } else { &[false] };
        for late in is_late {
            let possible = match asks {
                true => verdicts(step, slip, outputs, state.stands_here()),
                false => answers(&world.definition, slip, outputs, state.stands_here()),
            };
            for Possible { outcome, ways } in possible {
                self.decide(id, state, outcome, ways, *late);
            }
        }
        if is_forward && slip.attempt_uncertain {
            self.call_back(id, state);
        }
        if is_forward && !asks {
            let done = if has_effect(step) { Change::Done } else { Change::None };
            for (done, change) in [(true, done), (false, Change::None)] {
                let before = changed(state, change);
                let lost = State { slip: lost(&world.definition, &before.slip), ..before };
                self.turn(id, state, What::WorkerLost { done }, lost);
            }
        }
    }

    /// The flow decides about an outcome, which may have come about in several ways. `is_late`: the deadline passed
    /// meanwhile.
    fn decide(&mut self, id: u32, state: &State, outcome: Outcome, ways: Vec<(What, Change)>, is_late: bool) {
        let now_ms = self.world.now_ms(state.is_late || is_late);
        let decision = advance(&self.world.definition, &state.slip, outcome, now_ms);
        for (what, change) in ways {
            let mut before = changed(state, change);
            before.is_late |= is_late;
            if let (Some(output), Phase::Forward) = (what.output(), state.slip.phase) {
                before.outputs.push((state.slip.step.clone(), output));
            }
            let moved = moved(&before, &decision);
            self.take(id, &before, moved, what, is_late);
        }
    }

    fn take(&mut self, id: u32, before: &State, mut moved: Moved, what: What, is_late: bool) {
        let happening = Happening {
            step: before.slip.step.clone(),
            phase: before.slip.phase,
            what,
            is_late,
            skipped: moved.skipped.clone(),
            then: then(before, &moved.state),
        };
        if let Some(unevaluable) = moved.unevaluable.take() {
            let succeeded = happening.what.output().is_some();
            let real = self.is_real(&unevaluable.message, before)
                && !(succeeded && names_step(&unevaluable.message, &before.slip.step));
            match (real, &unevaluable.step) {
                (true, _) => self.note_unevaluable(unevaluable, id, Some(happening.clone())),
                // Values of the proof's own making do not fit a condition: this is no story of the flow.
                (false, Some(_)) => return,
                (false, None) => moved.state.rest = Rest::Ended(JobStatus::Succeeded),
            }
        }
        self.note_branches(&moved);
        if let Rest::Ended(_) = moved.state.rest {
            self.judge_end(id, &moved.state, &happening);
        }
        self.go(id, happening, moved.state);
    }

    /// Something happens that needs no decision of the flow.
    fn turn(&mut self, id: u32, before: &State, what: What, state: State) {
        let happening = Happening {
            step: before.slip.step.clone(),
            phase: before.slip.phase,
            what,
            is_late: false,
            skipped: Vec::new(),
            then: Then::GoesOn,
        };
        self.go(id, happening, state);
    }

    fn go(&mut self, from: u32, happening: Happening, state: State) {
        let key = self.world.key(&state);
        let node = Node {
            parent: Some(from),
            start: state.start,
            skipped: Vec::new(),
            rest: state.rest,
            step: state.slip.step.clone(),
            length: self.nodes[from as usize].length + happening.weight(),
            happening: Some(happening),
            is_visited: false,
        };
        let id = self.insert(key, node, state);
        self.sources[id as usize].push(from);
    }

    /// The number of the state; it is to be visited if it was not yet.
    fn insert(&mut self, key: String, node: Node, state: State) -> u32 {
        let next = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let id = *self.known.entry(key).or_insert(next);
        let length = node.length;
        if id == next {
            self.nodes.push(node);
            self.sources.push(Vec::new());
        } else if length < self.nodes[id as usize].length {
            self.nodes[id as usize] = node;
        } else {
            return id;
        }
        if self.open.len() <= length {
            self.open.resize_with(length + 1, VecDeque::new);
        }
        self.open[length].push_back((id, state));
        id
    }

    /// True if the value that is missing can be missing in a real job: the output of a step that has none, or a part of
    /// the input that the schema does not require.
    fn is_real(&self, message: &str, state: &State) -> bool {
        let Some(path) = missing_path(message) else { return false };
        match path.split('.').collect::<Vec<_>>().as_slice() {
            ["steps", step, ..] => !state.slip.done.iter().any(|done| done.step == *step && done.output.is_some()),
            ["input", ..] => self.world.domain.may_be_absent.contains(path),
            _ => false,
        }
    }

    /// Parked jobs from which no end can be reached.
    fn find_what_never_ends(&mut self) {
        let ends = (0..).zip(&self.nodes).filter(|(_, node)| matches!(node.rest, Rest::Ended(_)));
        let can_end = leading_to(ends.map(|(id, _)| id).collect(), &self.sources);
        let stuck: Vec<(u32, String)> = (0..)
            .zip(&self.nodes)
            .filter(|(id, node)| node.rest == Rest::Parked && !can_end[*id as usize])
            .map(|(id, node)| (id, node.step.clone()))
            .collect();
        for (id, step) in stuck {
            self.note(Kind::NeverEnds, Part::Step(step), id, None, String::new());
        }
    }
}

fn changed(state: &State, change: Change) -> State {
    let mut state = state.clone();
    let effect = (state.slip.step.clone(), state.slip.visit);
    match change {
        Change::None => {}
        Change::Done => {
            state.made = true;
            state.stands.insert(effect);
        }
        Change::Undone => drop(state.stands.remove(&effect)),
    }
    state
}

/// True if the message says that something of this step's output is missing.
fn names_step(message: &str, step: &str) -> bool {
    missing_path(message).is_some_and(|path| path.split('.').nth(1) == Some(step))
}
