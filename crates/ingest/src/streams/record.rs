//! One event as all streams share it: it is decoded once, by the first that sends it.

use std::fmt::Write as _;

use bus::{Inbound, Reader, RegistryError, Unreadable};
use events::decode_event;
use flow::event::{JobEvent, JobStatus};
use flow::id::JobId;
use tokio::sync::OnceCell;

use crate::answer;
use crate::catalog::Catalog;
use crate::recent::job_of;

/// What an event takes beside its bytes.
const EVENT_BYTES: usize = 512;
/// An event in its text form is about as long as on Kafka: it is there twice.
const FORMS: usize = 2;

/// An event that the tail has seen.
pub(crate) struct Seen {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) job: JobId,
    value: Box<[u8]>,
    told: OnceCell<Option<Told>>,
}

/// What an event says, as streams send it.
pub(super) struct Told {
    pub(super) tenant: String,
    pub(super) flow: String,
    /// The status of the job after it.
    pub(super) status: JobStatus,
    /// Its JSON without the cursor, which is another one in each kind of stream, and without the brace before it.
    members: String,
    /// The same without the result, and when it is told so, in milliseconds since the Unix epoch.
    later: Option<(i64, String)>,
}

impl Seen {
    /// None for a record without a job in its key.
    pub(crate) fn of(record: &Inbound) -> Option<Self> {
        Some(Self {
            partition: record.partition,
            offset: record.offset,
            job: job_of(record)?,
            value: record.value.as_deref().unwrap_or_default().into(),
            told: OnceCell::new(),
        })
    }

    /// The memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        EVENT_BYTES + FORMS * self.value.len()
    }

    /// None where it cannot be read: the orchestrator keeps it as a dead letter.
    ///
    /// # Errors
    /// The registry does not answer; ask again.
    pub(super) async fn told(&self, reader: &Reader, flows: &Catalog) -> Result<Option<&Told>, RegistryError> {
        let read = || async {
            match reader.read(Some(&*self.value), decode_event).await {
                Ok(event) => Ok(Some(Told::of(&event, flows.told_until_ms(&event)))),
                Err(Unreadable::Never(reason) | Unreadable::Newer(reason)) => {
                    tracing::debug!(cursor = self.offset, reason, "unreadable event skipped");
                    Ok(None)
                }
                Err(Unreadable::NotNow(error)) => Err(error),
            }
        };
        Ok(self.told.get_or_try_init(read).await?.as_ref())
    }
}

impl Told {
    fn of(event: &JobEvent, result_until_ms: Option<i64>) -> Self {
        let later = result_until_ms.map(|at_ms| (at_ms, members(&JobEvent { data: None, ..event.clone() })));
        let (tenant, flow) = (event.tenant.clone(), event.flow.clone());
        Self { tenant, flow, status: event.status, members: members(event), later }
    }

    /// As a stream of its job has it.
    pub(super) fn of_job(&self, cursor: i64, now_ms: i64) -> String {
        format!("{{\"cursor\":\"{cursor}\",{}", self.members_at(now_ms))
    }

    /// As a stream of all jobs has it.
    pub(super) fn of_any(&self, cursor: &str, job: JobId, now_ms: i64) -> String {
        let mut text = format!("{{\"cursor\":\"{cursor}\",\"job\":\"{job}\",\"flow\":");
        // A flow's name is a JSON string of its own: it has nothing to escape, and yet is not trusted for that.
        let _ = write!(text, "{},{}", serde_json::Value::from(self.flow.as_str()), self.members_at(now_ms));
        text
    }

    fn members_at(&self, now_ms: i64) -> &str {
        match &self.later {
            Some((at_ms, members)) if *at_ms <= now_ms => members,
            _ => &self.members,
        }
    }
}

fn members(event: &JobEvent) -> String {
    let mut body = answer::event(0, event);
    if let Some(body) = body.as_object_mut() {
        body.shift_remove("cursor");
    }
    body.to_string().split_off(1)
}
