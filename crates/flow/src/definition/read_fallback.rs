//! From the `fallback` of a step to the way on for its job.

use super::key;
use super::node::{Content, Node};
use super::read_value::template;
use super::reader::{Fields, Reader};
use super::step::Fallback;
use super::visible::{Earlier, Visible};

/// `of`: the entries of the step.
pub(super) fn fallback(
    reader: &mut Reader<'_>,
    node: &Node,
    of: &Fields<'_>,
    visible: &Visible<'_>,
) -> Option<Fallback> {
    let fields = reader.fields(node, "`fallback`", key::FALLBACK)?;
    match (fields.get("value"), fields.get("step")) {
        (Some(value), None) => {
            if of.get("compensate").is_some() {
                // The undo would take the value for what the call has returned.
                let problem =
                    reader.problem(fields.place_of("value"), "a step with `compensate` has no value to fall back on");
                problem.hint = Some("fall back on a later step: `fallback: { step: ... }`".to_owned());
            }
            template(reader, value, visible).map(Fallback::Value)
        }
        (None, Some(step)) => reader.text(step, "`step`").map(|step| Fallback::Step(step.to_owned())),
        (Some(_), Some(_)) => {
            reader.problem(fields.place_of("step"), "a `fallback` is either a `value` or a `step`");
            None
        }
        (None, None) => {
            reader.missing(node.place, "`fallback`", "value");
            None
        }
    }
}

/// Reports fallbacks on steps that do not come later.
pub(super) fn check_targets(reader: &mut Reader<'_>, items: &[Node], known: &[Earlier]) {
    for (index, item) in items.iter().enumerate() {
        let Some(node) = find(item, "fallback").and_then(|node| find(node, "step")) else { continue };
        let Content::Text(text) = &node.content else { continue };
        let later = || known.iter().skip(index + 1).map(|step| step.id.as_str()).filter(|id| !id.is_empty());
        if later().any(|id| id == text) {
            continue;
        }
        let problem = reader.problem(node.place, format!("`fallback`: there is no later step `{text}`"));
        problem.expected = Some(later().collect::<Vec<_>>().join(", "));
        problem.hint = crate::nearest::nearest(text, later()).map(|name| format!("did you mean `{name}`?"));
    }
}

fn find<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.content {
        Content::Map(entries) => entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node),
        _ => None,
    }
}
