//! The answer to a caller who waits, as a flow forms it: `respond`.

use serde_json::Value;

use super::key;
use super::limit::{RESPOND_HEADERS_MAX, RESPOND_STATUSES};
use super::node::{Content, Node};
use super::read_value::{headers, template};
use super::reader::Reader;
use super::visible::Visible;
use crate::expression::Template;

/// Statuses without a body (RFC 9110 sections 15.3.5 and 15.3.6).
pub(crate) const BODILESS: [u16; 2] = [204, 205];
/// Statuses that answer a condition or a range, which the caller of a job has not sent.
const CONDITIONAL: [u16; 2] = [206, 304];

/// The answer of a job that succeeds. What it does not say follows from the result.
pub(crate) struct Respond {
    /// Gives a whole number; none: 200.
    pub(crate) status: Option<Template>,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, Template)>,
    pub(crate) body: Option<Template>,
}

/// The status that a value is, or the reason for which it is none that a flow can answer with.
pub(crate) fn status_of(value: &Value) -> Result<u16, String> {
    let status = value.as_u64().and_then(|status| u16::try_from(status).ok());
    match status.filter(|status| RESPOND_STATUSES.contains(status)) {
        Some(status) if CONDITIONAL.contains(&status) => {
            Err(format!("{status} answers a condition or a range, which is no matter of the flow"))
        }
        Some(status) => Ok(status),
        None => {
            let (first, last) = (RESPOND_STATUSES.start(), RESPOND_STATUSES.end());
            Err(format!("{value} is no whole number from {first} to {last}"))
        }
    }
}

pub(super) fn respond(reader: &mut Reader<'_>, node: &Node, visible: &Visible<'_>) -> Option<Respond> {
    let fields = reader.fields(node, "`respond`", key::RESPOND)?;
    let status = fields.get("status").and_then(|node| status(reader, node, visible));
    let named = fields.get("headers");
    let headers = named.map(|node| headers(reader, node, visible, key::ANSWER_HEADERS_RESERVED)).unwrap_or_default();
    if let Some(node) = named.filter(|_| headers.len() > RESPOND_HEADERS_MAX) {
        reader.problem(node.place, format!("`respond` has {} headers", headers.len())).expected =
            Some(format!("at most {RESPOND_HEADERS_MAX}"));
    }
    let body = fields.get("body").and_then(|node| template(reader, node, visible));
    if let (Some(Template::Literal(code)), Some(_)) = (&status, &body)
        && BODILESS.iter().any(|bodiless| code.as_u64() == Some(u64::from(*bodiless)))
    {
        reader.problem(fields.place_of("body"), format!("an answer with the status {code} has no body"));
    }
    Some(Respond { status, headers, body })
}

fn status(reader: &mut Reader<'_>, node: &Node, visible: &Visible<'_>) -> Option<Template> {
    let template = template(reader, node, visible)?;
    let expected = "a status from 200 to 599, or exactly one `{{ }}` that gives one";
    match (&node.content, &template) {
        (Content::Number(_), Template::Literal(value)) => {
            if let Err(reason) = status_of(value) {
                reader.problem(node.place, format!("`status`: {reason}")).expected = Some(expected.to_owned());
                return None;
            }
        }
        (_, Template::Expression(_)) => {}
        _ => {
            reader.problem(node.place, "`status` is neither a number nor an expression").expected =
                Some(expected.to_owned());
            return None;
        }
    }
    Some(template)
}
