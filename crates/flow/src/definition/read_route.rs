//! Reads a flow's own address, and the terms on which it answers.

use super::node::{Content, Node};
use super::read_value::{self, required};
use super::reader::{Fields, Reader};
use super::terms::{Answers, Deprecation, Enforce, Terms};
use super::visible::Visible;
use super::{Route, key, limit};
use crate::expression::UrlTemplate;
use crate::time::read_rfc3339;

/// Bytes of a link.
const LINK_BYTES_MAX: usize = 2_048;

/// Everything that `route` says.
pub(super) struct Routed {
    pub(super) route: Route,
    pub(super) terms: Terms,
    pub(super) upstream: Option<UrlTemplate>,
}

pub(super) fn routed(reader: &mut Reader<'_>, node: &Node) -> Option<Routed> {
    if !matches!(node.content, Content::Map(_)) {
        let route = address(reader, node)?;
        return Some(Routed { route, terms: Terms::default(), upstream: None });
    }
    let fields = reader.fields(node, "`route`", key::ROUTE)?;
    let route = required(reader, &fields, "`route`", "at").and_then(|node| address(reader, node));
    let terms = terms(reader, &fields);
    let upstream = fields.get("upstream").and_then(|node| upstream(reader, node));
    Some(Routed { route: route?, terms, upstream })
}

fn address(reader: &mut Reader<'_>, node: &Node) -> Option<Route> {
    let text = reader.text(node, "`route`")?;
    let parts = text.split_once(' ').map(|(method, path)| (method, path.trim()));
    let plain = |path: &str| {
        path.starts_with('/')
            && !path.contains("//")
            && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte))
    };
    match parts {
        Some((method, path)) if key::ROUTE_METHODS.contains(&method) && plain(path) => {
            if path == "/v1" || path.starts_with("/v1/") {
                reader.problem(node.place, "a route must not lie under `/v1`, which is Meanwhile's own");
                return None;
            }
            Some(Route { method: method.to_owned(), path: path.to_owned() })
        }
        _ => {
            let problem = reader.problem(node.place, format!("`{text}` is not a route"));
            problem.expected = Some(format!("a method ({}) and a path: POST /orders", key::ROUTE_METHODS.join(", ")));
            None
        }
    }
}

fn upstream(reader: &mut Reader<'_>, node: &Node) -> Option<UrlTemplate> {
    let visible = Visible { roots: &["env"], steps: &[], own: None, when: None };
    let url = read_value::url(reader, node, &visible)?;
    if reader.text(node, "`upstream`")?.contains(['?', '#']) {
        reader.problem(node.place, "`upstream` has a query of its own").expected =
            Some("a URL without `?` and `#`: each request brings its own query".to_owned());
        return None;
    }
    Some(url)
}

/// The terms on which an address answers, in a flow or in its flags.
pub(crate) fn terms(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Terms {
    let words = Answers::ALL.map(Answers::as_str);
    let answer = fields.get("answer").and_then(|node| reader.word(node, "`answer`", &words));
    let mut duration_ms = |name: &str| {
        let node = fields.get(name)?;
        reader.duration_ms(node, &format!("`{name}`"), 1..=limit::TIMEOUT_MS_MAX)
    };
    let (hold_ms, latency_budget_ms) = (duration_ms("hold"), duration_ms("latency_budget"));
    let deprecation = fields.get("deprecation").and_then(|node| deprecation(reader, node));
    let answer = Answers::ALL.into_iter().find(|one| answer == Some(one.as_str()));
    Terms { answer, hold_ms, latency_budget_ms, deprecation }
}

fn deprecation(reader: &mut Reader<'_>, node: &Node) -> Option<Deprecation> {
    let fields = reader.fields(node, "`deprecation`", key::DEPRECATION)?;
    let since_ms = required(reader, &fields, "`deprecation`", "since").and_then(|node| instant(reader, node, "since"));
    let sunset_ms = fields.get("sunset").and_then(|node| instant(reader, node, "sunset"));
    let page = fields.get("link").and_then(|node| link(reader, node, "link"));
    let successor = fields.get("successor").and_then(|node| link(reader, node, "successor"));
    let words = Enforce::ALL.map(Enforce::as_str);
    let enforce = fields.get("enforce").and_then(|node| reader.word(node, "`enforce`", &words));
    let enforce = Enforce::ALL.into_iter().find(|one| enforce == Some(one.as_str())).unwrap_or_default();
    if enforce != Enforce::Never && fields.get("sunset").is_none() {
        reader.missing(fields.place, "`deprecation` with `enforce`", "sunset");
    }
    let since_ms = since_ms?;
    if sunset_ms.is_some_and(|sunset_ms| sunset_ms < since_ms) {
        reader.problem(fields.place_of("sunset"), "`sunset` is earlier than `since`").expected =
            Some("an instant not before `since` (RFC 9745, section 4)".to_owned());
        return None;
    }
    Some(Deprecation { since_ms, sunset_ms, link: page, successor, enforce })
}

fn instant(reader: &mut Reader<'_>, node: &Node, name: &str) -> Option<i64> {
    let text = reader.text(node, &format!("`{name}`"))?;
    let read = read_rfc3339(text);
    if read.is_none() {
        reader.problem(node.place, format!("`{name}` cannot be `{text}`")).expected =
            Some("an instant: 2027-01-05T09:30:00Z".to_owned());
    }
    read
}

/// The target of a link, as it stands in a `Link` header.
fn link(reader: &mut Reader<'_>, node: &Node, name: &str) -> Option<String> {
    let text = reader.text(node, &format!("`{name}`"))?;
    let begins = ["/", "http://", "https://"].iter().any(|begin| text.starts_with(begin));
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte));
    if begins && is_plain && text.len() <= LINK_BYTES_MAX {
        return Some(text.to_owned());
    }
    reader.problem(node.place, format!("`{name}` cannot be `{text}`")).expected =
        Some(format!("a path or an http(s) URL of at most {LINK_BYTES_MAX} bytes"));
    None
}
