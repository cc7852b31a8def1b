//! What comes to the job of a case from outside: signals, callbacks, and an operator's words.

use flow::decide::Said;
use flow::definition::{Content, Node, Reader, limit};
use serde_json::Value;

use super::GivenSignal;
use crate::flow_file::FlowFile;

/// The words of an operator.
const SAID: [&str; 4] = ["again", "succeeded", "failed", "undone"];
/// The most times that an operator sends a job on.
const RESUMES_MAX: u64 = 100;

/// How many times an operator sends the job on, or a list of what is said each time.
pub(super) fn resumes(reader: &mut Reader<'_>, node: &Node) -> Vec<Option<Said>> {
    match &node.content {
        Content::List(items) => items.iter().filter_map(|item| said(reader, item)).collect(),
        _ => {
            let times = reader.whole_number(node, "`resumes`", 0..=RESUMES_MAX).unwrap_or_default();
            (0..times).map(|_| None).collect()
        }
    }
}

/// `again`, `failed`, or a mapping that says more.
fn said(reader: &mut Reader<'_>, node: &Node) -> Option<Option<Said>> {
    let Content::Map(_) = node.content else {
        let word = reader.word(node, "an operator's word", &SAID)?.to_owned();
        return Some(by_word(&word, Value::Null, String::new()));
    };
    let fields = reader.fields(node, "an operator's word", &["outcome", "output", "reason"])?;
    let Some(named) = fields.get("outcome") else {
        reader.missing(fields.place, "an operator's word", "outcome");
        return None;
    };
    let word = reader.word(named, "`outcome`", &SAID)?.to_owned();
    let output = fields.get("output").map_or(Value::Null, Node::to_json);
    let reason = fields.get("reason").and_then(|node| reader.text(node, "`reason`")).unwrap_or_default().to_owned();
    Some(by_word(&word, output, reason))
}

fn by_word(word: &str, output: Value, reason: String) -> Option<Said> {
    match word {
        "succeeded" => Some(Said::Succeeded(output)),
        "failed" => Some(Said::Failed),
        "undone" => Some(Said::Undone(reason)),
        _ => None,
    }
}

pub(super) fn signals(reader: &mut Reader<'_>, node: &Node, flow: &FlowFile) -> Vec<GivenSignal> {
    let items = reader.list(node, "`signals`").unwrap_or_default();
    items.iter().filter_map(|item| signal(reader, item, flow)).collect()
}

fn signal(reader: &mut Reader<'_>, node: &Node, flow: &FlowFile) -> Option<GivenSignal> {
    let fields = reader.fields(node, "a signal", &["signal", "at", "payload"])?;
    let waits: Vec<_> = flow.definition.steps().iter().filter_map(|step| step.wait()).collect();
    let known: Vec<&str> = waits.iter().map(|wait| wait.signal.as_str()).collect();
    let Some(named) = fields.get("signal") else {
        reader.missing(fields.place, "a signal", "signal");
        return None;
    };
    let name = reader.word(named, "`signal`", &known)?.to_owned();
    let payload = fields.get("payload").map_or(Value::Null, Node::to_json);
    let place = fields.get("payload").map_or(named.place, |node| node.place);
    let of_name = waits.iter().filter(|wait| wait.signal == name);
    let errors = of_name.map(|wait| wait.validate(&payload)).min_by_key(Vec::len).unwrap_or_default();
    for error in errors {
        reader.problem(place, format!("the flow refuses this payload: `{}`: {}", error.pointer, error.detail));
    }
    let at_ms = fields.get("at").and_then(|node| reader.duration_ms(node, "`at`", 0..=limit::DEADLINE_MS_MAX));
    Some(GivenSignal { name, at_ms: at_ms.unwrap_or_default(), payload })
}

/// A callback, as the signal that it is.
pub(super) fn callback(reader: &mut Reader<'_>, node: &Node, flow: &FlowFile) -> Option<GivenSignal> {
    let fields = reader.fields(node, "a callback", &["step", "at", "outcome", "body", "problem"])?;
    let calling = flow.definition.steps().iter().filter(|step| step.callback().is_some());
    let known: Vec<&str> = calling.map(|step| step.id.as_str()).collect();
    let Some(named) = fields.get("step") else {
        reader.missing(fields.place, "a callback", "step");
        return None;
    };
    let step = reader.word(named, "`step`", &known)?;
    let outcome = fields.get("outcome").and_then(|node| reader.word(node, "`outcome`", &["done", "failed", "retry"]));
    let member = |name: &str| fields.get(name).map_or(Value::Null, Node::to_json);
    let (body, problem) = (member("body"), member("problem"));
    let payload = serde_json::json!({ "outcome": outcome.unwrap_or("done"), "body": body, "problem": problem });
    let at_ms = fields.get("at").and_then(|node| reader.duration_ms(node, "`at`", 0..=limit::DEADLINE_MS_MAX));
    Some(GivenSignal { name: format!("callback:{step}"), at_ms: at_ms.unwrap_or_default(), payload })
}
