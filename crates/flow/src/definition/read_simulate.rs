//! From the `simulate` of a call in a document to its [`Simulate`].

use serde_json::Value;

use super::limit::SIMULATED_FAILURES_MAX;
use super::node::{Content, Node};
use super::read_value::{statuses_range, template, text_template};
use super::reader::{Fields, Reader};
use super::simulate::{Fail, FailKind, LATENCY_EXPECTED, Simulate, parse_latency};
use super::visible::{self, Visible};
use super::{Step, StepKind, key};
use crate::expression::Template;

/// `of`: the entries of the step, or of its `compensate`.
pub(super) fn simulate(reader: &mut Reader<'_>, of: &Fields<'_>, visible: &Visible<'_>) -> Option<Simulate> {
    let fields = reader.fields(of.get("simulate")?, "`simulate`", key::SIMULATE)?;
    let seen = Visible { roots: visible::SIMULATED, ..*visible };
    let latency = match fields.get("latency") {
        Some(node) => latency(reader, node, &seen)?,
        None => Template::Literal("0s".into()),
    };
    let output = match fields.get("output") {
        Some(node) => template(reader, node, &seen)?,
        None => Template::Literal(Value::Null),
    };
    let failures = fields.get("fail").and_then(|node| {
        let items = reader.list(node, "`fail`")?;
        if items.len() > SIMULATED_FAILURES_MAX {
            reader.problem(node.place, format!("`fail` has {} entries", items.len())).expected =
                Some(format!("at most {SIMULATED_FAILURES_MAX}"));
        }
        Some(items)
    });
    let fail = failures.unwrap_or_default().iter().filter_map(|item| fail(reader, item, &seen)).collect();
    Some(Simulate { latency, output, fail })
}

fn latency(reader: &mut Reader<'_>, node: &Node, visible: &Visible<'_>) -> Option<Template> {
    let template = text_template(reader, node, "`latency`", visible)?;
    if let Template::Literal(Value::String(text)) = &template
        && parse_latency(text).is_none()
    {
        reader.problem(node.place, format!("`latency` cannot be `{text}`")).expected =
            Some(LATENCY_EXPECTED.to_owned());
    }
    Some(template)
}

fn fail(reader: &mut Reader<'_>, node: &Node, visible: &Visible<'_>) -> Option<Fail> {
    let fields = reader.fields(node, "an entry of `fail`", key::FAIL)?;
    let when = fields.get("when").and_then(|node| {
        let when = template(reader, node, visible)?;
        if !matches!(when, Template::Expression(_)) {
            reader.problem(node.place, "`when` is not an expression").expected =
                Some("exactly one `{{ }}` that gives true or false".to_owned());
        }
        Some(when)
    });
    let percent = fields.get("percent").and_then(|node| reader.whole_number(node, "`percent`", 1..=100));
    let detail = fields.get("detail").and_then(|node| text_template(reader, node, "`detail`", visible));
    let kind = match (fields.get("status"), fields.get("error")) {
        (Some(node), None) => {
            let status = reader.whole_number(node, "`status`", statuses_range())?;
            FailKind::Status(u16::try_from(status).ok()?)
        }
        (None, Some(node)) => match reader.word(node, "`error`", key::FAIL_ERRORS)? {
            key::CONNECTION_LOST => FailKind::ConnectionLost,
            key::NO_CONNECTION => FailKind::NoConnection,
            _ => FailKind::NoAnswer,
        },
        (Some(_), Some(_)) => {
            reader.problem(fields.place_of("error"), "a failure is either a `status` or an `error`");
            return None;
        }
        (None, None) => {
            reader.missing(node.place, "an entry of `fail`", "status");
            return None;
        }
    };
    Some(Fail { when, percent: percent.unwrap_or(100), kind, detail })
}

/// A sandbox calls nothing, so each of its calls needs an answer. It accepts no work either: nobody would tell of its
/// end.
pub(super) fn in_sandbox(reader: &mut Reader<'_>, items: &[Node], steps: &mut [Step]) {
    for step in steps {
        let StepKind::Call { action, completion, .. } = &mut step.kind else { continue };
        *completion = None;
        if action.simulate.is_some() {
            continue;
        }
        let is_its = |item: &&Node| text_of(item, "id") == Some(&step.id) && entry(item, "simulate").is_none();
        let Some(item) = items.iter().find(is_its) else { continue };
        let problem = reader.problem(item.place, format!("`{}` has no `simulate`: a sandbox calls nothing", step.id));
        problem.expected = Some("`simulate: { output: ... }`".to_owned());
        problem.hint = Some("or the flow without `sandbox: true`".to_owned());
    }
}

fn entry<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.content {
        Content::Map(entries) => entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node),
        _ => None,
    }
}

fn text_of<'n>(node: &'n Node, name: &str) -> Option<&'n String> {
    match &entry(node, name)?.content {
        Content::Text(text) => Some(text),
        _ => None,
    }
}
