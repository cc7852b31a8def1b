//! Reading slips. The registry may not answer when a slip's schema is not known yet, or may not know it for a while.
//! Then such a slip rests as it is, so that slips of other keys behind it go on. It is read when it is sent again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bus::{Inbound, Record, RegistryError, Unreadable};
use events::dead_letter::{Class, Refused};
use events::lane::HeldLane;
use events::trace::Trace;
use events::wait::{Unread, UnreadRest, Wait};
use events::{decode_slip, header, release};
use flow::decide::Missing;
use flow::definition::Definition;
use flow::id::{JobId, TokenId};
use flow::slip::{HoldReason, Slip};
use service_kit::error_chain;
use service_kit::retry::Backoff;
use service_kit::tasks::spawn_detached;
use tokio::time::Instant;

use crate::held::Errand;
use crate::run_step::{NotRead, Runner};
use crate::spans;
use crate::task::Task;

/// The registry has so long for one answer where nobody waits for it.
const ONE_ATTEMPT: Duration = Duration::from_millis(100);

impl Runner {
    /// Reads the slip; waits for the registry only as long as a step may hold its partition.
    pub(crate) async fn read(&self, task: &Task) -> Result<Slip, NotRead> {
        let record = &task.work.record;
        match record.key.as_deref().map(std::str::from_utf8) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(unreadable(format!("the key is not UTF-8: {error}"))),
            None => return Err(unreadable("a slip has a key, this record has none")),
        }
        // One that is to rest in any case does not wait, and no one does while the registry is known to be away.
        let until = match task.work.errand {
            Errand::Run(_) if !self.registry_missed.load(Ordering::Relaxed) => task.since + self.leave_after,
            Errand::Run(_) | Errand::Rest(..) | Errand::Free(_) => Instant::now() + ONE_ATTEMPT,
        };
        let Ok(read) = tokio::time::timeout_at(until, self.read_value(record)).await else {
            self.miss_registry();
            return Err(NotRead::NotNow);
        };
        let mut slip = read?;
        release::note(&mut slip, &record.headers);
        Ok(if task.work.redelivered { flow::decide::redelivered(slip) } else { slip })
    }

    /// Waits as long as the registry does not answer.
    async fn read_value(&self, record: &Inbound) -> Result<Slip, NotRead> {
        let mut backoff = Backoff::default();
        loop {
            match self.reader.read(record.value.as_deref(), decode_slip).await {
                Ok(slip) => return Ok(slip),
                Err(Unreadable::Never(reason)) => return Err(unreadable(reason)),
                Err(Unreadable::Newer(what)) => return Err(NotRead::Newer(what)),
                // It does not know the schema yet, and answers: looking again at once does not help.
                Err(Unreadable::NotNow(RegistryError::Unknown(_))) => return Err(NotRead::NotNow),
                Err(Unreadable::NotNow(_)) => {
                    self.miss_registry();
                    tokio::time::sleep(backoff.next_delay(&self.ids)).await;
                }
            }
        }
    }

    /// Makes the process not ready until the registry answers again.
    fn miss_registry(&self) {
        if self.registry_missed.swap(true, Ordering::Relaxed) {
            return;
        }
        self.readiness.missing("registry", "it does not answer, and the schema of a slip is not known yet");
        let (reader, readiness, missed) =
            (self.reader.clone(), self.readiness.clone(), Arc::clone(&self.registry_missed));
        spawn_detached(async move {
            reader.until_registry_answers().await;
            missed.store(false, Ordering::Relaxed);
            readiness.ready("registry");
        });
    }

    /// The flow that a slip names. None: the flows' topic could not be read to its end in time.
    pub(crate) async fn definition_of(&self, task: &Task, slip: &Slip) -> Option<Result<Definition, Missing>> {
        tokio::time::timeout_at(task.since + self.leave_after, self.definition(slip)).await.ok()
    }

    /// The hold of a slip that was not read, and of its lane where it is to hold it.
    pub(crate) async fn rest_unread(&self, task: &Task, rest: UnreadRest) -> Result<Vec<Record>, Refused> {
        let record = &task.work.record;
        let span = spans::process(record, self.writer.topics.prefix());
        let trace = span.carry_on(Trace::from_headers(&record.headers), &self.ids);
        let reason = match rest {
            UnreadRest::Until(_) => HoldReason::Unread,
            UnreadRest::Behind(..) => HoldReason::Turn,
        };
        let wait = Wait::Unread(Unread {
            token: token_of(record),
            lane: lane_of(record),
            read_at: format!("{}/{}/{}", record.topic, record.partition, record.offset),
            record: Record {
                topic: record.topic.clone(),
                key: record.key.clone(),
                value: record.value.clone(),
                headers: record.headers.clone(),
            },
            rest,
        });
        let wait = self.writer.wait(&wait, &trace);
        let wait = wait.map_err(|error| Refused::new(Class::TooLarge, error_chain(&error)))?;
        if let Some(misfit) = self.limits.misfit(&wait, 0).await {
            return Err(Refused::new(Class::TooLarge, misfit));
        }
        metrics::counter!("meanwhile_holds_total", "reason" => reason.as_str().to_owned()).increment(1);
        Ok(vec![wait])
    }

    /// Lays a slip to rest that was not read. It holds its lane meanwhile.
    pub(crate) async fn rest_until_read(&self, task: &Task, rest_ms: u64) -> Result<(Vec<Record>, HeldLane), Refused> {
        let mut records = self.rest_unread(task, UnreadRest::Until(rest_ms)).await?;
        let record = &task.work.record;
        let lane = task.work.lane_held_by(lane_of(record), &token_of(record));
        records.push(lane.record(&self.writer.topics));
        Ok((records, lane))
    }
}

fn unreadable(reason: impl Into<String>) -> NotRead {
    NotRead::Refused(Refused::new(Class::Unreadable, reason))
}

/// The record key; it was checked to be UTF-8.
fn lane_of(record: &Inbound) -> String {
    String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned()
}

/// A name for this rest: of the job in the headers, if one stands there, and of the place where the record was read.
/// Each rest has another, so that nothing that waited behind one passes the next.
fn token_of(record: &Inbound) -> TokenId {
    let job = record.header_text(header::JOB_ID).and_then(|job| job.parse().ok());
    TokenId {
        job: job.unwrap_or_else(|| JobId::new(uuid::Uuid::nil())),
        branch: format!("{}/{}/{}", record.topic, record.partition, record.offset),
        hop: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_that_was_not_read_is_known_by_its_job_and_by_where_it_was_read() {
        let mut record = Inbound { topic: "m.steps.q".to_owned(), partition: 3, offset: 7, ..Inbound::default() };
        let place = token_of(&record);
        assert_eq!((place.branch.as_str(), place.hop), ("m.steps.q/3/7", 0));
        assert_eq!(place.to_string().parse(), Ok(place.clone()), "it can be waited behind");
        let job = JobId::new(uuid::Uuid::from_u128(1));
        record.headers.push_text(header::JOB_ID, job);
        assert_eq!(token_of(&record), TokenId { job, ..place });
        record.offset = 8;
        assert_ne!(token_of(&record).branch, "m.steps.q/3/7", "it rests again under another name");
    }
}
