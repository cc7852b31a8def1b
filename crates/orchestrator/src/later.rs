//! Records of `meanwhile.waits` that a later version has written: each is kept as it is, and sent again after a while,
//! for an orchestrator that knows it. The older its job, the longer that takes.

use events::{Inbound, Record, Writer, header};
use flow::decide::{MissingKind, rest_unread_ms};
use flow::id::TokenId;
use flow::slip::HoldReason;
use store::holds::NewHold;

/// The record at rest, under a name of its own. None for a cancel, which stays on its topic.
pub(crate) fn kept(writer: &Writer, record: &Inbound, what: &str, now_ms: i64) -> Option<NewHold> {
    if record.topic != writer.topics.waits() {
        return None;
    }
    let job = record.header_text(header::JOB_ID).and_then(|job| job.parse().ok());
    let place = format!("{}/{}/{}", record.topic, record.partition, record.offset);
    let rest_ms = rest_unread_ms(job, &place, now_ms);
    metrics::counter!("meanwhile_missing_steps_total", "kind" => MissingKind::Version.as_str()).increment(1);
    let Inbound { topic, partition, offset, .. } = record;
    tracing::warn!(topic, partition, offset, what, "a later version has written this wait; it is kept and sent again");
    let as_it_is = Record {
        topic: record.topic.clone(),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
    };
    let hold = NewHold::new(TokenId::of_place(job, place), HoldReason::MissingStep, as_it_is);
    Some(NewHold { release_after_ms: Some(rest_ms), ..hold })
}
