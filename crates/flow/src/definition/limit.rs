//! The limits of a flow. Each keeps one flow from taking more than its share.

/// Steps of a flow: every completed step's output travels on with the slip.
pub const STEPS_MAX: usize = 100;
/// Bytes of a flow file or document: it is a record on a compacted topic that every worker holds in memory.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Levels of nesting in a flow file. In a debug build the reader takes some 31 KiB of stack for each, and threads have
/// 2 MiB: 64 levels ended the process (found by damaged flows).
pub const DEPTH_MAX: usize = 32;
/// Attempts of one visit: with the longest back-off of a day this is already weeks.
pub const ATTEMPTS_MAX: u32 = 100;
/// The longest time that one attempt may take: meanwhile it holds the lane of its key.
pub const TIMEOUT_MS_MAX: u64 = 15 * 60 * 1000;
/// The longest time after which a step is undone once more.
pub const SETTLE_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// The longest back-off.
pub const BACKOFF_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// The shortest pause between two polls: each is a move of the token.
pub const POLL_EVERY_MS_MIN: u64 = 100;
/// The pause between two polls, where neither the step nor its service says one.
pub const POLL_EVERY_MS_DEFAULT: u64 = 5_000;
/// The shortest pause that a service can ask for, where the step says none.
pub const POLL_ASKED_MS_MIN: u64 = 1_000;
/// The time of a poll, where the step says none.
pub const POLL_TIMEOUT_MS_DEFAULT: u64 = 60 * 60 * 1000;
/// The longest pause between two polls.
pub const POLL_EVERY_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// The longest deadline of a job, and the longest wait, sleep or pause before another attempt.
pub const DEADLINE_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1000;
/// The shortest time for which a flow may keep its jobs: the looks for those that are kept no longer are hourly.
pub const RETENTION_MS_MIN: u64 = 60 * 60 * 1000;
/// The longest.
pub const RETENTION_MS_MAX: u64 = 10 * DEADLINE_MS_MAX;
/// Bytes of a name (flow, step, queue, native step): they stand in topics, keys and headers.
pub const NAME_BYTES_MAX: usize = 63;
/// Bytes of an ordering key: it stands in the key of every record of the job.
pub const KEY_BYTES_MAX: usize = 256;
/// Visits of one step: a wait in vain may lead back to an earlier one.
pub const VISITS_MAX: u32 = 100;
/// Failures of one simulated call.
pub const SIMULATED_FAILURES_MAX: usize = 20;
/// People who may decide about one approval, by name.
pub const APPROVERS_MAX: usize = 50;
/// Media types of the documents that a flow takes.
pub const MEDIA_TYPES_MAX: usize = 32;
/// Bytes of a document that a flow takes: no store takes more in one upload of ours, nor copies more.
pub const UPLOAD_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;
/// Secrets of a webhook: the one in use, and those before and after it.
pub const WEBHOOK_SECRETS_MAX: usize = 5;
/// The time of a webhook's signature may be so far from ours: a replay is older, a clock is not so wrong.
pub const TOLERANCE_MS_MIN: u64 = 1_000;
pub const TOLERANCE_MS_MAX: u64 = 24 * 60 * 60 * 1000;
pub const TOLERANCE_MS_DEFAULT: u64 = 5 * 60 * 1000;
/// The header of the signature of `verify: hmac`, where the flow names none.
pub const SIGNATURE_HEADER_DEFAULT: &str = "x-signature";
/// Bytes of the name of a topic: Kafka takes no longer one.
pub const TOPIC_BYTES_MAX: usize = 249;
/// Bytes of the summary.
pub const SUMMARY_BYTES_MAX: usize = 1024;

/// Statuses with which a flow can answer: a 1xx is no answer.
pub const RESPOND_STATUSES: std::ops::RangeInclusive<u16> = 200..=599;
/// Headers of the answer that a flow forms: they travel with the job's last event.
pub const RESPOND_HEADERS_MAX: usize = 32;
/// Headers of a step's answer that are kept: they travel with the slip.
pub const KEEP_HEADERS_MAX: usize = 16;
/// Bytes of a header's value that is kept of an answer, or formed for one. A longer one of a service counts as absent.
pub const HEADER_BYTES_MAX: usize = 4 * 1024;

/// One attempt, where the step says nothing.
pub const TIMEOUT_MS_DEFAULT: u64 = 30 * 1000;
/// The queue, where the step says nothing.
pub const QUEUE_DEFAULT: &str = "default";
