//! The expectations of a case.

use flow::definition::{Content, Node, Reader};

use super::{CallName, Expected, ExpectedCall, STATUSES, UNDO, step_name};
use crate::flow_file::FlowFile;

pub(super) fn expected(reader: &mut Reader<'_>, node: &Node, flow: &FlowFile) -> Option<Expected> {
    let fields = reader.fields(node, "`expect`", &["status", "result", "answer", "error", "calls", "compensated"])?;
    let mut expected = Expected::default();
    if let Some(node) = fields.get("status") {
        expected.status = reader.word(node, "`status`", &STATUSES).map(|word| (word.to_owned(), node.place));
    }
    expected.result = fields.get("result").map(|node| (node.to_json(), node.place));
    if let Some(node) = fields.get("answer") {
        reader.fields(node, "`answer`", &["status", "headers", "body"])?;
        expected.answer = Some((node.to_json(), node.place));
    }
    if let Some(node) = fields.get("error") {
        reader.fields(node, "`error`", &["step", "code", "message", "status", "attempts"])?;
        expected.error = Some((node.to_json(), node.place));
    }
    if let Some(node) = fields.get("calls") {
        let items = reader.list(node, "`calls`")?;
        let calls: Option<Vec<_>> = items.iter().map(|item| expected_call(reader, item, flow)).collect();
        expected.calls = Some((calls?, node.place));
    }
    if let Some(node) = fields.get("compensated") {
        let mut steps = Vec::new();
        for item in reader.list(node, "`compensated`")? {
            let text = reader.text(item, "a step")?;
            steps.push(step_name(reader, item.place, text, flow)?);
        }
        expected.compensated = Some((steps, node.place));
    }
    Some(expected)
}

/// `reserve`, `undo reserve`, or a mapping with parts of the request.
fn expected_call(reader: &mut Reader<'_>, node: &Node, flow: &FlowFile) -> Option<ExpectedCall> {
    let keys = ["call", "method", "url", "headers", "body", "with", "key", "at"];
    let (text, parts, place) = match &node.content {
        Content::Map(entries) => {
            let fields = reader.fields(node, "a call", &keys)?;
            let Some(call) = fields.get("call") else {
                reader.missing(fields.place, "a call", "call");
                return None;
            };
            let part = |(key, node): &(flow::definition::Key, Node)| (key.text.clone(), node.to_json(), node.place);
            let parts = entries.iter().filter(|(key, _)| key.text != "call").map(part).collect();
            (reader.text(call, "`call`")?, parts, call.place)
        }
        _ => (reader.text(node, "a call")?, Vec::new(), node.place),
    };
    let (is_undo, step) = match text.strip_prefix(UNDO) {
        Some(step) => (true, step.trim()),
        None => (false, text),
    };
    let step = step_name(reader, place, step, flow)?;
    Some(ExpectedCall { name: CallName { step, is_undo }, parts })
}
