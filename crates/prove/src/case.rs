//! Test cases of a flow, as a file beside it has them.

use flow::decide::{Effect, HttpAnswer, Outcome, Said, StepError, code};
use flow::definition::{Content, Fields, HEADERS_READ, Node, Place, Problem, Reader, limit, read_yaml};
use flow::view::JobView;
use serde_json::Value;

use crate::flow_file::FlowFile;

mod comes;
mod expected;

use comes::{callback, resumes, signals};
use expected::expected;

/// Words of an outcome without an answer.
const WORDS: [&str; 6] = ["succeeds", "fails", "may-be-retried", "no-answer", "connection-lost", "no-connection"];
/// Statuses of a job at its end, or at rest.
const STATUSES: [&str; 4] = ["succeeded", "failed", "cancelled", "needs_attention"];
const UNDO: &str = "undo ";

/// The cases of one file.
#[derive(Debug)]
pub struct CaseFile {
    /// The file's name, as it was given.
    pub name: String,
    /// The cases.
    pub cases: Vec<Case>,
    /// Values of `env` in all of them.
    pub(crate) env: Vec<(String, String)>,
}

/// One case.
#[derive(Debug)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// The line of its name, from 1.
    pub line: u32,
    pub(crate) input: Value,
    /// By step and direction, in the order of attempts; the last one counts for all that follow.
    pub(crate) outcomes: Vec<(CallName, Vec<Given>)>,
    /// The step before which somebody cancels the job.
    pub(crate) cancel_before: Option<String>,
    /// What is sent to the job, in order.
    pub(crate) signals: Vec<GivenSignal>,
    /// What an operator says each time that it is parked; none: send it on.
    pub(crate) resumes: Vec<Option<Said>>,
    pub(crate) expected: Expected,
}

/// A signal of a case.
#[derive(Debug)]
pub(crate) struct GivenSignal {
    pub(crate) name: String,
    /// The time at which it comes, after the acceptance.
    pub(crate) at_ms: u64,
    pub(crate) payload: Value,
}

/// A step, and the direction in which it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallName {
    pub(crate) step: String,
    pub(crate) is_undo: bool,
}

/// The outcome that a case gives to one attempt.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) answer: Answer,
    /// The time that it takes; without it nothing, or all the time that the call has where none answers.
    pub(crate) after_ms: Option<u64>,
}

/// What a worker meets.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Http(HttpAnswer),
    Native(Outcome),
}

/// The expectations of a case. What it does not say is not compared.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub(crate) status: Option<(String, Place)>,
    pub(crate) result: Option<(Value, Place)>,
    pub(crate) answer: Option<(Value, Place)>,
    pub(crate) error: Option<(Value, Place)>,
    pub(crate) calls: Option<(Vec<ExpectedCall>, Place)>,
    pub(crate) compensated: Option<(Vec<String>, Place)>,
}

/// A call that is expected: its name, and the parts of its request that matter.
#[derive(Debug)]
pub(crate) struct ExpectedCall {
    pub(crate) name: CallName,
    pub(crate) parts: Vec<(String, Value, Place)>,
}

/// What happened in a case.
pub(crate) struct Run {
    pub(crate) view: Option<JobView>,
    pub(crate) calls: Vec<(CallName, Value)>,
    /// The reason for which the run stopped before its end.
    pub(crate) stopped: Option<String>,
}

impl std::fmt::Display for CallName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.is_undo { UNDO } else { "" }, self.step)
    }
}

/// Reads the cases of a flow.
///
/// # Errors
/// Everything that is wrong with the file, with its places.
pub fn read_cases(name: &str, text: &str, flow: &FlowFile) -> Result<CaseFile, Vec<Problem>> {
    let (mut reader, root) = read_yaml(name, text)?;
    let Some(fields) = reader.fields(&root, "the file", &["flow", "env", "cases"]) else { return Err(reader.finish()) };
    if let Some(node) = fields.get("flow") {
        reader.word(node, "`flow`", &[flow.definition.name()]);
    }
    let env = fields.get("env").map(|node| env(&mut reader, node)).unwrap_or_default();
    let mut cases = Vec::new();
    match fields.get("cases") {
        Some(node) => {
            for item in reader.list(node, "`cases`").unwrap_or_default() {
                cases.extend(case(&mut reader, item, flow));
            }
        }
        None => reader.missing(fields.place, "the file", "cases"),
    }
    if !reader.is_clean() {
        return Err(reader.finish());
    }
    Ok(CaseFile { name: name.to_owned(), cases, env })
}

fn env(reader: &mut Reader<'_>, node: &Node) -> Vec<(String, String)> {
    let entries = reader.map(node, "`env`").unwrap_or_default();
    let entry = |(key, node): &(flow::definition::Key, Node)| {
        Some((key.text.clone(), reader.text(node, "a variable")?.to_owned()))
    };
    entries.iter().filter_map(entry).collect()
}

fn case(reader: &mut Reader<'_>, node: &Node, flow: &FlowFile) -> Option<Case> {
    let fields = reader.fields(node, "a case", &["case", "given", "expect"])?;
    let (name, line) = match fields.get("case") {
        Some(node) => (reader.text(node, "`case`")?.to_owned(), node.place.line),
        None => {
            reader.missing(fields.place, "a case", "case");
            return None;
        }
    };
    let expected = match fields.get("expect") {
        Some(node) => expected(reader, node, flow)?,
        None => {
            reader.missing(fields.place, "a case", "expect");
            return None;
        }
    };
    let mut case = Case {
        name,
        line,
        input: flow.definition.scheduled_input().unwrap_or_else(|| serde_json::json!({})),
        outcomes: Vec::new(),
        cancel_before: None,
        signals: Vec::new(),
        resumes: Vec::new(),
        expected,
    };
    if let Some(node) = fields.get("given") {
        given(reader, node, flow, &mut case)?;
    }
    Some(case)
}

fn given(reader: &mut Reader<'_>, node: &Node, flow: &FlowFile, case: &mut Case) -> Option<()> {
    let fields = reader.fields(
        node,
        "`given`",
        &["input", "steps", "undo", "signals", "callbacks", "cancel_before", "resumes"],
    )?;
    if let Some(node) = fields.get("signals") {
        case.signals = signals(reader, node, flow);
    }
    if let Some(node) = fields.get("callbacks") {
        let items = reader.list(node, "`callbacks`").unwrap_or_default();
        case.signals.extend(items.iter().filter_map(|item| callback(reader, item, flow)));
    }
    if let Some(node) = fields.get("input") {
        case.input = node.to_json();
        let errors = flow.definition.validate_input(&case.input);
        for error in errors {
            let at = if error.pointer.is_empty() { "`input`".to_owned() } else { format!("`{}`", error.pointer) };
            reader.problem(node.place, format!("the flow refuses this input: {at}: {}", error.detail));
        }
    }
    for (key, is_undo) in [("steps", false), ("undo", true)] {
        let Some(node) = fields.get(key) else { continue };
        for (name, node) in reader.map(node, &format!("`{key}`")).unwrap_or_default() {
            let name = CallName { step: step_name(reader, name.place, &name.text, flow)?, is_undo };
            let given = outcomes(reader, node, flow, &name);
            case.outcomes.push((name, given));
        }
    }
    case.cancel_before = fields.get("cancel_before").and_then(|node| {
        let text = reader.text(node, "`cancel_before`")?;
        step_name(reader, node.place, text, flow)
    });
    case.resumes = fields.get("resumes").map(|node| resumes(reader, node)).unwrap_or_default();
    Some(())
}

fn step_name(reader: &mut Reader<'_>, place: Place, text: &str, flow: &FlowFile) -> Option<String> {
    let known: Vec<&str> = flow.definition.steps().iter().map(|step| step.id.as_str()).collect();
    let node = Node { place, bytes: 0..0, content: Content::Text(text.to_owned()) };
    reader.word(&node, "a step", &known).map(str::to_owned)
}

fn outcomes(reader: &mut Reader<'_>, node: &Node, flow: &FlowFile, name: &CallName) -> Vec<Given> {
    match &node.content {
        Content::List(items) => items.iter().filter_map(|item| outcome(reader, item, flow, name)).collect(),
        _ => outcome(reader, node, flow, name).into_iter().collect(),
    }
}

/// A status, a word, or a mapping with the details of an answer.
fn outcome(reader: &mut Reader<'_>, node: &Node, flow: &FlowFile, name: &CallName) -> Option<Given> {
    let is_native = flow.definition.step(&name.step)?.natives().next().is_some();
    match &node.content {
        Content::Number(_) => {
            let status = status(reader, node)?;
            Some(Given { answer: Answer::Http(response(status, None, &Value::Null)), after_ms: None })
        }
        Content::Text(_) => {
            let word = reader.word(node, "an outcome", &WORDS)?;
            Some(Given { answer: by_word(word, is_native, Value::Null), after_ms: None })
        }
        _ => {
            let keys = ["status", "headers", "body", "output", "outcome", "retry_after", "after"];
            let fields = reader.fields(node, "an outcome", &keys)?;
            let after_ms = duration(reader, &fields, "after");
            let retry_after_ms = duration(reader, &fields, "retry_after");
            let output = fields.get("output").or_else(|| fields.get("body")).map_or(Value::Null, Node::to_json);
            let of_answer = fields.get("headers").map(|node| headers(reader, node, flow, name)).unwrap_or_default();
            let answer = match (fields.get("status"), fields.get("outcome")) {
                (Some(node), _) => {
                    let mut answer = response(status(reader, node)?, retry_after_ms, &output);
                    if let HttpAnswer::Response { headers, .. } = &mut answer {
                        *headers = of_answer;
                    }
                    Answer::Http(answer)
                }
                (None, Some(node)) => by_word(reader.word(node, "`outcome`", &WORDS)?, is_native, output),
                (None, None) => by_word("succeeds", is_native, output),
            };
            Some(Given { answer, after_ms })
        }
    }
}

fn duration(reader: &mut Reader<'_>, fields: &Fields<'_>, key: &str) -> Option<u64> {
    reader.duration_ms(fields.get(key)?, &format!("`{key}`"), 1..=limit::DEADLINE_MS_MAX)
}

fn status(reader: &mut Reader<'_>, node: &Node) -> Option<u16> {
    reader.whole_number(node, "a status", 200..=599).and_then(|status| u16::try_from(status).ok())
}

/// Those headers of an answer that a flow can read.
fn headers(reader: &mut Reader<'_>, node: &Node, flow: &FlowFile, name: &CallName) -> Vec<(String, String)> {
    let http = flow.definition.step(&name.step).and_then(|step| step.http());
    let kept = http.into_iter().flat_map(|http| &http.keep_headers).map(String::as_str);
    let mut known: Vec<&str> = HEADERS_READ.into_iter().map(|(_, name)| name).chain(kept).collect();
    known.sort_unstable();
    known.dedup();
    let Some(fields) = reader.fields(node, "`headers`", &known) else { return Vec::new() };
    let value = |name: &str| Some((name.to_owned(), reader.text(fields.get(name)?, "a header")?.to_owned()));
    known.into_iter().filter_map(value).collect()
}

fn response(status: u16, retry_after_ms: Option<u64>, body: &Value) -> HttpAnswer {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let retry_after = retry_after_ms.map(|ms| ms.div_ceil(1000).to_string());
    let content_type = Some("application/json".to_owned());
    HttpAnswer::Response { status, retry_after, content_type, headers: Vec::new(), body }
}

fn by_word(word: &str, is_native: bool, output: Value) -> Answer {
    if !is_native {
        return Answer::Http(match word {
            "fails" => response(400, None, &output),
            "may-be-retried" => response(503, None, &output),
            "no-answer" => HttpAnswer::TimedOut,
            "connection-lost" => HttpAnswer::ConnectionLost("it was closed".to_owned()),
            "no-connection" => HttpAnswer::ConnectFailed("it was refused".to_owned()),
            _ => response(200, None, &output),
        });
    }
    let failed = |retryable: bool, effect: Effect| {
        let code = if word == "no-answer" { code::TIMED_OUT } else { code::STEP_FAILED };
        let error = StepError { code: code.to_owned(), message: word.to_owned(), status: None };
        Outcome::Failed { error, retryable, effect, retry_after_ms: None }
    };
    Answer::Native(match word {
        "fails" => failed(false, Effect::Refused),
        "may-be-retried" | "no-connection" => failed(true, Effect::Unsent),
        "no-answer" | "connection-lost" => failed(true, Effect::Unknown),
        _ => Outcome::done(output),
    })
}
