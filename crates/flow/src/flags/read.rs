//! Reads the document of flags. Every problem that can be found is reported.

use serde_json::Value;

use super::{ALL_BASIS_POINTS, By, DOCUMENT_BYTES_MAX, Durable, Flags, NAME_BYTES_MAX, NAMES_MAX};
use crate::definition::{Content, Node, Problem, Reader, read_terms};
use crate::media_type::is_token;

const FLAGS: &[&str] = &["durable", "answer", "hold", "latency_budget", "async_clients", "deprecation"];
const DURABLE: &[&str] = &["percent", "by", "allow", "deny"];
/// The form of `by` with a header.
const HEADER: &str = "header:";

impl Flags {
    /// Reads a document.
    ///
    /// # Errors
    /// Every fault that is found.
    pub fn read(document: &Value) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::new("flags");
        let root = Node::from_json(document);
        if document.to_string().len() > DOCUMENT_BYTES_MAX {
            reader.problem(root.place, format!("flags have at most {DOCUMENT_BYTES_MAX} bytes"));
            return Err(reader.finish());
        }
        let read = flags(&mut reader, &root);
        match read {
            Some(flags) if reader.is_clean() => Ok(flags),
            Some(_) | None => Err(reader.finish()),
        }
    }
}

fn flags(reader: &mut Reader<'_>, root: &Node) -> Option<Flags> {
    let fields = reader.fields(root, "the flags", FLAGS)?;
    let durable = fields.get("durable").and_then(|node| durable(reader, node));
    let terms = read_terms(reader, &fields);
    let async_clients = fields.get("async_clients").map(|node| names(reader, node, "async_clients"));
    Some(Flags { durable, terms, async_clients: async_clients.unwrap_or_default() })
}

fn durable(reader: &mut Reader<'_>, node: &Node) -> Option<Durable> {
    let fields = reader.fields(node, "`durable`", DURABLE)?;
    let basis_points = match fields.get("percent") {
        Some(node) => percent(reader, node),
        None => {
            reader.missing(fields.place, "`durable`", "percent");
            None
        }
    };
    let by = fields.get("by").map_or(Some(By::Key), |node| by(reader, node));
    let mut list = |name| fields.get(name).map(|node| names(reader, node, name)).unwrap_or_default();
    let (allow, deny) = (list("allow"), list("deny"));
    Some(Durable { basis_points: basis_points?, by: by?, allow, deny })
}

/// A number from 0 to 100 with at most two decimals, in basis points.
fn percent(reader: &mut Reader<'_>, node: &Node) -> Option<u32> {
    let number = match &node.content {
        Content::Number(number) => number.as_f64(),
        _ => None,
    };
    let points = number.map(|number| number * 100.0).filter(|points| {
        (0.0..=f64::from(ALL_BASIS_POINTS)).contains(points) && (points - points.round()).abs() < 1e-6
    });
    if points.is_none() {
        reader.problem(node.place, "`percent` is no part of a hundred").expected =
            Some("a number from 0 to 100 with at most two decimals".to_owned());
    }
    points.map(|points| points.round() as u32)
}

fn by(reader: &mut Reader<'_>, node: &Node) -> Option<By> {
    let text = reader.text(node, "`by`")?;
    match (text, text.strip_prefix(HEADER)) {
        ("key", _) => Some(By::Key),
        ("tenant", _) => Some(By::Tenant),
        (_, Some(name)) if name.len() <= NAME_BYTES_MAX && is_token(name) => {
            Some(By::Header(name.to_ascii_lowercase()))
        }
        _ => {
            reader.problem(node.place, format!("`by` cannot be `{text}`")).expected =
                Some("key, tenant or header:<name>".to_owned());
            None
        }
    }
}

fn names(reader: &mut Reader<'_>, node: &Node, list: &str) -> Vec<String> {
    let Some(items) = reader.list(node, &format!("`{list}`")) else { return Vec::new() };
    if items.len() > NAMES_MAX {
        reader.problem(node.place, format!("`{list}` has more than {NAMES_MAX} names"));
        return Vec::new();
    }
    let mut names = Vec::with_capacity(items.len());
    for item in items {
        let Some(name) = reader.text(item, &format!("a name in `{list}`")) else { continue };
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
            reader.problem(item.place, format!("`{list}` holds a name that cannot be one")).expected =
                Some(format!("1 to {NAME_BYTES_MAX} bytes in one line"));
            continue;
        }
        names.push(name.to_owned());
    }
    names
}
