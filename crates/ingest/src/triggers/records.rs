//! The records of a topic of others: each starts a job of every flow that reads the topic, by rule 3, as commands do.
//!
//! A record is either for a flow, or filtered out, or refused: a dead letter. A registry that is down is none of these:
//! the records wait.

use std::collections::BTreeMap;

use bus::{Inbound, RecordBatch, Unreadable};
use events::dead_letter::{Class, Refused};
use events::decode_any;
use events::trace::Trace;
use flow::definition::limit::KEY_BYTES_MAX;
use flow::definition::{Definition, Format, Topic, Trigger};
use flow::id::JobId;
use inbox::Service;
use serde_json::Value;
use service_kit::trace::Span;
use store::Tx;
use store::acceptances::NewAcceptance;

use super::{digest, of_trigger};
use crate::commands::{Commands, Understood, violations};
use crate::plan::JobRequest;
use crate::{idempotency, spans};

/// The triggers of active flows that read this topic, by flow.
pub(super) fn of_topic<'a>(
    flows: &'a [Definition],
    topic: &'a str,
) -> impl Iterator<Item = (&'a Definition, &'a Topic)> {
    let trigger = |flow: &'a Definition| Some((flow, flow.trigger().and_then(Trigger::topic)?));
    flows.iter().filter_map(trigger).filter(move |(_, found)| found.name == topic)
}

/// Takes in records of one topic.
pub(super) struct Records {
    door: Commands,
    /// Records of the batch at hand that are for nobody, by flow.
    filtered: BTreeMap<String, u64>,
}

impl Records {
    pub(super) const fn new(door: Commands) -> Self {
        Self { door, filtered: BTreeMap::new() }
    }

    /// The value as JSON. None: there is no value.
    async fn value(&self, record: &Inbound, format: Format) -> Result<Result<Option<Value>, Refused>, inbox::Error> {
        let Some(bytes) = &record.value else { return Ok(Ok(None)) };
        let unreadable = |reason: String| Refused::new(Class::Unreadable, reason);
        match format {
            Format::Json => {
                let value = serde_json::from_slice(bytes);
                Ok(value.map(Some).map_err(|error| unreadable(format!("the value is not JSON: {error}"))))
            }
            Format::Avro => match self.door.api.reader.read(Some(bytes), decode_any).await {
                Ok(value) => Ok(Ok(Some(value))),
                Err(Unreadable::NotNow(error)) => Err(error.into()),
                Err(Unreadable::Never(reason) | Unreadable::Newer(reason)) => Ok(Err(unreadable(reason))),
            },
        }
    }

    /// The acceptance of this record for one flow. None: it is for nobody.
    fn understand(
        &self,
        record: &Inbound,
        (definition, topic): (&Definition, &Topic),
        value: Value,
        span: &Span,
    ) -> Result<Option<NewAcceptance>, Refused> {
        let refuse = |reason: String| Refused::new(Class::SchemaViolation, format!("{}: {reason}", definition.name()));
        if !topic.picks.takes(&value).map_err(refuse)? {
            return Ok(None);
        }
        let id = topic.picks.id(&value).map_err(refuse)?;
        if let Some(id) = &id {
            idempotency::check(id).map_err(|error| refuse(format!("`id`: {error}")))?;
        }
        let (api, now_ms) = (&self.door.api, self.door.api.clock.now_ms());
        let request = JobRequest {
            job: JobId::new(api.ids.uuid_v7(now_ms)),
            tenant: self.door.caller.tenant.clone(),
            submitted_by: "trigger:topic".to_owned(),
            input: value,
            fallback_key: record.key.as_deref().and_then(ordering_key),
            // Without an id of its own a record is its place, and the offset moves with its job.
            idempotency_key: id.map(|id| format!("topic {id}")),
            correlation_id: api.ids.uuid().to_string(),
            trace: span.carry_on(Trace::from_headers(&record.headers), &api.ids),
            now_ms,
            retry_of: None,
            start_after_ms: None,
            start: None,
            webhook: None,
        };
        let planned = self.door.planner.plan(definition, request);
        planned.map(|acceptance| Some(of_trigger(acceptance))).map_err(|error| refuse(violations(error)))
    }
}

impl Service for Records {
    type Effects = Understood;

    async fn read(&mut self, batch: &RecordBatch) -> Result<Understood, inbox::Error> {
        // Without room, records wait in their topic.
        self.door.api.check_room()?;
        let mut understood = Understood::default();
        self.filtered.clear();
        let flows = self.door.api.catalog.list();
        for record in batch.parts.iter().flat_map(|part| &part.records) {
            for of_flow in of_topic(&flows, &record.topic) {
                let span = spans::command(record, self.door.planner.writer.topics.prefix());
                let meant = match self.value(record, of_flow.1.format).await? {
                    Ok(Some(value)) => self.understand(record, of_flow, value, &span),
                    Ok(None) => Ok(None),
                    Err(refused) => Err(refused),
                };
                match meant {
                    Ok(Some(acceptance)) => understood.accept(acceptance, record, span),
                    Ok(None) => *self.filtered.entry(of_flow.0.name().to_owned()).or_default() += 1,
                    Err(refused) => {
                        span.fail(refused.class.as_str(), &refused.reason);
                        self.door.reject(record, refused, &mut understood);
                    }
                }
            }
        }
        self.door.admit(&mut understood)?;
        Ok(understood)
    }

    fn refuse(&mut self, record: &Inbound, reason: &str) -> Understood {
        self.door.refuse(record, reason)
    }

    async fn write(&mut self, tx: &mut Tx, understood: &mut Understood) -> Result<(), inbox::Error> {
        self.door.write(tx, understood).await
    }

    fn committed(&mut self, understood: Understood) {
        for (flow, records) in std::mem::take(&mut self.filtered) {
            metrics::counter!("meanwhile_trigger_records_filtered_total", "flow" => flow).increment(records);
        }
        self.door.committed(understood);
    }
}

/// The ordering key that the record's key is, where the flow has none: its digest where it is no text.
fn ordering_key(key: &[u8]) -> Option<String> {
    match str::from_utf8(key) {
        Ok("") => None,
        Ok(text) if text.len() <= KEY_BYTES_MAX && !text.contains('\0') => Some(text.to_owned()),
        _ => Some(digest(key)),
    }
}
