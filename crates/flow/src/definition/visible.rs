//! The values that an expression may name, depending on its place in the flow.

use super::completion::HEADERS_READ;
use super::node::Place;
use super::reader::Reader;
use super::{OnTimeout, Problem, Step};
use crate::expression::{Expression, Template};
use crate::nearest::nearest;

/// The fields of `job.*`.
const JOB: &[&str] = &["id", "correlation_id", "tenant", "flow"];
/// The fields of `step.*`.
const STEP: &[&str] = &["id", "idempotency_key", "visit", "attempt"];
/// The fields of `callback.*` and `progress.*`.
const ADDRESS: &[&str] = &["url"];
/// The fields of `response.*`.
const RESPONSE: &[&str] = &["status", "body"];
/// The fields of the answer that accepted the work.
const ACCEPTED: &[&str] = &["status", "body", "headers"];

/// The outermost names of `key`: it is known before there is a job.
pub(super) const KEY: &[&str] = &["input"];
/// The outermost names of `when` and `result`. They are decided without a worker's environment, everywhere alike.
pub(super) const DECISION: &[&str] = &["input", "steps", "job"];
/// The outermost names of what a worker sends.
pub(super) const CALL: &[&str] = &["input", "steps", "env", "secrets", "step", "job"];

/// The outermost names of credentials.
pub(super) const AUTH: &[&str] = &["env", "secrets"];
/// The outermost names of what decides about an answer.
pub(super) const ANSWER: &[&str] = &["input", "steps", "step", "job", "response"];
/// The outermost names of what a simulated call answers.
pub(super) const SIMULATED: &[&str] = &["input", "steps", "step", "job"];
/// The outermost names of a step's own request, which may tell where to report progress.
pub(super) const REQUEST: &[&str] = &["input", "steps", "env", "secrets", "step", "job", "progress"];
/// The outermost names of a request that tells where to call back.
pub(super) const CALL_WITH_CALLBACK: &[&str] =
    &["input", "steps", "env", "secrets", "step", "job", "progress", "callback"];
/// The outermost names of a poll's request: `response` is the answer that accepted the work.
pub(super) const POLL: &[&str] = &["input", "steps", "env", "secrets", "step", "job", "response"];
/// The outermost names of a poll's `until`: `response` is the answer to the poll.
pub(super) const POLLED: &[&str] = &["input", "steps", "job", "response"];

/// The names that an expression may use in one place.
#[derive(Clone, Copy)]
pub(super) struct Visible<'a> {
    pub(super) roots: &'a [&'a str],
    /// The steps that may be named: the earlier ones.
    pub(super) steps: &'a [Earlier],
    /// The step that a compensation undoes, whose output may be absent; none elsewhere.
    pub(super) own: Option<&'a str>,
    /// The condition under which the expression is evaluated at all.
    pub(super) when: Option<&'a str>,
}

/// A step that an expression may name.
#[derive(Debug, Clone)]
pub(super) struct Earlier {
    pub(super) id: String,
    /// The condition under which it is run.
    pub(super) when: Option<String>,
    /// True if the job may go on from it without its output. Where it jumps, see `jumped_over_by`.
    pub(super) may_time_out: bool,
    /// The wait that may have led over it.
    pub(super) jumped_over_by: Option<String>,
    /// The headers of its answer that it keeps; none: it has no answer.
    pub(super) keeps: Option<Vec<String>>,
}

impl Earlier {
    pub(super) fn of(step: &Step) -> Self {
        let may_time_out = step.wait().is_some_and(|wait| wait.on_timeout == OnTimeout::Continue);
        let ends_by_answer = step.callback().is_none();
        let keeps = step.http().filter(|_| ends_by_answer).map(|http| http.keep_headers.clone());
        Self { may_time_out, keeps, when: step.when.as_ref().and_then(source), ..Self::unread(step.id.clone()) }
    }

    /// A step of which only the id is known.
    pub(super) const fn unread(id: String) -> Self {
        Self { id, when: None, may_time_out: false, jumped_over_by: None, keeps: None }
    }

    /// The reason for which its output may be absent, where the expression is not evaluated under `when` only.
    fn absent(&self, when: Option<&str>) -> Option<String> {
        if let Some(wait) = &self.jumped_over_by {
            return Some(format!("if the wait of `{wait}` was in vain, or it fell back"));
        }
        if self.may_time_out {
            return Some("if its wait was in vain".to_owned());
        }
        let condition = self.when.as_deref().filter(|own| when != Some(own))?;
        Some(format!("unless `{{{{ {condition} }}}}` holds"))
    }
}

/// The text of a condition.
pub(super) fn source(when: &Template) -> Option<String> {
    when.expressions().first().map(|expression| expression.source().to_owned())
}

impl Visible<'_> {
    /// Reports every name in the expression that is not known there.
    pub(super) fn check(&self, reader: &mut Reader<'_>, place: Place, expression: &Expression) {
        if let Some(literal) = expression.idle_fallback().filter(|_| reader.is_strict()) {
            let message = format!("the `default` of `{{{{ {} }}}}` is that of `{literal}`", expression.source());
            let problem = reader.problem(place, message);
            problem.expected = Some("a value that may be absent before the `|`".to_owned());
            problem.hint = Some("a `|` belongs to the value before it: `(input.x | default(none)) == none`".to_owned());
        }
        for path in expression.paths() {
            let mut names = path.split('.');
            let root = names.next().unwrap_or_default();
            let (first, second) = (names.next(), names.next());
            if !self.roots.contains(&root) {
                self.unknown_root(reader, place, root);
            } else if root == "steps" {
                self.check_step(reader, place, expression, path, (first, second));
            } else if root == "response" && self.roots == POLL {
                check_field(reader, place, root, first, ACCEPTED);
                if first == Some("headers") {
                    let known = HEADERS_READ.map(|(name, _)| name);
                    check_field(reader, place, "response.headers", second, &known);
                }
            } else if let Some(known) = known_fields(root) {
                check_field(reader, place, root, first, known);
            }
        }
    }

    fn unknown_root(&self, reader: &mut Reader<'_>, place: Place, root: &str) {
        let message = if root == "callback" {
            "`callback` is not known here: only the request of a step with `callback` has it".to_owned()
        } else if root == "progress" {
            "`progress` is not known here: only the request of a step has it".to_owned()
        } else if self.roots == AUTH {
            format!("`{root}` is not known here: credentials depend on the deployment, not on a job")
        } else if CALL.contains(&root) {
            format!("`{root}` is not known here: only what is sent by a worker may use it")
        } else {
            format!("unknown name `{root}`")
        };
        suggest(reader.problem(place, message), root, self.roots.iter().copied());
    }

    fn check_step(
        &self,
        reader: &mut Reader<'_>,
        place: Place,
        expression: &Expression,
        path: &str,
        (step, field): (Option<&str>, Option<&str>),
    ) {
        let Some(step) = step else {
            reader.problem(place, "`steps` must be followed by a step's id").expected =
                Some("steps.<id>.output".to_owned());
            return;
        };
        let own = self.own == Some(step);
        let earlier = self.steps.iter().find(|known| known.id == step);
        if !own && earlier.is_none() {
            let message = format!("`steps.{step}` is not an earlier step");
            let known = self.steps.iter().map(|known| known.id.as_str()).chain(self.own);
            suggest(reader.problem(place, message), step, known);
            return;
        }
        let absent = earlier.and_then(|earlier| earlier.absent(self.when));
        if let Some(absent) = absent.filter(|_| reader.is_strict() && !expression.has_fallback_for(step)) {
            let message = format!("`steps.{step}.output` is absent {absent}");
            let problem = reader.problem(place, message);
            problem.expected = Some(format!("{}, or the same `when`", fallback_of(expression)));
            problem.hint = Some(with_fallback(expression.source(), path, "none"));
        }
        match field {
            Some("status" | "headers") => self.check_answer(reader, place, path, earlier),
            Some("output") | None => {}
            Some(field) => {
                reader.problem(place, format!("a step has no `{field}`")).expected =
                    Some(format!("steps.{step}.output, steps.{step}.status, steps.{step}.headers"));
            }
        }
        let copes = match reader.is_strict() {
            true => expression.has_fallback_for(step),
            // What was applied once stays readable.
            false => expression.has_fallback(),
        };
        if own && !copes {
            let message =
                format!("`steps.{step}.output` may be absent when `{step}` is undone: its outcome may be unknown");
            let problem = reader.problem(place, message);
            problem.expected = Some(fallback_of(expression).to_owned());
            problem.hint = Some(with_fallback(expression.source(), path, "step.idempotency_key"));
        }
    }
}

/// What is expected where an expression has no fallback, or has it in another place.
fn fallback_of(expression: &Expression) -> &'static str {
    match expression.has_fallback() {
        true => "a fallback directly behind it: a `|` belongs to the value before it, and to nothing more",
        false => "a fallback",
    }
}

impl Visible<'_> {
    /// The status and the headers of an answer: `path` is `steps.<id>.status` or `steps.<id>.headers.<name>`.
    fn check_answer(&self, reader: &mut Reader<'_>, place: Place, path: &str, earlier: Option<&Earlier>) {
        let mut names = path.split('.').skip(1);
        let (step, field, header) = (names.next().unwrap_or_default(), names.next(), names.next());
        reader.note_answer_read(step);
        // A step's own compensation may be in want of an answer in any case, and says what then.
        let Some(earlier) = earlier else { return };
        let Some(known) = earlier.answer_names() else {
            let message =
                format!("`{step}` does not end by the answer to an HTTP call: it has no status and no headers");
            reader.problem(place, message).expected = Some(format!("steps.{step}.output"));
            return;
        };
        let Some(header) = header.filter(|header| field == Some("headers") && !known.iter().any(|name| name == header))
        else {
            return;
        };
        let problem = reader.problem(place, format!("`{step}` keeps no header `{header}`"));
        suggest(problem, header, known.iter().map(String::as_str));
        if known.is_empty() {
            problem.expected = Some(format!("`keep_headers: [{}]` in its `http`", header.replace('_', "-")));
        }
    }
}

impl Earlier {
    fn answer_names(&self) -> Option<Vec<String>> {
        self.keeps.as_ref().map(|names| names.iter().map(|name| seen_as(name)).collect())
    }
}

/// The name under which expressions read a header: they cannot name one with a dash.
pub(crate) fn seen_as(header: &str) -> String {
    header.replace('-', "_")
}

/// The expression with a fallback for the value that may be absent, and for nothing else.
fn with_fallback(source: &str, path: &str, fallback: &str) -> String {
    let guarded = format!("{path} | default({fallback})");
    match source.trim() == path {
        true => format!("{{{{ {guarded} }}}}"),
        false => format!("{{{{ {} }}}}", source.trim().replacen(path, &format!("({guarded})"), 1)),
    }
}

fn known_fields(root: &str) -> Option<&'static [&'static str]> {
    match root {
        "job" => Some(JOB),
        "step" => Some(STEP),
        "callback" | "progress" => Some(ADDRESS),
        "response" => Some(RESPONSE),
        _ => None,
    }
}

fn check_field(reader: &mut Reader<'_>, place: Place, root: &str, field: Option<&str>, known: &[&str]) {
    match field {
        Some(field) if known.contains(&field) => {}
        Some(field) => {
            suggest(reader.problem(place, format!("`{root}` has no `{field}`")), field, known.iter().copied())
        }
        None => {
            reader.problem(place, format!("`{root}` must be followed by a field")).expected = Some(known.join(", "))
        }
    }
}

fn suggest<'k>(problem: &mut Problem, word: &str, known: impl Iterator<Item = &'k str> + Clone) {
    // A step whose id cannot be read has none.
    let known = known.filter(|name| !name.is_empty());
    let names: Vec<&str> = known.clone().collect();
    problem.expected =
        Some(if names.is_empty() { "no step: there is none before this one".to_owned() } else { names.join(", ") });
    problem.hint = nearest(word, known).map(|name| format!("did you mean `{name}`?"));
}
