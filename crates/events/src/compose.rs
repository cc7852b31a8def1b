//! Whole records: topic, key, value and headers of each kind, as docs/contract.md promises them.
//!
//! Message ids are stable: the same record has the same id however often it is produced.

use std::fmt::Display;

use flow::event::JobEvent;
use flow::id::JobId;
use flow::slip::Slip;

use crate::audit::AuditEntry;
use crate::cancel::Cancel;
use crate::encode::{encode_audit_entry, encode_cancel, encode_event, encode_progress, encode_slip, encode_wait};
use crate::error::EncodeError;
use crate::flow_document::FlowDocument;
use crate::header;
use crate::headers::Headers;
use crate::progress::Progress;
use crate::record::Record;
use crate::schema::WriterIds;
use crate::topic::Topics;
use crate::trace::Trace;
use crate::wait::Wait;
use flow::time::rfc3339;

/// The slip, to its queue. Its message id is that of its token: only one record with it may ever be on the steps
/// topics.
pub fn slip_record(
    topics: &Topics,
    ids: &WriterIds,
    queue: &str,
    slip: &Slip,
    trace: &Trace,
) -> Result<Record, EncodeError> {
    Ok(slip_record_as_it_is(topics, queue, slip, encode_slip(ids, slip)?, trace))
}

/// The slip, to its queue, by the value that it has already: whoever wrote it may have known more of it.
pub fn slip_record_as_it_is(topics: &Topics, queue: &str, slip: &Slip, value: Vec<u8>, trace: &Trace) -> Record {
    Record {
        topic: topics.steps(queue),
        key: Some(slip.record_key().into_bytes()),
        value: Some(value),
        headers: headers(trace, Some(slip.job), slip.token()),
    }
}

/// The event, as a CloudEvent in binary mode (its Kafka protocol binding 1.0.2).
pub fn event_record(topics: &Topics, ids: &WriterIds, event: &JobEvent, trace: &Trace) -> Result<Record, EncodeError> {
    let id = event.message_id();
    let mut headers = headers(trace, Some(event.job), &id);
    headers.push_text(header::CE_ID, &id);
    headers.push_text(header::CE_SOURCE, format_args!("/meanwhile/flows/{}", event.flow));
    headers.push_text(header::CE_TYPE, event.kind.as_str());
    headers.push_text(header::CE_SPECVERSION, "1.0");
    headers.push_text(header::CE_TIME, rfc3339(event.at_ms));
    headers.push_text(header::CE_SUBJECT, event.job);
    headers.push_text(header::CONTENT_TYPE, header::AVRO);
    Ok(Record { topic: topics.events(), key: job_key(event.job), value: Some(encode_event(ids, event)?), headers })
}

/// A hold, or what may release one; see [`Wait::key`] and [`Wait::message_id`].
pub fn wait_record(topics: &Topics, ids: &WriterIds, wait: &Wait, trace: &Trace) -> Result<Record, EncodeError> {
    Ok(Record {
        topic: topics.waits(),
        key: Some(wait.key().into_bytes()),
        value: Some(encode_wait(ids, wait)?),
        headers: headers(trace, wait.job(), wait.message_id()),
    })
}

/// The cancel. Its message id is `<job>:cancel`.
pub fn cancel_record(topics: &Topics, ids: &WriterIds, cancel: &Cancel, trace: &Trace) -> Result<Record, EncodeError> {
    Ok(Record {
        topic: topics.cancels(),
        key: job_key(cancel.job),
        value: Some(encode_cancel(ids, cancel)?),
        headers: headers(trace, Some(cancel.job), format_args!("{}:cancel", cancel.job)),
    })
}

/// The tombstone of a cancel, for a job that has ended. Its message id is `<job>:cancel:ended`.
pub fn cancel_tombstone(topics: &Topics, job: JobId, trace: &Trace) -> Record {
    Record {
        topic: topics.cancels(),
        key: job_key(job),
        value: None,
        headers: headers(trace, Some(job), format_args!("{job}:cancel:ended")),
    }
}

/// The progress. Its message id is not unique, since progress is lossy.
pub fn progress_record(
    topics: &Topics,
    ids: &WriterIds,
    progress: &Progress,
    trace: &Trace,
) -> Result<Record, EncodeError> {
    let Progress { job, branch, hop, attempt, kind, .. } = progress;
    Ok(Record {
        topic: topics.progress(),
        key: job_key(*job),
        value: Some(encode_progress(ids, progress)?),
        headers: headers(trace, Some(*job), format_args!("{job}:{branch}:{hop}:{kind}:{attempt}")),
    })
}

/// The entry of the audit log, see [`AuditEntry::message_id`]. A tenant's entries are in order.
pub fn audit_record(
    topics: &Topics,
    ids: &WriterIds,
    entry: &AuditEntry,
    trace: &Trace,
) -> Result<Record, EncodeError> {
    Ok(Record {
        topic: topics.audit(),
        key: Some(entry.tenant.clone().into_bytes()),
        value: Some(encode_audit_entry(ids, entry)?),
        headers: headers(trace, None, entry.message_id()),
    })
}

/// The flow's document, JSON. Its message id is `<flow>@<version>:<revision>`.
pub fn flow_record(topics: &Topics, document: &FlowDocument, trace: &Trace) -> Record {
    let mut headers = headers(trace, None, format_args!("{}:{}", document.key(), document.revision));
    headers.push_text(header::CONTENT_TYPE, header::JSON);
    Record { topic: topics.flows(), key: Some(document.key().into_bytes()), value: Some(document.to_json()), headers }
}

/// The tombstone of a version of a flow that no job is on any more.
pub fn flow_tombstone(topics: &Topics, flow: &str, version: &str) -> Record {
    let key = format!("{flow}@{version}").into_bytes();
    Record { topic: topics.flows(), key: Some(key), ..Record::default() }
}

/// Room for those of most events, the largest kind.
const HEADERS_BYTES: usize = 640;

fn headers(trace: &Trace, job: Option<JobId>, message_id: impl Display) -> Headers {
    let mut headers = Headers::with_capacity(HEADERS_BYTES);
    trace.write(&mut headers);
    if let Some(job) = job {
        headers.push_text(header::JOB_ID, job);
    }
    headers.push_text(header::MESSAGE_ID, message_id);
    headers
}

fn job_key(job: JobId) -> Option<Vec<u8>> {
    Some(job.to_string().into_bytes())
}
