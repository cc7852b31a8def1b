//! A flow as it was declared: parsed, checked, compiled once, and then trusted.
//!
//! A definition is content-addressed: its version follows from its document, so a running job can stay on the version
//! that it started with. A `Definition` is cheap to clone and shared between threads.

use std::sync::Arc;

use serde_json::Value;

use crate::env::Env;
use crate::expression::{Evaluation, Scope, Template, UrlTemplate};

mod auth;
mod completion;
mod duration;
mod input;
mod kept;
pub(crate) mod key;
pub mod limit;
mod node;
pub mod problem;
mod read;
mod read_auth;
mod read_completion;
mod read_fallback;
mod read_limits;
mod read_rest;
mod read_retry;
mod read_route;
mod read_simulate;
mod read_step;
mod read_trigger;
mod read_value;
mod read_verify;
mod reader;
mod respond;
mod rest;
mod route;
mod schedule;
mod simulate;
mod step;
mod terms;
mod trigger;
mod upload;
mod version;
mod visible;
mod yaml_number;

pub(crate) use completion::PollUrl;
pub use completion::{Callback, Completion, HEADERS_READ, Poll};
pub use duration::parse_ms as parse_duration_ms;
pub use node::{Content, Key, Node, Place};
pub use problem::{Hint, Problem};
pub(crate) use read_route::terms as read_terms;
pub use reader::{Fields, Reader};
pub(crate) use respond::{BODILESS, Respond, status_of};
pub(crate) use rest::Until;
pub use route::{Clash, clashes};
pub use schedule::{Due, GRACE_MS, MISSED_MAX, Missed, Schedule};
pub use simulate::Simulate;
pub(crate) use simulate::{FailKind, parse_latency};
pub use step::{Action, Approve, Call, Http, Limits, Native, OnTimeout, Retry, Sleep, Step, StepKind, Verify, Wait};
pub(crate) use step::{Auth, Fallback};
pub use terms::{Answers, Deprecation, Enforce, Terms};
pub use trigger::{Format, Picks, ReadFrom, Scheme, Topic, Trigger, Webhook};
pub use upload::Upload;
pub(crate) use visible::seen_as;

/// A checked flow. Cheap to clone.
#[derive(Clone)]
pub struct Definition(Arc<Compiled>);

/// A compiled definition.
struct Compiled {
    name: String,
    summary: Option<String>,
    route: Option<Route>,
    route_place: Place,
    terms: Terms,
    upstream: Option<UrlTemplate>,
    input: Option<input::Input>,
    upload: Option<Upload>,
    trigger: Option<Trigger>,
    key: Option<Template>,
    deadline_ms: Option<u64>,
    on_failure: OnFailure,
    priority: Priority,
    sandbox: bool,
    steps: Vec<Step>,
    result: Option<Template>,
    kept: kept::Kept,
    respond: Option<Respond>,
    document: Value,
    version: String,
    hints: Vec<Hint>,
}

/// The flow's own address, `POST /orders`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The HTTP method, upper case.
    pub method: String,
    /// The path, beginning with `/`.
    pub path: String,
}

/// The policy for a step that failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Undo what was done, in reverse.
    Compensate,
    /// Wait for an operator.
    Park,
}

/// Whose new jobs are refused first where there is too much work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// They can wait.
    Bulk,
    #[default]
    Normal,
    /// They are refused last.
    Urgent,
}

impl Priority {
    /// All, from the lowest.
    pub const ALL: [Self; 3] = [Self::Bulk, Self::Normal, Self::Urgent];

    /// The word in flow files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Normal => "normal",
            Self::Urgent => "urgent",
        }
    }
}

/// One violation of the flow's input schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputError {
    /// JSON pointer (RFC 6901) to the offending value.
    pub pointer: String,
    /// The fault.
    pub detail: String,
}

/// The job's input does not give the value that the flow needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the flow's ordering key cannot be had from the input: {0}")]
pub struct KeyError(String);

/// Reads `input: { $ref: name }`: the file's name in, its JSON out, or a message for a person.
pub type ResolveRef<'a> = dyn FnMut(&str) -> Result<Value, String> + 'a;

impl Definition {
    /// Reads a flow file. Every problem that can be found is reported.
    pub fn parse_yaml(file: &str, text: &str, resolve_ref: &mut ResolveRef<'_>) -> Result<Self, Vec<Problem>> {
        let (reader, root) = read_yaml(file, text)?;
        Self::read(reader, &root, resolve_ref)
    }

    /// Reads a canonical document, as [`Definition::document`] gave it.
    pub fn from_document(document: &Value) -> Result<Self, Vec<Problem>> {
        Self::read(Reader::of_document(), &Node::from_json(document), &mut read::no_references)
    }

    fn read(mut reader: Reader<'_>, root: &Node, resolve_ref: &mut ResolveRef<'_>) -> Result<Self, Vec<Problem>> {
        let compiled = read::flow(&mut reader, root, resolve_ref);
        match compiled {
            Some(compiled) if reader.is_clean() => Ok(Self(Arc::new(compiled))),
            Some(_) | None => Err(reader.finish()),
        }
    }

    /// The canonical document: the file as JSON with its schema inlined.
    /// Store it as text or bytes: an order-losing `jsonb` would change its version.
    pub fn document(&self) -> &Value {
        &self.0.document
    }

    /// The first twelve hexadecimal digits of the SHA-256 of the document's compact JSON.
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// What works in the file as it stands, but may not be meant.
    pub fn hints(&self) -> &[Hint] {
        &self.0.hints
    }

    /// The flow's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its purpose, in a line.
    pub fn summary(&self) -> Option<&str> {
        self.0.summary.as_deref()
    }

    /// The flow's own address, if it has one besides `POST /v1/flows/{flow}/jobs`.
    pub fn route(&self) -> Option<&Route> {
        self.0.route.as_ref()
    }

    /// The terms on which its own address answers.
    pub fn terms(&self) -> &Terms {
        &self.0.terms
    }

    /// True if the old service stands behind its own address.
    pub fn has_upstream(&self) -> bool {
        self.0.upstream.is_some()
    }

    /// The old service's URL in this environment.
    ///
    /// # Errors
    /// A variable is missing, or makes no URL. The message has no values in it.
    pub fn upstream(&self, env: &Env) -> Option<Result<String, String>> {
        let scope = Scope { input: &Value::Null, slip: None, step: None, env: Some(env), more: &[] };
        let url = self.0.upstream.as_ref()?.render(&Evaluation::new(scope));
        Some(url.map_err(|error| error.to_string()))
    }

    /// The line and the column of its `route`, from 1; zeros where there is none.
    pub fn route_place(&self) -> (u32, u32) {
        (self.0.route_place.line, self.0.route_place.column)
    }

    /// The JSON Schema of the input, if there is one.
    pub fn input_schema(&self) -> Option<&Value> {
        self.0.input.as_ref().map(|input| &input.schema)
    }

    /// The documents that it takes; none: it takes JSON.
    pub fn upload(&self) -> Option<&Upload> {
        self.0.upload.as_ref()
    }

    /// The time limit of a job, from its acceptance.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.0.deadline_ms
    }

    /// The policy for a step that failed for good.
    pub fn on_failure(&self) -> OnFailure {
        self.0.on_failure
    }

    /// The priority of its jobs.
    pub fn priority(&self) -> Priority {
        self.0.priority
    }

    /// True: its calls are not made; each is answered as its `simulate` says.
    pub fn is_sandbox(&self) -> bool {
        self.0.sandbox
    }

    /// The same flow with its calls made.
    #[must_use]
    pub fn for_real(&self) -> Self {
        let mut document = self.document().clone();
        if let Some(entries) = document.as_object_mut() {
            entries.shift_remove("sandbox");
        }
        let real = if self.is_sandbox() { Self::from_document(&document).ok() } else { None };
        real.unwrap_or_else(|| self.clone())
    }

    /// The steps, in order; at least one.
    pub fn steps(&self) -> &[Step] {
        &self.0.steps
    }

    /// One step by its id.
    pub fn step(&self, id: &str) -> Option<&Step> {
        self.0.steps.iter().find(|step| step.id == id)
    }

    /// The queue of a step, if the flow has that step.
    pub fn queue_of(&self, step: &str) -> Option<&str> {
        self.step(step).map(|step| step.queue.as_str())
    }

    /// Every queue that the flow uses, each once, in the order of the steps.
    pub fn queues(&self) -> Vec<&str> {
        let mut queues = Vec::new();
        for step in self.steps() {
            if !queues.contains(&step.queue.as_str()) {
                queues.push(step.queue.as_str());
            }
        }
        queues
    }

    /// The names of all native steps that a worker needs for this flow, compensations included, each once.
    pub fn natives(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for name in self.steps().iter().flat_map(Step::natives) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Checks an input against the flow's schema: no errors, or all of them.
    pub fn validate_input(&self, input: &Value) -> Vec<InputError> {
        self.0.input.as_ref().map(|schema| schema.validate(input)).unwrap_or_default()
    }

    /// True if the flow has an ordering key of its own.
    pub fn has_key(&self) -> bool {
        self.0.key.is_some()
    }

    /// The ordering key of a job with this input: the flow's `key`, or else `fallback` (the record's key, or the
    /// job id). An error names the value that is missing; it is the caller's fault (422).
    pub fn ordering_key(&self, input: &Value, fallback: &str) -> Result<String, KeyError> {
        let Some(template) = &self.0.key else { return Ok(fallback.to_owned()) };
        let evaluation = Evaluation::new(Scope { input, slip: None, step: None, env: None, more: &[] });
        let key = template.render_plain(&evaluation).map_err(|error| KeyError(error.to_string()))?;
        match key.len() {
            0 => Err(KeyError("it is empty".to_owned())),
            1..=limit::KEY_BYTES_MAX => Ok(key),
            length => Err(KeyError(format!("it has {length} bytes of at most {}", limit::KEY_BYTES_MAX))),
        }
    }

    pub(crate) fn result(&self) -> Option<&Template> {
        self.0.result.as_ref()
    }

    /// True if its jobs' answers may have another status or form than 200 and JSON.
    pub fn forms_answers(&self) -> bool {
        self.respond().is_some() || self.answers_as_its_step()
    }

    pub(crate) fn respond(&self) -> Option<&Respond> {
        self.0.respond.as_ref()
    }

    /// True for a flow that is one HTTP call and says nothing of its result or answer: it answers as the service did.
    pub fn answers_as_its_step(&self) -> bool {
        matches!(self.steps(), [only] if only.http().is_some()) && self.0.result.is_none() && self.0.respond.is_none()
    }
}

/// Reads a YAML file with places: the flow itself, or what stands beside it. The reader takes the problems that are
/// found in it.
pub fn read_yaml<'a>(file: &'a str, text: &str) -> Result<(Reader<'a>, Node), Vec<Problem>> {
    let mut reader = Reader::new(file);
    if text.len() > limit::DOCUMENT_BYTES_MAX {
        reader.problem(Place::default(), format!("a flow file of {} bytes is too large", text.len())).expected =
            Some(format!("at most {} bytes", limit::DOCUMENT_BYTES_MAX));
        return Err(reader.finish());
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: limit::DEPTH_MAX, max_documents: 1 },
        strict_booleans: true,
    };
    match serde_saphyr::from_str_with_options::<Node>(text, options) {
        Ok(mut root) => {
            yaml_number::settle(&mut reader, &mut root, text);
            Ok((reader, root))
        }
        Err(error) => {
            let place = error.location().map(Place::of).unwrap_or_default();
            let problem = reader.problem(place, format!("not YAML: {}", plain_message(&error)));
            if text.contains("{{") {
                problem.hint = Some("a text that begins with `{{` needs quotes: \"{{ … }}\"".to_owned());
            }
            Err(reader.finish())
        }
    }
}

impl std::fmt::Debug for Definition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Definition({}@{})", self.name(), self.version())
    }
}

/// The first line of a parser's message, without the place, which [`Problem`] has.
fn plain_message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests;
