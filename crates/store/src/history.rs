//! The events of a job as they lie in `orchestrator.jobs.history` and `orchestrator.job_events`: one JSON object per
//! line, appended.
//!
//! Values that the row itself has (tenant, flow, key, ...) are not repeated. On reading, entries are put in order, and
//! of one cursor one is kept, so that even a batch applied twice would show each event once.

use flow::facts::JobFacts;
use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flow::answer::Answer;
use flow::event::{CarriedEvent, EventKind, JobEvent};
use flow::slip::{HoldReason, Phase};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::columns::status_of;

/// An event with its place on the events topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The record's offset: the public cursor.
    pub cursor: i64,
    /// The event.
    pub event: JobEvent,
}

/// One line.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    cursor: i64,
    kind: Cow<'a, str>,
    status: Cow<'a, str>,
    hop: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    index: u32,
    #[serde(default, skip_serializing_if = "is_empty")]
    branch: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_false")]
    undo: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    visit: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    attempts: u32,
    at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_attempt_after_ms: Option<u64>,
    // Absent is none; there and null is a null.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    data: Option<Cow<'a, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actor: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Value>,
    /// Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer_bytes: Option<String>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

fn is_empty(text: &str) -> bool {
    text.is_empty()
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'static, Value>>, D::Error> {
    Value::deserialize(deserializer).map(|value| Some(Cow::Owned(value)))
}

/// Appends one event as a line.
pub(crate) fn write(history: &mut Vec<u8>, cursor: i64, event: &JobEvent) {
    let line = Line {
        cursor,
        kind: event.kind.as_str().into(),
        status: event.status.as_str().into(),
        hop: event.hop,
        index: event.index,
        branch: event.branch.as_str().into(),
        step: event.step.as_deref().map(Cow::Borrowed),
        undo: event.phase == Phase::Undo,
        visit: event.visit,
        attempts: event.attempts,
        at_ms: event.at_ms,
        next_attempt_after_ms: event.next_attempt_after_ms,
        data: event.data.as_ref().map(Cow::Borrowed),
        reason: event.reason.as_ref().map(|reason| reason.as_str().into()),
        signal: event.signal.as_deref().map(Cow::Borrowed),
        actor: event.actor.as_deref().map(Cow::Borrowed),
        answer: event.answer.as_ref().map(Answer::head),
        answer_bytes: event.answer.as_ref().and_then(Answer::bytes).map(|bytes| STANDARD.encode(bytes)),
    };
    serde_json::to_writer(&mut *history, &line).expect("text keys and JSON values always serialise into memory");
    history.push(b'\n');
}

/// The events of a row, in order.
pub(crate) fn read(history: &[u8], facts: &JobFacts, steps_total: u32) -> Result<Vec<Entry>, Error> {
    let mut entries: Vec<Entry> = Vec::new();
    for bytes in history.split(|byte| *byte == b'\n').filter(|bytes| !bytes.is_empty()) {
        let line: Line<'_> = serde_json::from_slice(bytes)
            .map_err(|error| Error::Corrupt(format!("history of {}: {error}", facts.job)))?;
        entries.push(entry(line, facts, steps_total)?);
    }
    entries.sort_by_key(|entry| entry.cursor);
    entries.dedup_by_key(|entry| entry.cursor);
    Ok(entries)
}

fn entry(line: Line<'_>, facts: &JobFacts, steps_total: u32) -> Result<Entry, Error> {
    let kind = EventKind::read(&line.kind).ok_or_else(|| Error::Corrupt(format!("event kind `{}`", line.kind)))?;
    let bytes = line.answer_bytes.map(|text| STANDARD.decode(text)).transpose();
    let bytes = bytes.map_err(|error| Error::Corrupt(format!("answer of {}: {error}", facts.job)))?;
    let event = JobEvent {
        facts: facts.clone(),
        kind,
        status: status_of(&line.status)?,
        hop: line.hop,
        index: line.index,
        branch: line.branch.into_owned(),
        step: line.step.map(Cow::into_owned),
        phase: if line.undo { Phase::Undo } else { Phase::Forward },
        visit: line.visit,
        attempts: line.attempts,
        at_ms: line.at_ms,
        steps_total,
        next_attempt_after_ms: line.next_attempt_after_ms,
        data: line.data.map(Cow::into_owned),
        reason: line.reason.as_deref().and_then(HoldReason::read),
        signal: line.signal.map(Cow::into_owned),
        actor: line.actor.map(Cow::into_owned),
        answer: line.answer.and_then(|head| Answer::from_parts(&head, bytes)),
        carried: CarriedEvent::default(),
    };
    Ok(Entry { cursor: line.cursor, event })
}

#[cfg(test)]
mod tests {
    use flow::answer::Body;
    use serde_json::json;

    use super::*;

    fn job() -> JobFacts {
        JobFacts {
            job: "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".parse().unwrap(),
            tenant: "acme".to_owned(),
            flow: "order".to_owned(),
            version: "abc".to_owned(),
            key: "customer-1".to_owned(),
            correlation_id: "c".to_owned(),
            accepted_at_ms: 1,
            retry_of: None,
        }
    }

    fn example(data: Option<Value>) -> Entry {
        let text = r#"{"cursor":7,"kind":"step.failed","status":"compensating","hop":2,"branch":"a\"\nb","step":"pay",
            "undo":true,"visit":1,"attempts":2,"at_ms":5,"next_attempt_after_ms":9,
            "reason":"signal","signal":"approval","actor":"ann"}"#
            .replace('\n', " ");
        let mut example = read(text.as_bytes(), &job(), 3).unwrap().remove(0);
        example.event.data = data;
        example
    }

    #[test]
    fn an_event_reads_back_as_it_was_written() {
        for data in [None, Some(Value::Null), Some(json!({"z": 1, "a": "line\nbreak \u{0}"}))] {
            let entry = example(data);
            let mut history = Vec::new();
            write(&mut history, entry.cursor, &entry.event);
            assert_eq!(read(&history, &job(), 3).unwrap(), [entry]);
        }
    }

    #[test]
    fn an_answer_reads_back_byte_for_byte() {
        for body in [Body::OfResult, Body::Value(json!({"a": null})), Body::Bytes(vec![0, b'\n', 255])] {
            let mut entry = example(Some(json!(1)));
            let headers = vec![("content-type".to_owned(), "text/csv".to_owned())];
            entry.event.answer = Some(Answer { status: 201, headers, body });
            let mut history = Vec::new();
            write(&mut history, entry.cursor, &entry.event);
            assert_eq!(read(&history, &job(), 3).unwrap(), [entry]);
        }
    }

    #[test]
    fn an_event_of_a_later_kind_reads_back_by_its_words() {
        let mut entry = example(None);
        let later = (EventKind::read("step.checked").unwrap(), flow::event::JobStatus::read("checking").unwrap());
        (entry.event.kind, entry.event.status) = later;
        let mut history = Vec::new();
        write(&mut history, entry.cursor, &entry.event);
        assert_eq!(read(&history, &job(), 3).unwrap(), [entry]);
    }

    #[test]
    fn what_was_appended_twice_shows_once() {
        let (first, mut second) = (example(None), example(None));
        second.cursor = 8;
        let mut history = Vec::new();
        for entry in [&first, &second, &first, &second] {
            write(&mut history, entry.cursor, &entry.event);
        }
        assert_eq!(read(&history, &job(), 3).unwrap(), [first, second]);
    }
}
