//! Jobs that stand still: one without an event for long, which does not rest in a hold, is announced as stuck.
//!
//! All that takes long is a hold: an attempt of more than some seconds, a pause, a wait, a turn. Any other token is on
//! its way, and moves within moments once its turn in the queue has come. So the search asks first whether anything is
//! late by itself. A job is stuck only if it has stood still for long after all of this was so: the relay had sent what
//! it had in the outbox (proved by an echo, a record that goes the same way), the workers had taken all slips of that
//! time from the queues, and their events and holds were in Postgres. What is written counts from the moment it is, not
//! only once its transaction is over: the parts of one transaction can be read at different times. A token that comes
//! to rest has moved, though no event tells so: it may go on before the next look. An outage of any of them, or a queue
//! that is behind, makes no job stuck; nor does a clock that is wrong, since times are Postgres' own.
//!
//! Any number of orchestrators may run this at once; each job is announced once.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bus::{Backlog, TopicPartition, Waiting};
use events::{Writer, cancel_tombstone};
use flow::id::JobId;
use service_kit::due::{Pace, when_due};
use service_kit::error_chain;
use service_kit::health::Readiness;
use service_kit::identity::{Clock, Ids};
use store::offsets::positions;
use store::watched::{self, LookMax, StuckJob};
use store::{Pool, outbox};
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::trace::trace_of;

/// Looks within the time after which a job is stuck.
const LOOKS: u32 = 4;
/// The pauses between looks.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));
/// The pause between attempts while Postgres is down.
const RETRY: Duration = Duration::from_secs(5);
/// The pause between two parts of a look.
const PART: Duration = Duration::from_millis(10);
/// Jobs of one part of a look.
const JOBS_MAX: u32 = 5_000;
/// Jobs that are announced in one transaction.
const ANNOUNCED_MAX: u32 = 100;
/// The time in which the projection has to come to where the topics ended, and the pause between looks at it.
const CATCH_UP: (Duration, Duration) = (Duration::from_secs(20), Duration::from_millis(250));

/// The search's tools.
pub(crate) struct Search {
    pub(crate) pool: Pool,
    pub(crate) backlog: Backlog,
    pub(crate) writer: Writer,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) stuck_after: Duration,
    pub(crate) readiness: Readiness,
    pub(crate) queues: Mutex<Queues>,
}

/// How far the queues are done.
#[derive(Default)]
pub(crate) struct Queues {
    /// Their ends once all that was committed up to this time had been sent to them.
    noted: Option<(i64, BTreeMap<TopicPartition, i64>)>,
    /// The slips that were committed up to this time are done.
    done_ms: Option<i64>,
}

impl Queues {
    /// Takes in a look, and the ends before it. They tell of a time only once the relay has sent what there was at that
    /// time: a slip may be in the outbox for long.
    fn saw(&mut self, waiting: &[Waiting], relayed_ms: Option<i64>, ends: BTreeMap<TopicPartition, i64>) {
        if let Some((noted_ms, noted)) = &self.noted {
            if !is_past(waiting, noted) {
                return;
            }
            self.done_ms = Some(*noted_ms);
        }
        self.noted = relayed_ms.map(|relayed_ms| (relayed_ms, ends));
    }
}

/// True if no record below these ends waits, or may come: all transactions that had written there are over.
fn is_past(waiting: &[Waiting], ends: &BTreeMap<TopicPartition, i64>) -> bool {
    let past = |(place, end): (&TopicPartition, &i64)| {
        let found = waiting.iter().find(|waiting| waiting.place == *place);
        found.is_some_and(|found| found.end >= *end && found.first.is_none_or(|first| first >= *end))
    };
    ends.iter().all(past)
}

impl Search {
    pub(crate) fn new(
        (bus, pool, writer, (clock, ids)): (&bus::Settings, Pool, Writer, (Clock, Ids)),
        stuck_after: Duration,
        readiness: &Readiness,
    ) -> Result<Self, bus::Error> {
        let backlog = Backlog::new(bus, &writer.topics.workers_group())?;
        let (readiness, queues) = (readiness.clone(), Mutex::default());
        Ok(Self { pool, backlog, writer, clock, ids, stuck_after, readiness, queues })
    }

    fn pause(&self) -> Duration {
        (self.stuck_after / LOOKS).clamp(PAUSE.0, PAUSE.1)
    }
}

/// Runs until shutdown. No job waits for this work.
pub(crate) async fn run(search: &Search, shutdown: &CancellationToken) {
    if search.stuck_after.is_zero() {
        return;
    }
    let never = Notify::new();
    let pace =
        Pace { dependency: "postgres", readiness: &search.readiness, interval_max: search.pause(), retry: RETRY };
    // A look may wait for the projection; nothing is lost if it ends in between.
    shutdown.run_until_cancelled(when_due(pace, &never, shutdown, || search.look())).await;
}

impl Search {
    /// One part of a look. Returns the time until the next one, if that is soon.
    async fn look(&self) -> Result<Option<Duration>, store::Error> {
        let stuck_after_ms = ms(self.stuck_after);
        let max = LookMax { jobs: JOBS_MAX, stuck_after_ms, again_after_ms: ms(self.pause()) };
        let found = watched::look(&self.pool, max).await?;
        if found.is_ripe {
            match self.up_to_date_as_of().await {
                Ok(Some(as_of_ms)) => self.announce(as_of_ms).await?,
                Ok(None) => {}
                // Kafka's absence does no harm: the next look tries again.
                Err(error) => tracing::debug!(error = error_chain(&*error), "jobs that stand still are not judged"),
            }
        }
        Ok(found.has_more.then_some(PART))
    }

    /// The time up to which everything that was on its way has come to its end, in milliseconds since the Unix epoch by
    /// Postgres' clock; none while that cannot be said. Read in the order in which tokens go, so that none passes by.
    async fn up_to_date_as_of(&self) -> anyhow::Result<Option<i64>> {
        let topics = &self.writer.topics;
        let relayed_ms = self.relayed_ms().await?;
        let Some(done_ms) = self.done_ms(relayed_ms).await? else { return Ok(None) };
        let told = [topics.events(), topics.waits()];
        let ends = self.backlog.written(&told).await.context("the ends of events and holds")?;
        let deadline = Instant::now() + CATCH_UP.0;
        while !self.is_projected(&ends).await? {
            if Instant::now() > deadline {
                return Ok(None);
            }
            tokio::time::sleep(CATCH_UP.1).await;
        }
        Ok(Some(done_ms))
    }

    /// The time whose slips the workers have taken from the queues, as of the last looks; none while it is not known.
    /// `relayed_ms`: what was committed up to then is in the queues.
    async fn done_ms(&self, relayed_ms: Option<i64>) -> anyhow::Result<Option<i64>> {
        let steps = self.writer.topics.steps("");
        let ends = self.backlog.written(std::slice::from_ref(&steps)).await.context("the ends of the queues")?;
        let waiting = self.backlog.look(&steps).await.context("the queues")?;
        let mut queues = self.queues.lock().await;
        queues.saw(&waiting, relayed_ms, ends);
        Ok(queues.done_ms)
    }

    /// The time up to which the relay has sent all that was committed; none while it is not known. Sends another echo,
    /// unless one is on its way that is younger than the time after which a job is stuck.
    async fn relayed_ms(&self) -> anyhow::Result<Option<i64>> {
        let last = watched::echo(&self.pool).await?;
        let sent_at_ms = last.sent_at_ms.unwrap_or(i64::MIN);
        let age_ms = watched::now_ms(&self.pool).await?.saturating_sub(sent_at_ms);
        if last.is_heard || age_ms >= i64::try_from(ms(self.stuck_after)).unwrap_or(i64::MAX) {
            let echo = JobId::new(self.ids.uuid());
            // A tombstone of a cancel that nobody has asked for: it means nothing to all who read it.
            let record = cancel_tombstone(&self.writer.topics, echo, &trace_of(echo));
            let mut tx = self.pool.begin().await?;
            watched::send_echo(&mut tx, echo).await?;
            outbox::append(&mut tx, &[record]).await?;
            tx.commit().await?;
        }
        Ok(last.is_heard.then_some(sent_at_ms))
    }

    /// True if all that lies below these ends is in Postgres. What lies there may be no records, but the marks of
    /// transactions.
    async fn is_projected(&self, ends: &BTreeMap<TopicPartition, i64>) -> anyhow::Result<bool> {
        let places: Vec<TopicPartition> = ends.keys().cloned().collect();
        let next = positions(&self.pool, &places).await?;
        let next = places.into_iter().zip(next).map(|(place, next)| (place, next.unwrap_or(0)));
        let behind: BTreeMap<_, _> =
            next.filter(|(place, next)| ends.get(place).is_some_and(|end| next < end)).collect();
        if behind.is_empty() {
            return Ok(true);
        }
        let to = ends.iter().filter(|(place, _)| behind.contains_key(place));
        let to = to.map(|(place, end)| (place.clone(), *end)).collect();
        let unread = self.backlog.look_from(behind).await.context("what is not projected")?;
        Ok(is_past(&unread, &to))
    }

    async fn announce(&self, as_of_ms: i64) -> Result<(), store::Error> {
        let since_ms = as_of_ms.saturating_sub(i64::try_from(ms(self.stuck_after)).unwrap_or(i64::MAX));
        let mut tx = self.pool.begin().await?;
        let stuck = watched::take_stuck(&mut tx, since_ms, ANNOUNCED_MAX).await?;
        let now_ms = self.clock.now_ms();
        let mut records = Vec::with_capacity(stuck.len());
        for job in &stuck {
            let event = job.last.clone().stuck(job.status, job.cursor, now_ms);
            // It is smaller than the event before.
            records.extend(self.writer.event(&event, &trace_of(job.facts.job)).ok());
        }
        outbox::append(&mut tx, &records).await?;
        tx.commit().await?;
        for StuckJob { facts, status, last, .. } in &stuck {
            let (status, step) = (status.as_str(), last.step.as_deref().unwrap_or_default());
            let silent_ms = now_ms.saturating_sub(last.at_ms);
            let (flow, tenant) = (facts.flow.as_str(), facts.tenant.as_str());
            tracing::warn!(job.id = %facts.job, flow, step, tenant, status, silent_ms, "job stuck");
        }
        Ok(())
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_done_once_no_slip_of_that_time_waits_or_is_in_a_transaction() {
        let place = |partition| TopicPartition::new("t.steps.q", partition);
        let ends = || BTreeMap::from([(place(0), 10), (place(1), 0)]);
        let waiting = |partition, end, first: Option<i64>| Waiting {
            place: place(partition),
            offset: 0,
            metadata: String::new(),
            end,
            records: u64::from(first.is_some()),
            first,
            oldest_ms: None,
        };
        let mut queues = Queues::default();
        queues.saw(&[], None, ends());
        queues.saw(&[], Some(1), ends());
        assert_eq!(queues.done_ms, None, "what the relay had not sent is in no queue");
        for (looked, why) in [
            (vec![waiting(0, 10, Some(9)), waiting(1, 0, None)], "a slip waits"),
            (vec![waiting(0, 9, None), waiting(1, 0, None)], "a transaction is not over"),
            (vec![waiting(1, 0, None)], "nobody knows of a partition"),
        ] {
            queues.saw(&looked, Some(2), ends());
            assert_eq!(queues.done_ms, None, "{why}");
        }
        queues.saw(&[waiting(0, 12, Some(10)), waiting(1, 5, Some(0))], None, ends());
        assert_eq!((queues.done_ms, queues.noted), (Some(1), None), "what waits came later");
    }
}
