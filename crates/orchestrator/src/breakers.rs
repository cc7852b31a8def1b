//! Breakers of downstreams: news of them are taken in, and those that are due let holds pass.
//!
//! Every change locks the breaker's row, and is told to the workers through the outbox, in the same transaction.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bus::Record;
use events::breaker::{Breaker, BreakerNews};
use events::release;
use events::topic::Topics;
use flow::slip::{HoldReason, Pass, ReleasedBy};
use service_kit::due::{Pace, when_due};
use service_kit::health::Readiness;
use service_kit::identity::Ids;
use service_kit::stop_at;
use service_kit::trace::fresh;
use store::breakers::{BreakerRow, Phase, Taken, lock, lock_due, next_due_ms, save, take_held};
use store::holds::NewHold;
use store::{Pool, Tx, outbox};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::breaker::{BreakerConfig, begin, hear, hold_came, passed, wanted};

/// The pause between attempts while Postgres is down.
const RETRY: Duration = Duration::from_secs(1);
/// The pause while other orchestrators have the breakers that are due.
const BUSY: Duration = Duration::from_millis(20);

/// The changes of breakers in one transaction, to be logged once they are committed.
#[derive(Debug, Default)]
pub(crate) struct Changed(Vec<BreakerRow>);

impl Changed {
    /// Counts and logs, after the commit. True if there were any.
    pub(crate) fn log(&self) -> bool {
        for breaker in &self.0 {
            let BreakerRow { downstream, reason, ordered_by, epoch, .. } = breaker;
            let (name, phase) = (downstream.clone(), breaker.phase.as_str());
            metrics::counter!("meanwhile_breaker_changes_total", "downstream" => name, "phase" => phase).increment(1);
            if breaker.phase == Phase::Paused {
                tracing::warn!(downstream, phase, reason, ordered_by, epoch, "breaker open");
            } else {
                tracing::info!(downstream, phase, reason, ordered_by, epoch, "breaker changed");
            }
        }
        !self.0.is_empty()
    }
}

/// Makes the records about breakers.
#[derive(Debug, Clone)]
pub(crate) struct Teller {
    pub(crate) topics: Topics,
    pub(crate) ids: Ids,
}

impl Teller {
    fn record(&self, breaker: &BreakerRow) -> Record {
        let state = breaker.phase.state();
        let (downstream, epoch, forced) = (breaker.downstream.clone(), breaker.epoch, breaker.forced);
        Breaker { downstream, state, epoch, forced }.record(&self.topics, &fresh(&self.ids, 0))
    }
}

/// Takes in news, and the holds that wait for breakers, as part of the caller's transaction. To be called after the
/// holds were stored: the lock of a breaker comes after them, so that whoever lets holds pass sees all that came
/// before.
pub(crate) async fn take_in(
    tx: &mut Tx,
    teller: &Teller,
    (news, holds): (&[BreakerNews], &[NewHold]),
    config: &BreakerConfig,
) -> Result<Changed, store::Error> {
    let of_holds = holds.iter().filter(|hold| hold.reason == HoldReason::Breaker);
    let waited_for: BTreeSet<&str> = of_holds.filter_map(|hold| hold.downstream.as_deref()).collect();
    let all: BTreeSet<&str> = waited_for.iter().copied().chain(news.iter().map(|it| it.downstream.as_str())).collect();
    let mut changed = Changed::default();
    let mut records = Vec::new();
    for mut breaker in lock(tx, &all.into_iter().collect::<Vec<_>>()).await? {
        let mut heard = false;
        for it in news {
            heard |= it.downstream == breaker.downstream && hear(&mut breaker, &it.said, config);
        }
        if waited_for.contains(breaker.downstream.as_str()) {
            hold_came(&mut breaker);
        }
        save(tx, &breaker).await?;
        if heard {
            records.push(teller.record(&breaker));
            changed.0.push(breaker);
        }
    }
    outbox::append(tx, &records).await?;
    Ok(changed)
}

/// The loop's tools.
pub(crate) struct Keeper {
    pub(crate) pool: Pool,
    pub(crate) teller: Teller,
    pub(crate) config: BreakerConfig,
    pub(crate) changed: Arc<Notify>,
    pub(crate) check_every: Duration,
    pub(crate) readiness: Readiness,
}

/// Runs until shutdown. Any number of orchestrators may run this at once.
pub(crate) async fn run(keeper: &Keeper, shutdown: &CancellationToken) {
    let Keeper { changed, check_every, readiness, .. } = keeper;
    let pace = Pace { dependency: "postgres", readiness, interval_max: *check_every, retry: RETRY };
    when_due(pace, changed, shutdown, || keeper.look()).await;
}

impl Keeper {
    /// Does the work that is due. Returns the time until more is due.
    async fn look(&self) -> Result<Option<Duration>, store::Error> {
        let in_ms = next_due_ms(&self.pool).await?;
        if in_ms != Some(0) {
            return Ok(in_ms.map(Duration::from_millis));
        }
        let mut tx = self.pool.begin().await?;
        let Some(mut breaker) = lock_due(&mut tx).await? else { return Ok(Some(BUSY)) };
        let wanted = wanted(&breaker, &self.config);
        begin(&mut breaker, wanted);
        let taken = take(&mut tx, &mut breaker, wanted.holds_max).await?;
        let holds = u32::try_from(taken.records.len()).unwrap_or(u32::MAX);
        let pass = Pass { epoch: breaker.epoch, is_probe: wanted.is_probe };
        let mut records = taken.records;
        for record in &mut records {
            release::mark(record, ReleasedBy::Breaker, Some(pass.to_json().to_string().into_bytes()));
        }
        let mut changed = Changed::default();
        if passed(&mut breaker, wanted, holds, &self.config) {
            records.insert(0, self.teller.record(&breaker));
            changed.0.push(breaker.clone());
        }
        save(&mut tx, &breaker).await?;
        outbox::append(&mut tx, &records).await?;
        stop_at("orchestrator.before-pass");
        tx.commit().await?;
        stop_at("orchestrator.after-pass");
        changed.log();
        metrics::counter!("meanwhile_holds_released_total").increment(u64::from(holds));
        Ok(Some(Duration::ZERO))
    }
}

/// Takes holds from where the last look ended; where fewer are left there, once more from the beginning: the clock of a
/// transaction is that of its begin, so one that came later may stand earlier.
async fn take(tx: &mut Tx, breaker: &mut BreakerRow, holds_max: u32) -> Result<Taken, store::Error> {
    let mut taken = take_held(tx, &breaker.downstream, holds_max, breaker.released_to_us).await?;
    let left = holds_max.saturating_sub(u32::try_from(taken.records.len()).unwrap_or(u32::MAX));
    breaker.released_to_us = taken.last_held_at_us.or(breaker.released_to_us);
    if left > 0 && breaker.released_to_us.is_some() {
        let more = take_held(tx, &breaker.downstream, left, None).await?;
        taken.records.extend(more.records);
        breaker.released_to_us = None;
    }
    Ok(taken)
}
