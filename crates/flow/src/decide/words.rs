//! The other side's words about a failure.

use serde_json::Value;

/// Characters taken over from them.
const REASON_CHARS_MAX: usize = 200;

/// The other side's text for people: problem details (RFC 9457), or the usual names.
pub(super) fn reason(json: &Value) -> Option<String> {
    let said = ["detail", "message", "error", "title"].iter().find_map(|name| json.get(name)?.as_str())?;
    Some(said.chars().filter(|character| !character.is_control()).take(REASON_CHARS_MAX).collect())
}
