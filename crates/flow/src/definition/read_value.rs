//! Values that stand in several places of a document.

use std::ops::RangeInclusive;

use super::node::{Content, Node, Place};
use super::reader::{Fields, Reader};
use super::visible::Visible;
use crate::expression::{ExpressionError, Template, UrlTemplate};
use crate::media_type::is_token;

pub(super) fn required<'n>(reader: &mut Reader<'_>, fields: &Fields<'n>, what: &str, key: &str) -> Option<&'n Node> {
    let node = fields.get(key);
    if node.is_none() {
        reader.missing(fields.place, what, key);
    }
    node
}

/// Any JSON value in whose texts expressions may stand.
pub(super) fn template(reader: &mut Reader<'_>, node: &Node, visible: &Visible<'_>) -> Option<Template> {
    match &node.content {
        Content::Null | Content::Bool(_) | Content::Number(_) => Some(Template::Literal(node.to_json())),
        Content::Text(text) => {
            let template = report(reader, node.place, Template::text(text))?;
            for expression in template.expressions() {
                visible.check(reader, node.place, expression);
            }
            Some(template)
        }
        Content::List(items) => {
            let items: Vec<_> = items.iter().map(|item| template(reader, item, visible)).collect();
            items.into_iter().collect::<Option<Vec<_>>>().map(Template::List)
        }
        Content::Map(entries) => {
            let mut templates = Vec::with_capacity(entries.len());
            for (key, node) in entries {
                if key.text.contains("{{") {
                    reader.problem(key.place, "an expression cannot be a key").hint =
                        Some("a text that begins with `{{` needs quotes: \"{{ … }}\"".to_owned());
                }
                templates.push(template(reader, node, visible).map(|template| (key.text.clone(), template)));
            }
            templates.into_iter().collect::<Option<Vec<_>>>().map(Template::Map)
        }
    }
}

/// A template that must be written as a text.
pub(super) fn text_template(
    reader: &mut Reader<'_>,
    node: &Node,
    what: &str,
    visible: &Visible<'_>,
) -> Option<Template> {
    reader.text(node, what)?;
    template(reader, node, visible)
}

/// Reports an expression that does not compile.
pub(super) fn report<T>(reader: &mut Reader<'_>, place: Place, result: Result<T, ExpressionError>) -> Option<T> {
    result.map_err(|error| reader.problem(place, error.to_string())).ok()
}

/// The URL of a request.
pub(super) fn url(reader: &mut Reader<'_>, node: &Node, visible: &Visible<'_>) -> Option<UrlTemplate> {
    let text = reader.text(node, "`url`")?;
    match UrlTemplate::parse(text) {
        Ok(url) => {
            for expression in url.expressions() {
                visible.check(reader, node.place, expression);
            }
            Some(url)
        }
        Err(error) => {
            reader.problem(node.place, error.to_string()).expected = Some(UrlTemplate::EXPECTED.to_owned());
            None
        }
    }
}

/// The headers of a request or of an answer; names in lower case. `reserved`: those that are not the flow's, and
/// the reason.
pub(super) fn headers(
    reader: &mut Reader<'_>,
    node: &Node,
    visible: &Visible<'_>,
    (reserved, reason): (&[&str], &str),
) -> Vec<(String, Template)> {
    let Some(entries) = reader.map(node, "`headers`") else { return Vec::new() };
    let mut headers = Vec::with_capacity(entries.len());
    for (key, node) in entries {
        let name = key.text.to_ascii_lowercase();
        if !is_token(&name) {
            reader.problem(key.place, format!("`{}` is not a header's name", key.text));
        } else if reserved.contains(&name.as_str()) {
            reader.problem(key.place, format!("the header `{name}` {reason}"));
        }
        // White space at the ends is no part of a value: a folded text ends with a newline.
        let Some(text) = reader.text(node, "a header").map(str::trim) else { continue };
        if reader.is_strict() && text.chars().any(char::is_control) {
            reader.problem(node.place, format!("the header `{name}` would hold a control character")).expected =
                Some("a value in one line".to_owned());
        }
        let node = Node { content: Content::Text(text.to_owned()), ..node.clone() };
        if let Some(template) = template(reader, &node, visible) {
            headers.push((name, template));
        }
    }
    headers
}

/// The statuses that are no success.
pub(super) const fn statuses_range() -> RangeInclusive<u64> {
    300..=599
}

/// A list of HTTP statuses, none of them a success.
pub(super) fn statuses(reader: &mut Reader<'_>, node: &Node, what: &str) -> Vec<u16> {
    let Content::List(items) = &node.content else {
        reader.list(node, what);
        return Vec::new();
    };
    let status = |item: &Node| {
        let status = reader.whole_number(item, what, statuses_range())?;
        u16::try_from(status).ok()
    };
    items.iter().filter_map(status).collect()
}
