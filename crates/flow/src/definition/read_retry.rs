//! From a `retry` in a document to a [`Retry`].

use super::limit::{ATTEMPTS_MAX, BACKOFF_MS_MAX};
use super::node::Node;
use super::reader::Reader;
use super::{Retry, key};

/// `default`: what holds where it says nothing.
pub(super) fn retry(reader: &mut Reader<'_>, node: &Node, default: Retry) -> Option<Retry> {
    let fields = reader.fields(node, "`retry`", key::RETRY)?;
    let attempts = fields
        .get("attempts")
        .and_then(|node| reader.whole_number(node, "`attempts`", 1..=u64::from(ATTEMPTS_MAX)))
        .and_then(|attempts| u32::try_from(attempts).ok());
    let backoff = fields.get("backoff").and_then(|node| backoff(reader, node));
    let (backoff_min_ms, backoff_max_ms) = backoff.unwrap_or((default.backoff_min_ms, default.backoff_max_ms));
    Some(Retry { attempts: attempts.unwrap_or(default.attempts), backoff_min_ms, backoff_max_ms })
}

fn backoff(reader: &mut Reader<'_>, node: &Node) -> Option<(u64, u64)> {
    let text = reader.text(node, "`backoff`")?;
    let Some((min, max)) = text.split_once("..") else {
        reader.problem(node.place, format!("`backoff`: `{text}` is not a range")).expected =
            Some("two durations: 200ms..30s".to_owned());
        return None;
    };
    let min_ms = reader.checked_ms(node.place, min, "`backoff`", 1..=BACKOFF_MS_MAX)?;
    let max_ms = reader.checked_ms(node.place, max, "`backoff`", 1..=BACKOFF_MS_MAX)?;
    if min_ms > max_ms {
        reader.problem(node.place, format!("`backoff`: `{min}` is longer than `{max}`"));
        return None;
    }
    Some((min_ms, max_ms))
}
