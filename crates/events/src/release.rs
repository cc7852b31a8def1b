//! The cause of a slip's release, beside the slip: whoever releases a hold sends its slip on as it is, and says in
//! headers what is not said in it.

use flow::slip::{Released, ReleasedBy, Slip};

use crate::header::{RELEASED_BY, RELEASED_PAYLOAD};
use crate::headers::Headers;
use crate::record::Record;

/// Marks a slip's record with the cause of its release, and what that brings (JSON in UTF-8).
pub fn mark(record: &mut Record, by: ReleasedBy, payload: Option<Vec<u8>>) {
    record.headers.retain(|(name, _)| name != RELEASED_BY && name != RELEASED_PAYLOAD);
    record.headers.push_text(RELEASED_BY, by.as_str());
    record.headers.extend(payload.map(|payload| (RELEASED_PAYLOAD, Some(payload))));
}

/// Notes in the slip what the headers of its record say of its release. A payload that is not JSON counts as none: only
/// a foreign producer may have written it.
pub fn note(slip: &mut Slip, headers: &Headers) {
    let by = headers.last(RELEASED_BY).and_then(|by| ReleasedBy::read(std::str::from_utf8(by).ok()?));
    if let Some(by) = by {
        let payload = headers.last(RELEASED_PAYLOAD).and_then(|payload| serde_json::from_slice(payload).ok());
        slip.released = Some(Released { by, payload });
    }
}
