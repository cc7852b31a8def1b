//! The flow with everything that is needed to walk it: values, surroundings, starts.

use std::collections::{BTreeMap, BTreeSet};

use flow::callback::{Callbacks, SECRET_BYTES_MIN, Secrets};
use flow::decide::{Env, start};
use flow::definition::Definition;
use flow::event::JobStatus;
use flow::slip::Phase;
use serde_json::{Value, json};

use crate::apply::{Moved, moved};
use crate::domain::Domain;
use crate::probe::{blank_slip, new_job};
use crate::sample::get;
use crate::scan::expressions;
use crate::state::{Rest, State};

/// The time at which every job is accepted.
const NOW_MS: i64 = 0;

/// A flow to be walked.
pub(crate) struct World {
    /// The flow; conditions that are assumed are replaced by a question to the start.
    pub(crate) definition: Definition,
    pub(crate) env: Env,
    pub(crate) domain: Domain,
    pub(crate) starts: Vec<Start>,
    /// By start and step: all that the way forward from there can read of the start.
    classes: Vec<Vec<u32>>,
    /// By start: all that the way back can read of it.
    undo_classes: Vec<u32>,
}

/// A way to begin a job.
pub(crate) struct Start {
    pub(crate) input: Value,
    /// Steps whose conditions are taken to hold, out of those that cannot be evaluated here.
    pub(crate) holding: Vec<usize>,
}

impl World {
    pub(crate) fn new(original: &Definition, domain: Domain, assumed: &[usize]) -> Self {
        let definition = assuming(original, assumed);
        let starts: Vec<Start> = domain
            .inputs
            .iter()
            .flat_map(|input| {
                (0..1_u32 << assumed.len()).map(|mask| {
                    let holding = (0..).zip(assumed).filter(|(bit, _)| mask >> bit & 1 == 1);
                    Start { input: input.clone(), holding: holding.map(|(_, step)| *step).collect() }
                })
            })
            .collect();
        let (classes, undo_classes) = classes(original, &domain, &starts);
        Self { env: surroundings(original.document()), definition, domain, starts, classes, undo_classes }
    }

    /// The decision at the acceptance of a job, with the state that comes before it.
    pub(crate) fn begin(&self, number: usize) -> Option<(State, Moved)> {
        let start_of = self.starts.get(number)?;
        let correlation_id = mark(&start_of.holding);
        let slip = blank_slip(start_of.input.clone(), correlation_id.clone())?;
        let decision = start(&self.definition, new_job(start_of.input.clone(), correlation_id), NOW_MS);
        let state = State {
            slip,
            rest: Rest::Ready,
            is_late: false,
            stands: BTreeSet::new(),
            made: false,
            start: number,
            outputs: Vec::new(),
        };
        Some((state.clone(), moved(&state, &decision)))
    }

    /// The key under which equal states are folded.
    pub(crate) fn key(&self, state: &State) -> String {
        let class = match (state.rest, state.slip.phase) {
            (Rest::Ended(JobStatus::Succeeded | JobStatus::Failed | JobStatus::Cancelled), _) => 0,
            (_, Phase::Undo) => self.undo_classes[state.start],
            (_, Phase::Forward) => {
                let step = self.index_of(&state.slip.step).unwrap_or(0);
                self.classes[state.start][step]
            }
        };
        state.key(class)
    }

    pub(crate) fn index_of(&self, step: &str) -> Option<usize> {
        self.definition.steps().iter().position(|known| known.id == step)
    }

    /// The clock of a state.
    pub(crate) fn now_ms(&self, is_late: bool) -> i64 {
        let deadline_ms = self.definition.deadline_ms().and_then(|ms| i64::try_from(ms).ok()).unwrap_or(0);
        if is_late { NOW_MS + deadline_ms + 1 } else { NOW_MS }
    }
}

/// The mark of a start, which replaced conditions ask for. The correlation id is the one text of a job that is free.
fn mark(holding: &[usize]) -> String {
    holding.iter().fold(",".to_owned(), |mark, step| format!("{mark}{step},"))
}

fn assuming(original: &Definition, assumed: &[usize]) -> Definition {
    if assumed.is_empty() {
        return original.clone();
    }
    let mut document = original.document().clone();
    for step in assumed {
        document["steps"][*step]["when"] = json!(format!("{{{{ ',{step},' in job.correlation_id }}}}"));
    }
    Definition::from_document(&document).unwrap_or_else(|_| original.clone())
}

/// Every variable and secret that the flow names, with a value that any place takes.
fn surroundings(document: &Value) -> Env {
    let mut env = Env { callbacks: callbacks(), ..Env::default() };
    for path in expressions(document).into_iter().flat_map(|scanned| scanned.paths) {
        match path.split('.').collect::<Vec<_>>().as_slice() {
            ["env", name, ..] => drop(env.vars.insert((*name).to_owned(), variable(name))),
            ["secrets", name, ..] => drop(env.secrets.insert((*name).to_owned(), "secret".to_owned())),
            _ => {}
        }
    }
    env
}

/// The means to make URLs of callbacks: nobody else has this secret, and nobody needs it.
pub(crate) fn callbacks() -> Callbacks {
    let secrets = Secrets::new(vec!["s".repeat(SECRET_BYTES_MIN)]).unwrap_or_default();
    Callbacks { api_url: "http://meanwhile.test".to_owned(), secrets }
}

/// The value of a variable: a URL that tells which one it is.
pub(crate) fn variable(name: &str) -> String {
    format!("http://{}.test", name.to_ascii_lowercase().replace('_', "-"))
}

/// Numbers for what the future can read of a start, by its start and step; and for the way back.
fn classes(definition: &Definition, domain: &Domain, starts: &[Start]) -> (Vec<Vec<u32>>, Vec<u32>) {
    let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
    let mut number = |text: String| {
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        *numbers.entry(text).or_insert(next)
    };
    let value_at = |input: &Value, path: &str| {
        let names: Vec<&str> = path.split('.').skip(1).collect();
        get(input, &names).cloned()
    };
    let (mut forward, mut undo) = (Vec::new(), Vec::new());
    for start in starts {
        let absent = domain.may_be_absent.iter().filter(|path| value_at(&start.input, path).is_none());
        let shape = format!("{:?}", absent.collect::<Vec<_>>());
        let of_step = |step: usize| {
            let conditions = domain.conditions.iter().filter(|condition| condition.step >= step);
            let paths = conditions.flat_map(|condition| &condition.scanned.paths);
            let read = paths.filter(|path| path.starts_with("input")).map(|path| value_at(&start.input, path));
            let holding: Vec<_> = start.holding.iter().filter(|holding| **holding >= step).collect();
            format!("{shape} {:?} {holding:?}", read.collect::<Vec<_>>())
        };
        forward.push((0..definition.steps().len()).map(|step| number(of_step(step))).collect());
        undo.push(number(shape.clone()));
    }
    (forward, undo)
}
