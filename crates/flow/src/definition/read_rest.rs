//! From a `sleep` or a `wait` in a document to the kind of its step.

use serde_json::Value;

use super::limit::{APPROVERS_MAX, DEADLINE_MS_MAX};
use super::node::{Content, Node, Place};
use super::read_value::{required, text_template};
use super::reader::{Fields, Reader};
use super::rest::Until;
use super::visible::{Earlier, Visible};
use super::{Approve, OnTimeout, Sleep, Step, StepKind, Wait, duration, input, key};
use crate::expression::Template;
use crate::time::read_rfc3339;

/// True for a step that rests.
pub(super) fn is_rest(fields: &Fields<'_>) -> bool {
    fields.get("sleep").is_some() || fields.get("wait").is_some()
}

/// A `sleep` or a `wait`. `id`: its step's.
pub(super) fn kind(reader: &mut Reader<'_>, fields: &Fields<'_>, id: &str, visible: &Visible<'_>) -> Option<StepKind> {
    let (sleep, wait) = (fields.get("sleep"), fields.get("wait"));
    let word = if sleep.is_some() { "sleep" } else { "wait" };
    for other in ["http", "native", "wait"] {
        if other != word && fields.get(other).is_some() {
            reader.problem(fields.place_of(other), format!("a step cannot be both `{word}` and `{other}`"));
        }
    }
    for key in key::call_only() {
        if fields.get(key).is_some() {
            let problem = reader.problem(fields.place_of(key), format!("a `{word}` has no `{key}`: nothing is called"));
            problem.hint = match (word, key) {
                ("wait", "timeout") => Some("it stands inside `wait`".to_owned()),
                ("wait", "deadline") => {
                    Some("a `timeout` inside `wait` bounds it, and the flow's `deadline`".to_owned())
                }
                (_, "deadline" | "timeout") => Some("it ends by itself; the flow's `deadline` ends it, too".to_owned()),
                _ => None,
            };
        }
    }
    match (sleep, wait) {
        (Some(node), _) => self::sleep(reader, node, visible).map(StepKind::Sleep),
        (None, Some(node)) => self::wait(reader, node, id).map(|wait| StepKind::Wait(Box::new(wait))),
        (None, None) => None,
    }
}

fn sleep(reader: &mut Reader<'_>, node: &Node, visible: &Visible<'_>) -> Option<Sleep> {
    if let Content::Map(_) = node.content {
        let fields = reader.fields(node, "`sleep`", key::SLEEP)?;
        let node = required(reader, &fields, "`sleep`", "until")?;
        let until = text_template(reader, node, "`until`", visible)?;
        if let Template::Literal(Value::String(text)) = &until
            && read_rfc3339(text).is_none()
        {
            reader.problem(node.place, format!("`until`: `{text}` is not an instant")).expected =
                Some("RFC 3339: 2026-12-24T18:00:00Z, or an expression that gives it".to_owned());
        }
        return Some(Sleep(Until::At(until)));
    }
    let length = text_template(reader, node, "`sleep`", visible)?;
    if let Template::Literal(Value::String(text)) = &length {
        reader.checked_ms(node.place, text, "`sleep`", 0..=DEADLINE_MS_MAX)?;
    }
    Some(Sleep(Until::For(length)))
}

fn wait(reader: &mut Reader<'_>, node: &Node, id: &str) -> Option<Wait> {
    let fields = reader.fields(node, "`wait`", key::WAIT)?;
    let signal = required(reader, &fields, "`wait`", "signal").and_then(|node| reader.name(node, "`signal`", true));
    let mut schema = fields.get("schema").and_then(|node| input::read_in_place(reader, node, "`schema`"));
    let approve = fields.get("approve").and_then(|node| approve(reader, node));
    if let Some(approve) = &approve {
        if fields.get("schema").is_some() {
            reader.problem(fields.place_of("schema"), "an approval has a schema of its own").hint =
                Some("leave `schema` out: {decision: approved|rejected, by, comment}".to_owned());
        }
        schema = input::compile(reader, fields.place_of("approve"), "`approve`", approve.schema());
    }
    let timeout = fields.get("timeout");
    let timeout_ms = timeout.and_then(|node| reader.duration_ms(node, "`timeout`", 1..=DEADLINE_MS_MAX));
    let on_timeout = fields.get("on_timeout").and_then(|node| on_timeout(reader, node, id));
    if on_timeout.is_some() && timeout.is_none() {
        reader.problem(fields.place_of("on_timeout"), "`on_timeout` without `timeout`: the wait has no end").expected =
            Some(duration::EXPECTED.to_owned());
    }
    Some(Wait { signal: signal?, schema, approve, timeout_ms, on_timeout: on_timeout.unwrap_or(OnTimeout::Fail) })
}

fn approve(reader: &mut Reader<'_>, node: &Node) -> Option<Approve> {
    let fields = reader.fields(node, "`approve`", key::APPROVE)?;
    let Some(node) = fields.get("by") else { return Some(Approve { by: Vec::new() }) };
    let names = reader.list(node, "`by`")?;
    if names.is_empty() || names.len() > APPROVERS_MAX {
        reader.problem(node.place, format!("`by` names {} people", names.len())).expected =
            Some(format!("1 to {APPROVERS_MAX}; without `by` everybody may decide"));
    }
    let by = names.iter().filter_map(|name| reader.text(name, "a name in `by`").map(str::to_owned)).collect();
    Some(Approve { by })
}

/// `id`: that of the step that waits.
fn on_timeout(reader: &mut Reader<'_>, node: &Node, id: &str) -> Option<OnTimeout> {
    match reader.text(node, "`on_timeout`")? {
        "fail" => Some(OnTimeout::Fail),
        "continue" => Some(OnTimeout::Continue),
        own if own == id => {
            reader.problem(node.place, "`on_timeout` is the step itself: it would wait again and again").hint =
                Some("a longer `timeout`, or none".to_owned());
            None
        }
        step => Some(OnTimeout::Step(step.to_owned())),
    }
}

/// The steps that a wait in vain, or a fallback, jumps over, to the step with this id, may not have been run when that
/// begins.
pub(super) fn note_jumped_over(steps: &[Step], id: &str, earlier: &mut [Earlier]) {
    let jumps = |step: &&Step| step.jump() == Some(id);
    for from in steps.iter().filter(jumps) {
        for over in earlier.iter_mut().skip_while(|step| step.id != from.id) {
            over.jumped_over_by.get_or_insert_with(|| from.id.clone());
        }
    }
}

/// The steps as the result sees them.
pub(super) fn known_at_end(steps: &[Step]) -> Vec<Earlier> {
    let mut earlier = Vec::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        note_jumped_over(steps.get(..index).unwrap_or_default(), &step.id, &mut earlier);
        earlier.push(Earlier::of(step));
    }
    earlier
}

/// Reports jumps to steps that the flow does not have.
pub(super) fn check_targets(reader: &mut Reader<'_>, items: &[Node], known: &[Earlier]) {
    for item in items {
        let Some((text, place)) = jump(item) else { continue };
        if key::ON_TIMEOUT.contains(&text) || known.iter().any(|step| step.id == text) {
            continue;
        }
        let ids = || known.iter().map(|step| step.id.as_str()).filter(|id| !id.is_empty());
        let words = || key::ON_TIMEOUT.iter().copied().chain(ids());
        let problem = reader.problem(place, format!("`on_timeout`: there is no step `{text}`"));
        problem.expected = Some(words().collect::<Vec<_>>().join(", "));
        problem.hint = crate::nearest::nearest(text, words()).map(|name| format!("did you mean `{name}`?"));
    }
}

/// Reports waits for one signal that want different payloads: whoever sends it cannot know which of them it is for.
pub(super) fn check_signals(reader: &mut Reader<'_>, items: &[Node], steps: &[Step]) {
    let waits = || steps.iter().filter_map(|step| Some((step.id.as_str(), step.wait()?)));
    for (number, (id, wait)) in waits().enumerate() {
        let other = waits().take(number).find(|(_, earlier)| earlier.signal == wait.signal);
        let Some((earlier, _)) = other.filter(|(_, earlier)| earlier.schema() != wait.schema()) else { continue };
        let is_its = |item: &&Node| {
            find(item, "id").is_some_and(|node| matches!(&node.content, Content::Text(text) if text == id))
        };
        let Some(place) = items.iter().find(is_its).and_then(|item| find(item, "wait")).map(|node| node.place) else {
            continue;
        };
        let message = format!("step `{earlier}` waits for the signal `{}`, too, with another payload", wait.signal);
        reader.problem(place, message).hint =
            Some("another name for the signal, or the same `schema` or `approve` in both".to_owned());
    }
}

/// The text of a step's `on_timeout`.
fn jump(item: &Node) -> Option<(&str, Place)> {
    find(find(item, "wait")?, "on_timeout").and_then(|node| match &node.content {
        Content::Text(text) => Some((text.as_str(), node.place)),
        _ => None,
    })
}

fn find<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.content {
        Content::Map(entries) => entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node),
        _ => None,
    }
}
