//! From the `limits` of a step to the limits of its downstream.

use super::key;
use super::node::Node;
use super::reader::Reader;
use super::step::Limits;

/// Calls in a second, and calls under way, at most.
const LIMIT_MAX: u32 = 1_000_000;

pub(super) fn limits(reader: &mut Reader<'_>, node: &Node) -> Option<Limits> {
    let fields = reader.fields(node, "`limits`", key::LIMITS)?;
    let per_minute = fields.get("rate").and_then(|node| rate(reader, node));
    let in_flight = fields.get("in_flight");
    let in_flight = in_flight.and_then(|node| reader.whole_number(node, "`in_flight`", 1..=u64::from(LIMIT_MAX)));
    Some(Limits { per_minute, in_flight: in_flight.and_then(|count| u32::try_from(count).ok()) })
}

/// `50/s` or `90/m`.
fn rate(reader: &mut Reader<'_>, node: &Node) -> Option<u32> {
    let text = reader.text(node, "`rate`")?;
    let read = text.split_once('/').and_then(|(count, unit)| {
        let count = count.trim().parse::<u32>().ok().filter(|count| (1..=LIMIT_MAX).contains(count))?;
        match unit.trim() {
            "s" => count.checked_mul(60),
            "m" => Some(count),
            _ => None,
        }
    });
    if read.is_none() {
        reader.problem(node.place, format!("`rate`: `{text}` is not a rate")).expected =
            Some("a whole number of calls a second or a minute: 50/s, 90/m".to_owned());
    }
    read
}
