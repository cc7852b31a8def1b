//! From a `verify` in a document to the question whether a step was done.

use super::key;
use super::limit::{TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX};
use super::node::Node;
use super::read_retry::retry;
use super::read_value::{headers, required, statuses, template, url};
use super::reader::{Fields, Reader};
use super::visible::{self, Visible};
use super::{Http, Retry, Verify};
use crate::expression::Template;

/// `fields`: those of the step. `sent`: the names that its requests may use.
pub(super) fn verify(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    idempotent: bool,
    sent: &Visible<'_>,
) -> Option<Verify> {
    let node = fields.get("verify")?;
    if idempotent {
        reader.problem(fields.place_of("verify"), "`verify` of a step that may be repeated: nobody asks").hint =
            Some("`idempotent: false` beside it, or neither".to_owned());
    }
    let fields = reader.fields(node, "`verify`", key::VERIFY)?;
    let asks = Visible { roots: visible::CALL, ..*sent };
    let http = required(reader, &fields, "`verify`", "http").and_then(|node| http(reader, node, &asks));
    let decides = Visible { roots: visible::ANSWER, ..*sent };
    let done_when = required(reader, &fields, "`verify`", "done_when")
        .and_then(|node| condition(reader, node, "`done_when`", &decides));
    let timeout = fields.get("timeout");
    let timeout_ms = timeout.and_then(|node| reader.duration_ms(node, "`timeout`", 1..=TIMEOUT_MS_MAX));
    let retry = fields.get("retry").and_then(|node| retry(reader, node, Retry::UNDO_DEFAULT));
    Some(Verify {
        http: http?,
        done_when: done_when?,
        timeout_ms: timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT),
        retry: retry.unwrap_or(Retry::UNDO_DEFAULT),
    })
}

fn http(reader: &mut Reader<'_>, node: &Node, visible: &Visible<'_>) -> Option<Http> {
    let fields = reader.fields(node, "`http`", key::VERIFY_HTTP)?;
    let method = fields.get("method").map_or(Some("GET"), |node| reader.word(node, "`method`", key::VERIFY_METHODS));
    let url = required(reader, &fields, "`http`", "url").and_then(|node| url(reader, node, visible));
    let headers =
        fields.get("headers").map(|node| headers(reader, node, visible, key::HEADERS_RESERVED)).unwrap_or_default();
    let retry_on = fields.get("retry_on").map(|node| statuses(reader, node, "`retry_on`")).unwrap_or_default();
    let (method, url) = (method?.to_owned(), url?);
    let (body, tells_progress) = (None, false);
    Some(Http {
        method,
        url,
        headers,
        body,
        auth: None,
        tells_progress,
        fail_on: Vec::new(),
        retry_on,
        expose: false,
        keep_headers: Vec::new(),
    })
}

/// A template that is exactly one expression.
fn condition(reader: &mut Reader<'_>, node: &Node, what: &str, visible: &Visible<'_>) -> Option<Template> {
    let template = template(reader, node, visible)?;
    if matches!(template, Template::Expression(_)) {
        return Some(template);
    }
    reader.problem(node.place, format!("{what} is not an expression")).expected =
        Some("exactly one `{{ }}` that gives true, false, or none where it is not known yet".to_owned());
    None
}
