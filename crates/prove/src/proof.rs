//! The proof of a flow, from its file to findings in words.

use flow::definition::Problem;
use serde_json::{Value, json};

use crate::domain::Domain;
use crate::explore::{Found, Walk};
use crate::finding::{Accepted, Finding, Kind};
use crate::flow_file::{FlowFile, Part};
use crate::story::story;
use crate::world::World;

/// States that are visited unless more are asked for.
const STATES_MAX: usize = 500_000;
/// Conditions that are taken both ways without being evaluated, at most: each doubles the starts.
const ASSUMED_MAX: usize = 10;

/// What to prove with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Inputs to begin with; without any, one is made by the schema.
    pub inputs: Vec<Value>,
    /// States that are visited at most.
    pub states_max: usize,
    /// Findings to live with.
    pub accepted: Vec<Accepted>,
}

impl Default for Options {
    fn default() -> Self {
        Self { inputs: Vec::new(), states_max: STATES_MAX, accepted: Vec::new() }
    }
}

/// The outcome of a proof.
#[derive(Debug)]
pub struct Proof {
    /// The flow.
    pub flow: String,
    /// Its version.
    pub version: String,
    /// Distinct states that were visited.
    pub states: usize,
    /// True if there were no more.
    pub is_complete: bool,
    /// What was found, and not accepted.
    pub findings: Vec<Finding>,
    /// What was found, and accepted.
    pub accepted: Vec<Finding>,
    /// What was accepted, and not found.
    pub unused: Vec<Accepted>,
    /// Steps whose conditions were taken both ways, since they could not be evaluated here.
    pub assumed: Vec<String>,
}

impl Proof {
    /// True if every state was visited and nothing was found.
    pub const fn is_proved(&self) -> bool {
        self.is_complete && self.findings.is_empty()
    }

    /// The proof for programs.
    pub fn to_json(&self) -> Value {
        let findings = |findings: &[Finding]| findings.iter().map(Finding::to_json).collect::<Vec<_>>();
        json!({
            "flow": self.flow,
            "version": self.version,
            "proved": self.is_proved(),
            "complete": self.is_complete,
            "states": self.states,
            "findings": findings(&self.findings),
            "accepted": findings(&self.accepted),
            "unused_accepts": self.unused.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "assumed": self.assumed,
        })
    }
}

/// Walks every combination of outcomes. `progress` is told the number of states from time to time.
///
/// # Errors
/// No input is known that the flow's schema accepts.
pub fn prove(file: &FlowFile, options: &Options, progress: &mut dyn FnMut(usize)) -> Result<Proof, Problem> {
    let mut assumed: Vec<usize> = Vec::new();
    loop {
        let domain = Domain::of(file, &options.inputs, &assumed);
        if domain.inputs.is_empty() {
            return Err(no_input(file, options));
        }
        let world = World::new(&file.definition, domain, &assumed);
        let walk = Walk::all(&world, options.states_max, progress);
        let open = undecided(&world, &walk, &assumed);
        if walk.is_complete && !open.is_empty() && assumed.len() < ASSUMED_MAX {
            assumed.extend(open.into_iter().take(ASSUMED_MAX - assumed.len()));
            assumed.sort_unstable();
            continue;
        }
        return Ok(proof(file, options, &world, &walk, &assumed));
    }
}

fn no_input(file: &FlowFile, options: &Options) -> Problem {
    let message = if options.inputs.is_empty() {
        "no input could be made that the flow's schema accepts"
    } else {
        "the flow's schema accepts none of the given inputs"
    };
    let hint = "give an input that a caller may send: --input FILE, or `examples` in the schema";
    Problem {
        file: file.name.clone(),
        line: 0,
        column: 0,
        message: message.to_owned(),
        expected: None,
        hint: Some(hint.to_owned()),
    }
}

/// Conditions that were not seen to hold and to fail, and that no few values decide.
fn undecided(world: &World, walk: &Walk<'_>, assumed: &[usize]) -> Vec<usize> {
    let open = world.domain.conditions.iter().filter(|condition| {
        let id = &world.definition.steps()[condition.step].id;
        let has_both = [true, false].iter().all(|value| walk.branches.contains(&(id.clone(), *value)));
        let is_decided = condition.scanned.is_simple && world.domain.is_exhaustive;
        !(has_both || is_decided || assumed.contains(&condition.step))
    });
    open.map(|condition| condition.step).collect()
}

fn proof(file: &FlowFile, options: &Options, world: &World, walk: &Walk<'_>, assumed: &[usize]) -> Proof {
    let mut all: Vec<Finding> = walk.found().map(|found| finding(file, world, walk, found)).collect();
    if walk.is_complete {
        all.extend(never_taken(file, world, walk));
    }
    all.sort_by_key(|finding| (finding.line, finding.column));
    let is_accepted = |finding: &Finding| options.accepted.iter().any(|accepted| accepted.covers(finding));
    let unused = options.accepted.iter().filter(|accepted| !all.iter().any(|finding| accepted.covers(finding)));
    let unused = unused.cloned().collect();
    let (accepted, findings) = all.into_iter().partition(is_accepted);
    Proof {
        flow: file.definition.name().to_owned(),
        version: file.definition.version().to_owned(),
        states: walk.nodes.len(),
        is_complete: walk.is_complete,
        findings,
        accepted,
        unused,
        assumed: assumed.iter().map(|step| file.definition.steps()[*step].id.clone()).collect(),
    }
}

fn never_taken(file: &FlowFile, world: &World, walk: &Walk<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for condition in &world.domain.conditions {
        let id = &world.definition.steps()[condition.step].id;
        let source = &condition.scanned.source;
        let seen = |value: bool| walk.branches.contains(&(id.clone(), value));
        let (message, help) = match (seen(true), seen(false)) {
            (false, _) => (
                format!("`{id}` never runs: `{{{{ {source} }}}}` never holds when a job comes to it"),
                "take the step out, or correct its `when`",
            ),
            (true, false) => (
                format!("`{id}` is never skipped: `{{{{ {source} }}}}` always holds when a job comes to it"),
                "take the `when` out, or correct it",
            ),
            (true, true) => continue,
        };
        let place = file.place(&Part::When(id.clone()));
        findings.push(Finding {
            kind: Kind::BranchNeverTaken,
            step: Some(id.clone()),
            file: file.name.clone(),
            line: place.line,
            column: place.column,
            message,
            input: None,
            story: Vec::new(),
            help: help.to_owned(),
        });
    }
    findings
}

fn finding(file: &FlowFile, world: &World, walk: &Walk<'_>, found: &Found) -> Finding {
    let (story, start) = story(world, walk, found);
    let step = match &found.part {
        Part::Step(step) | Part::When(step) | Part::Compensation(step) => Some(step.clone()),
        Part::Result => None,
    };
    let place = file.place(&found.part);
    let (message, help) = words(found, step.as_deref().unwrap_or_default());
    let several = world.domain.inputs.len() > 1 || found.detail.contains("`input.");
    Finding {
        kind: found.kind,
        step,
        file: file.name.clone(),
        line: place.line,
        column: place.column,
        message,
        input: several.then(|| world.starts[start].input.clone()),
        story,
        help,
    }
}

fn words(found: &Found, step: &str) -> (String, String) {
    let detail = found.detail.trim_start_matches("`when`: ").trim_start_matches("`result`: ");
    let key = if found.detail.starts_with("`respond`") { "respond" } else { "result" };
    let detail = detail.trim_start_matches("`respond`: ");
    let fallback = "a fallback: `| default(...)`, or an input schema that requires the value";
    match found.kind {
        Kind::EffectStands => (
            format!("what `{step}` did may stand after the job has ended badly, and nothing undoes it"),
            format!("a `compensate` for `{step}`; if it needs none: --accept effect-stands:{step}"),
        ),
        Kind::CompensationFails => (format!("the undo of `{step}` cannot be called: {detail}"), fallback.to_owned()),
        Kind::ResultFails => (
            format!("`{key}` cannot be evaluated, so a job whose steps are done is undone: {detail}"),
            fallback.to_owned(),
        ),
        Kind::CallFails => (format!("`{step}` cannot be called: {detail}"), fallback.to_owned()),
        Kind::WhenFails => (format!("the `when` of `{step}` cannot be evaluated: {detail}"), fallback.to_owned()),
        Kind::RunsTwice => (
            format!("`{step}` is not idempotent, and may be called again after it was done, without an operator"),
            format!(
                "a `settle` of at least the step's longest time, or a service that honours `Idempotency-Key` and no \
                 `idempotent: false`; to live with it: --accept runs-twice:{step}"
            ),
        ),
        Kind::NeverEnds => (
            format!("a job that rests at `{step}` cannot end, whatever is done about it"),
            format!(
                "a `timeout` for a `wait`, or a `deadline` of the flow; for a call: one of `{step}`, and of its \
                 `compensate`, that can be evaluated"
            ),
        ),
        Kind::BranchNeverTaken => (String::new(), String::new()),
    }
}
