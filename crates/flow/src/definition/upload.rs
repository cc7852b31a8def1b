//! The documents that a flow takes in place of JSON.

use super::node::Node;
use super::read_value::required;
use super::reader::{Fields, Reader};
use super::{key, limit};
use crate::media_type::is_token;

/// The documents that a flow takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Their media types without parameters, in lower case; `image/*`: all of that kind, `*/*`: any.
    pub media_types: Vec<String>,
    /// The most bytes of one; none: as many as the store of documents takes.
    pub bytes_max: Option<u64>,
}

impl Upload {
    /// True if a body of this type is such a document.
    pub fn takes(&self, content_type: &str) -> bool {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let Some((kind, _)) = essence.split_once('/') else { return false };
        let takes = |known: &String| match known.strip_suffix("/*") {
            Some("*") => true,
            Some(known) => known == kind,
            None => *known == essence,
        };
        self.media_types.iter().any(takes)
    }
}

/// `upload: { media_types: [application/pdf], max_bytes: 1000000 }`, of all keys of a flow.
pub(super) fn read(reader: &mut Reader<'_>, flow: &Fields<'_>) -> Option<Upload> {
    let node = flow.get("upload")?;
    if flow.get("input").is_some() {
        let message = "a flow with `upload` has no `input`: the document is its input";
        reader.problem(flow.place_of("input"), message).expected = Some("one of the two".to_owned());
    }
    let fields = reader.fields(node, "`upload`", key::UPLOAD)?;
    let types = required(reader, &fields, "`upload`", "media_types")?;
    let items = reader.list(types, "`media_types`")?;
    if items.is_empty() || items.len() > limit::MEDIA_TYPES_MAX {
        let message = format!("`media_types` has {} entries", items.len());
        reader.problem(types.place, message).expected = Some(format!("1 to {}", limit::MEDIA_TYPES_MAX));
    }
    let media_types = items.iter().filter_map(|item| media_type(reader, item)).collect();
    let bytes_max =
        fields.get("max_bytes").and_then(|node| reader.whole_number(node, "`max_bytes`", 1..=limit::UPLOAD_BYTES_MAX));
    Some(Upload { media_types, bytes_max })
}

fn media_type(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node, "a media type")?.to_ascii_lowercase();
    // A star is a sign of tokens, too.
    let is_one = |(kind, name): (&str, &str)| {
        is_token(kind) && is_token(name) && (kind == "*" || !kind.contains('*')) && (name == "*" || !name.contains('*'))
    };
    if text.split_once('/').is_some_and(is_one) && !(text.starts_with("*/") && text != "*/*") {
        return Some(text);
    }
    reader.problem(node.place, format!("`{text}` is no media type")).expected =
        Some("one such as application/pdf, image/* or */*, without parameters".to_owned());
    None
}
