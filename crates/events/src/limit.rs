//! The size limits of records.

/// Kafka's default `message.max.bytes` is 1 MiB and 12 bytes; what is left over is for the frames of the batch.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024 - RECORD_OVERHEAD_BYTES;
/// A batch of one record and a transaction's bookkeeping may add this on the wire.
pub const RECORD_OVERHEAD_BYTES: usize = 4 * 1024;
/// The bytes by which the size limit of the dead letters' topic exceeds the others': a record of the largest size fits
/// with its `meanwhile-failure-*` headers.
pub const DEAD_LETTER_EXTRA_BYTES: usize = 64 * 1024;
/// The failure's reason as a header; a longer one is cut.
pub const FAILURE_REASON_BYTES_MAX: usize = 4 * 1024;
/// The failure's class as a header; a longer one is cut.
pub const FAILURE_CLASS_BYTES_MAX: usize = 128;
/// No string or JSON inside an Avro record is longer: a length beyond this is noise, and nothing is allocated for it.
pub const DECODE_ALLOCATION_BYTES_MAX: usize = 16 * 1024 * 1024;
/// JSON may nest this deep. One more and `serde_json` would refuse to read back what was written.
pub const JSON_DEPTH_MAX: usize = 127;
/// One process learns at most this number of schema ids, and keeps them for its life. A real registry has dozens.
pub const SCHEMAS_MAX: usize = 4096;
/// A command's `id`, the idempotency key.
pub const COMMAND_ID_BYTES_MAX: usize = 255;
/// A command's `correlation_id`.
pub const CORRELATION_ID_BYTES_MAX: usize = 255;
