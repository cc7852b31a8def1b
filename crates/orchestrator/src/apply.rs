//! Writes values in one Postgres transaction: projection, holds, resumed tokens, dead letters' index, refused records.

use std::sync::Arc;
use std::time::Duration;

use bus::{Inbound, RecordBatch};
use events::dead_letter::{Class, Refused};
use flow::event::EventKind;
use flow::id::JobId;
use flow::slip::HoldReason;
use inbox::{Error, Service};
use service_kit::stop_at;
use store::jobs::ObservedEvent;
use store::{Tx, dead_letters, holds, jobs, outbox, watched};
use tokio::sync::Notify;

use crate::breaker::BreakerConfig;
use crate::breakers::{self, Teller};
use crate::cancels;
use crate::resume::Resumer;
use crate::signals;
use crate::take_in::{TakeIn, TakenIn, log_refused};

/// Applies batches.
pub(crate) struct Orchestrator {
    pub(crate) take_in: TakeIn,
    /// Wakes the release loop: a new hold may be the next that is due.
    pub(crate) hold_came: Arc<Notify>,
    /// Wakes the loop that sends a lost worker's calls to others.
    pub(crate) worker_lost: Arc<Notify>,
    /// Woken when cancels were noted.
    pub(crate) cancel_came: Arc<Notify>,
    pub(crate) breakers: OfBreakers,
    /// The time without progress after which a job is stuck; zero: none is.
    pub(crate) stuck_after: Duration,
}

impl Orchestrator {
    /// The jobs whose acceptance comes so late that the search for stuck ones may have passed them.
    fn late(&self, events: &[ObservedEvent]) -> Vec<JobId> {
        let half_ms = i64::try_from(self.stuck_after.as_millis() / 2).unwrap_or(i64::MAX);
        let before_ms = self.take_in.clock.now_ms().saturating_sub(half_ms);
        let accepted = events.iter().filter(|observed| observed.event.kind == EventKind::JobAccepted);
        let late = accepted.map(|observed| observed.event.job).filter(|job| job.created_at_ms() < before_ms);
        if self.stuck_after.is_zero() { Vec::new() } else { late.collect() }
    }
}

/// What the breakers need.
pub(crate) struct OfBreakers {
    pub(crate) teller: Teller,
    pub(crate) config: BreakerConfig,
    /// Wakes the loop that lets holds pass.
    pub(crate) changed: Arc<Notify>,
}

impl Service for Orchestrator {
    type Effects = TakenIn;

    async fn read(&mut self, batch: &RecordBatch) -> Result<TakenIn, Error> {
        Ok(self.take_in.read(batch).await?)
    }

    fn refuse(&mut self, record: &Inbound, reason: &str) -> TakenIn {
        let mut taken_in = TakenIn { records: 1, ..TakenIn::default() };
        // A dead letter that cannot be indexed stays where it is: refusing it would make another one, for ever.
        if record.topic != self.take_in.writer.topics.dead_letters() {
            self.take_in.refuse(record, Refused::new(Class::NotStorable, reason), &mut taken_in);
        }
        taken_in
    }

    async fn write(&mut self, tx: &mut Tx, taken_in: &mut TakenIn) -> Result<(), Error> {
        jobs::project(tx, &taken_in.events).await?;
        watched::add(tx, &self.late(&taken_in.events)).await?;
        watched::hear(tx, &taken_in.tombstones).await?;
        let rested = taken_in.holds.iter().map(|hold| hold.token.job).chain(taken_in.long_calls.rested());
        watched::rest(tx, &rested.collect::<Vec<_>>()).await?;
        holds::insert(tx, &taken_in.holds).await?;
        taken_in.long_calls.write(tx).await?;
        // Written after the holds: a resumed token may be one of them.
        let TakeIn { writer, reader, clock } = &self.take_in;
        taken_in.resumed = Resumer { writer, reader, clock }.resume(tx, &taken_in.to_resume).await?;
        outbox::append(tx, &taken_in.resumed.records).await?;
        taken_in.signalled = signals::meet(tx, &taken_in.holds, &taken_in.signals).await?;
        // A token whose signal is there goes on by that: the workers know of the cancel too.
        let (holds, events) = (taken_in.holds.as_slice(), taken_in.events.as_slice());
        taken_in.met = cancels::meet(tx, (&writer.topics, reader), (holds, events), &taken_in.cancels).await?;
        let OfBreakers { teller, config, .. } = &self.breakers;
        let of_breakers = (taken_in.breakers.as_slice(), taken_in.holds.as_slice());
        taken_in.changed = breakers::take_in(tx, teller, of_breakers, config).await?;
        dead_letters::index(tx, &taken_in.indexed).await?;
        outbox::append(tx, &taken_in.dead_letters).await?;
        stop_at("orchestrator.before-commit");
        Ok(())
    }

    fn committed(&mut self, taken_in: TakenIn) {
        stop_at("orchestrator.after-commit");
        taken_in.refused.iter().for_each(log_refused);
        taken_in.resumed.log();
        metrics::counter!("meanwhile_holds_released_total").increment(taken_in.signalled);
        taken_in.met.count();
        let lost = taken_in.long_calls.log();
        if lost > 0 {
            self.worker_lost.notify_one();
        }
        if !taken_in.cancels.is_empty() {
            self.cancel_came.notify_one();
        }
        if taken_in.changed.log() || taken_in.holds.iter().any(|hold| hold.reason == HoldReason::Breaker) {
            self.breakers.changed.notify_one();
        }
        if taken_in.has_new_due() {
            self.hold_came.notify_one();
        }
        metrics::histogram!("meanwhile_take_in_batch_size").record(taken_in.records as f64);
    }

    fn failed(&mut self, taken_in: TakenIn, error: &Error) {
        taken_in.spans.iter().for_each(|span| span.fail("not-stored", error));
    }
}
