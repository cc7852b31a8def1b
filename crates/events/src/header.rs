//! The names of record headers.

/// W3C Trace Context, UTF-8.
pub const TRACEPARENT: &str = "traceparent";
/// W3C Trace Context, vendor part.
pub const TRACESTATE: &str = "tracestate";
/// The job's id, so that readers can filter before decoding.
pub const JOB_ID: &str = "meanwhile-job-id";
/// The record's own identity, the same however often it is produced.
pub const MESSAGE_ID: &str = "meanwhile-message-id";
/// On a slip that comes back to its queue from a lane: the token that held the lane, as `<job>:<branch>:<hop>`.
pub const TURN: &str = "meanwhile-turn";
/// Beside [`TURN`]: the slip's place in the lane, from 1; 0 on the slip of that token itself.
pub const TURN_PLACE: &str = "meanwhile-turn-place";
/// On a record without a value, on a steps topic: the lane of its key is free again. See [`crate::lane::Freed`].
pub const LANE_FREE: &str = "meanwhile-lane-free";
/// On a slip that was released by something else than its time: the cause, as `flow::slip::ReleasedBy` has it.
pub const RELEASED_BY: &str = "meanwhile-released-by";
/// Beside [`RELEASED_BY`]: a signal's payload, JSON in UTF-8.
pub const RELEASED_PAYLOAD: &str = "meanwhile-released-payload";
/// On the relay's position: the rows of the outbox that its transaction carries, by name; bytes of the relay's own.
pub const RELAY_ROWS: &str = "meanwhile-relay-rows";
/// On the relay's position: the id of the publication that it was streamed by.
pub const RELAY_PUBLICATION: &str = "meanwhile-relay-publication";
/// On the relay's position: the reason for which no relay may deliver from it before somebody settles it.
pub const RELAY_UNSETTLED: &str = "meanwhile-relay-unsettled";
/// `content-type` of CloudEvents' Kafka binding.
pub const CONTENT_TYPE: &str = "content-type";
/// Its value on Avro records.
pub const AVRO: &str = "application/avro";
/// Its value on JSON records.
pub const JSON: &str = "application/json";
/// CloudEvents 1.0 binary mode.
pub const CE_ID: &str = "ce_id";
/// CloudEvents 1.0 binary mode.
pub const CE_SOURCE: &str = "ce_source";
/// CloudEvents 1.0 binary mode.
pub const CE_TYPE: &str = "ce_type";
/// CloudEvents 1.0 binary mode.
pub const CE_SPECVERSION: &str = "ce_specversion";
/// CloudEvents 1.0 binary mode.
pub const CE_TIME: &str = "ce_time";
/// CloudEvents 1.0 binary mode.
pub const CE_SUBJECT: &str = "ce_subject";
/// The prefix of every header of a dead letter.
pub const FAILURE_PREFIX: &str = "meanwhile-failure-";
/// The reason for which no service could read or handle the record, for a person.
pub const FAILURE_REASON: &str = "meanwhile-failure-reason";
/// The same as a short stable word.
pub const FAILURE_CLASS: &str = "meanwhile-failure-class";
/// The number of attempts.
pub const FAILURE_ATTEMPTS: &str = "meanwhile-failure-attempts";
/// The time of the first attempt, RFC 3339.
pub const FAILURE_FIRST_AT: &str = "meanwhile-failure-first-at";
/// The time of the last attempt, RFC 3339.
pub const FAILURE_LAST_AT: &str = "meanwhile-failure-last-at";
/// The topic in which the record was read.
pub const FAILURE_TOPIC: &str = "meanwhile-failure-topic";
/// The partition in which the record was read.
pub const FAILURE_PARTITION: &str = "meanwhile-failure-partition";
/// The offset at which the record was read.
pub const FAILURE_OFFSET: &str = "meanwhile-failure-offset";
/// The number of redrives before; the only one that a redrive keeps.
pub const FAILURE_REDRIVES: &str = "meanwhile-failure-redrives";
