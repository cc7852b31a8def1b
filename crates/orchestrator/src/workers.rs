//! Watches workers with long calls. A worker that is silent for too long is asked; a worker that does not answer is
//! lost. Its calls are sent to others, a bounded part of them in each transaction. The loop sleeps until the next
//! worker is due, or one is lost.

use std::sync::Arc;
use std::time::Duration;

use events::Writer;
use events::wait::Wait;
use service_kit::due::{Pace, when_due};
use service_kit::health::Readiness;
use service_kit::identity::Ids;
use service_kit::stop_at;
use service_kit::trace::fresh;
use store::lanes::ReleaseMax;
use store::workers::{LostReason, Notice, Released, ask_silent, next_due_ms, release_lost};
use store::{Pool, outbox};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The pause between attempts while Postgres is down.
const RETRY: Duration = Duration::from_secs(1);
/// The pause while other orchestrators do the work that is due.
const BUSY: Duration = Duration::from_millis(50);
/// Workers asked in one transaction, at most.
const ASKED_MAX: u32 = 500;
/// Bytes of calls sent on in one transaction, at most.
const RELEASED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The time for which the record of a worker's loss is kept, so that the worker may come back and read it: 1 day.
const NOTICE_KEPT_MS: u64 = 86_400_000;

/// The loop's tools and limits.
pub(crate) struct Watch {
    pub(crate) pool: Pool,
    pub(crate) writer: Writer,
    pub(crate) ids: Ids,
    pub(crate) worker_lost: Arc<Notify>,
    /// Calls sent on in one transaction, at most.
    pub(crate) batch_max: u32,
    pub(crate) check_every: Duration,
    pub(crate) readiness: Readiness,
}

/// Runs until shutdown. Any number of orchestrators may run this at once.
pub(crate) async fn run(watch: &Watch, shutdown: &CancellationToken) {
    let Watch { worker_lost, check_every, readiness, .. } = watch;
    // The counters exist from the first scrape on, so that the first loss is an increase.
    for reason in [LostReason::Silent, LostReason::Restarted] {
        metrics::counter!("meanwhile_workers_lost_total", "reason" => reason.as_str()).increment(0);
    }
    metrics::counter!("meanwhile_outcomes_refused_total").increment(0);
    let pace = Pace { dependency: "postgres", readiness, interval_max: *check_every, retry: RETRY };
    when_due(pace, worker_lost, shutdown, || watch.look()).await;
}

impl Watch {
    /// Does the work that is due. Returns the time until more is due.
    async fn look(&self) -> Result<Option<Duration>, store::Error> {
        let in_ms = next_due_ms(&self.pool).await?;
        if in_ms != Some(0) {
            return Ok(in_ms.map(Duration::from_millis));
        }
        let asked = self.ask().await?;
        let released = self.release().await?;
        Ok(Some(if asked || released { Duration::ZERO } else { BUSY }))
    }

    async fn ask(&self) -> Result<bool, store::Error> {
        let mut tx = self.pool.begin().await?;
        let questions = ask_silent(&mut tx, ASKED_MAX).await?;
        let mut records = Vec::with_capacity(questions.len());
        for question in &questions {
            let record = self.writer.wait(&Wait::Question(question.clone()), &fresh(&self.ids, 0));
            records.push(record.map_err(|error| store::Error::Corrupt(error.to_string()))?);
        }
        outbox::append(&mut tx, &records).await?;
        stop_at("orchestrator.before-question");
        tx.commit().await?;
        Ok(!questions.is_empty())
    }

    async fn release(&self) -> Result<bool, store::Error> {
        let max = ReleaseMax { holds: self.batch_max, bytes: RELEASED_BYTES_MAX };
        let notice = Notice { topics: &self.writer.topics, kept_ms: NOTICE_KEPT_MS };
        let Some(released) = release_lost(&self.pool, max, &notice).await? else { return Ok(false) };
        stop_at("orchestrator.after-lost");
        let Released { worker, reason, calls, finished } = released;
        let reason = reason.as_str();
        metrics::counter!("meanwhile_holds_released_total").increment(u64::from(calls));
        if let Some(calls) = finished.filter(|calls| *calls > 0) {
            metrics::counter!("meanwhile_workers_lost_total", "reason" => reason).increment(1);
            tracing::warn!(worker, reason, calls, "worker lost; its long calls are made again");
        }
        Ok(true)
    }
}
