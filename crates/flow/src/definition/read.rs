//! From a document to a compiled flow.

use serde_json::Value;

use super::kept::Kept;
use super::node::Node;
use super::read_value::{required, template, text_template};
use super::reader::{Fields, Reader};
use super::visible::{self, Visible};
use super::{
    Compiled, OnFailure, Priority, ResolveRef, Terms, input, key, limit, read_rest, read_route, read_step,
    read_trigger, respond, upload,
};

/// Reads the whole document; none when something is wrong with it.
pub(super) fn flow(reader: &mut Reader<'_>, root: &Node, resolve_ref: &mut ResolveRef<'_>) -> Option<Compiled> {
    let fields = reader.fields(root, "the flow", key::FLOW)?;
    let name = required(reader, &fields, "the flow", "flow").and_then(|node| reader.name(node, "`flow`", true));
    let summary = fields.get("summary").and_then(|node| summary(reader, node));
    let routed = fields.get("route").and_then(|node| read_route::routed(reader, node));
    let route_place = fields.get("route").map(|node| node.place).unwrap_or_default();
    let input = fields.get("input").and_then(|node| input::read(reader, node, resolve_ref));
    let upload = upload::read(reader, &fields);
    let trigger = read_trigger::trigger(reader, &fields, input.as_ref());
    let key_visible = Visible { roots: visible::KEY, steps: &[], own: None, when: None };
    let key = fields.get("key").and_then(|node| text_template(reader, node, "`key`", &key_visible));
    let deadline_ms =
        fields.get("deadline").and_then(|node| reader.duration_ms(node, "`deadline`", 1..=limit::DEADLINE_MS_MAX));
    let on_failure =
        fields.get("on_failure").and_then(|node| reader.word(node, "`on_failure`", &["compensate", "park"]));
    let words = Priority::ALL.map(Priority::as_str);
    let priority = fields.get("priority").and_then(|node| reader.word(node, "`priority`", &words));
    let sandbox = sandbox(reader, &fields);
    let mut steps = match required(reader, &fields, "the flow", "steps") {
        Some(node) => read_step::steps(reader, node, sandbox),
        None => Vec::new(),
    };
    let known = read_rest::known_at_end(&steps);
    let result_visible = Visible { roots: visible::DECISION, steps: &known, own: None, when: None };
    let result = fields.get("result").and_then(|node| template(reader, node, &result_visible));
    let kept = Kept::read(reader, &fields);
    let respond = fields.get("respond").and_then(|node| respond::respond(reader, node, &result_visible));
    for step in &mut steps {
        step.answer_is_read = reader.reads_answer_of(&step.id);
    }
    if !reader.is_clean() {
        return None;
    }
    let mut document = root.to_json();
    if let (Some(entries), Some(input)) = (document.as_object_mut(), &input) {
        entries.insert("input".to_owned(), input.schema.clone());
    }
    let version = super::version::of(&document);
    let on_failure = if on_failure == Some("park") { OnFailure::Park } else { OnFailure::Compensate };
    let (route, terms, upstream) = match routed {
        Some(routed) => (Some(routed.route), routed.terms, routed.upstream),
        None => (None, Terms::default(), None),
    };
    let priority = Priority::ALL.into_iter().find(|one| priority == Some(one.as_str())).unwrap_or_default();
    Some(Compiled {
        name: name?,
        summary,
        route,
        route_place,
        terms,
        upstream,
        input,
        upload,
        trigger,
        key,
        deadline_ms,
        on_failure,
        priority,
        sandbox,
        steps,
        result,
        kept,
        respond,
        document,
        version,
        hints: reader.take_hints(),
    })
}

fn sandbox(reader: &mut Reader<'_>, fields: &Fields<'_>) -> bool {
    let sandbox = fields.get("sandbox").and_then(|node| reader.bool(node, "`sandbox`")).unwrap_or(false);
    if sandbox {
        let message = "this flow is a sandbox: none of its calls is made, each is answered by its `simulate`";
        reader.hint(fields.place_of("sandbox"), message, "take `sandbox` out once its services are there");
    }
    sandbox
}

fn summary(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node, "`summary`")?;
    if text.len() > limit::SUMMARY_BYTES_MAX {
        reader.problem(node.place, format!("`summary` is longer than {} bytes", limit::SUMMARY_BYTES_MAX));
    }
    Some(text.to_owned())
}

/// Only for documents: their schemas are inlined already.
pub(super) fn no_references(name: &str) -> Result<Value, String> {
    Err(format!("`{name}` must be inlined in a flow document"))
}
