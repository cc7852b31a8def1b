//! The loop of deliveries: record what has ended, lease what is due, send it. It sleeps until something is due, ends or
//! comes in.
//!
//! Promise: an attempt is recorded before its delivery is begun again, unless the process dies or Postgres is away for
//! longer than the lease: then the receiver gets the same `webhook-id` once more, and never none.
//!
//! Each endpoint has its own room, and one that fails has room for one, so none waits for another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use service_kit::health::Readiness;
use service_kit::identity::{Clock, Ids};
use service_kit::{error_chain, stop_at};
use store::Pool;
use store::webhooks::{self, Disabled, Due, Leased, NewDelivery, Outcome, Rest};
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::payload;
use crate::send::{Sender, Sent};

/// The pause while Postgres is down.
const RETRY: Duration = Duration::from_secs(1);
/// Beside the receiver's time, a lease has time for being recorded.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// A process that leaves waits for answers for so long. It records them: what is not recorded is sent again.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The loop's tools.
pub(crate) struct Deliver {
    pub(crate) pool: Pool,
    pub(crate) sender: Arc<Sender>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) readiness: Readiness,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) timeout: Duration,
    pub(crate) deliveries_max: u32,
    pub(crate) per_endpoint_max: u32,
    pub(crate) check_every: Duration,
    pub(crate) failing_max: Duration,
}

/// Deliveries under way, and those that have ended and are not recorded.
#[derive(Default)]
struct UnderWay {
    sending: JoinSet<Sent>,
    ended: Vec<Sent>,
    /// The endpoints of those under way.
    endpoints: HashMap<Id, Uuid>,
}

impl UnderWay {
    fn begin(&mut self, due: Due, sender: &Arc<Sender>) {
        let (endpoint, sender) = (due.endpoint, Arc::clone(sender));
        let task = self.sending.spawn(async move { sender.send(due).await });
        self.endpoints.insert(task.id(), endpoint);
    }

    /// Waits for the next one to end; never, while none is under way.
    async fn next(&mut self) {
        match self.sending.join_next_with_id().await {
            Some(ended) => self.note(ended),
            None => std::future::pending().await,
        }
    }

    /// Takes what has ended by now.
    fn collect(&mut self) {
        while let Some(ended) = self.sending.try_join_next_with_id() {
            self.note(ended);
        }
    }

    fn note(&mut self, ended: Result<(Id, Sent), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        self.endpoints.remove(&id);
        // One that has panicked is due again when its lease runs out.
        self.ended.extend(ended.map(|(_, sent)| sent));
    }

    /// By endpoint.
    fn busy(&self) -> Vec<(Uuid, u32)> {
        let mut busy: HashMap<Uuid, u32> = HashMap::new();
        for endpoint in self.endpoints.values() {
            *busy.entry(*endpoint).or_default() += 1;
        }
        busy.into_iter().collect()
    }
}

impl Deliver {
    /// Runs until shutdown, and lets what is under way end.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut under_way = UnderWay::default();
        while !shutdown.is_cancelled() {
            // The wake-up is registered before the look, so that none between the look and the sleep is missed.
            let woken = self.wake.notified();
            let pause = match self.round(&mut under_way).await {
                Ok(pause) => {
                    self.readiness.ready("postgres");
                    pause
                }
                Err(error) => {
                    self.readiness.missing("postgres", error_chain(&error));
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = woken => {}
                () = under_way.next() => {}
                () = shutdown.cancelled() => {}
            }
        }
        let leaving = async {
            while !under_way.sending.is_empty() {
                under_way.next().await;
            }
        };
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, leaving).await;
        under_way.collect();
        if let Err(error) = self.record(&under_way.ended).await {
            tracing::debug!(error = error_chain(&error), "the last deliveries are not recorded: they are made again");
        }
        Ok(())
    }

    /// Records what has ended and begins what is due. Returns the time until the next look.
    async fn round(&self, under_way: &mut UnderWay) -> Result<Duration, store::Error> {
        under_way.collect();
        if !under_way.ended.is_empty() {
            self.record(&under_way.ended).await?;
            under_way.ended.clear();
        }
        let busy = u32::try_from(under_way.endpoints.len()).unwrap_or(u32::MAX);
        let room = self.deliveries_max.saturating_sub(busy);
        if room == 0 {
            return Ok(self.check_every);
        }
        let leased = Leased {
            deliveries_max: room,
            per_endpoint_max: self.per_endpoint_max,
            lease: self.timeout + LEASE_MARGIN,
            busy: under_way.busy(),
        };
        let due = webhooks::lease(&self.pool, &leased).await?;
        if due.is_empty() {
            let next_due = webhooks::next_due(&self.pool).await?;
            return Ok(next_due.map_or(self.check_every, |next_due| next_due.min(self.check_every)));
        }
        let is_full = due.len() >= room as usize;
        due.into_iter().for_each(|due| under_way.begin(due, &self.sender));
        if is_full {
            // There may be more than this process can take.
            webhooks::tell(&self.pool).await?;
        }
        Ok(Duration::ZERO)
    }

    /// Records attempts, and what they say of their endpoints, in one transaction.
    async fn record(&self, ended: &[Sent]) -> Result<(), store::Error> {
        if ended.is_empty() {
            return Ok(());
        }
        stop_at("notifier.before-record");
        let (outcomes, rests) = (outcomes(ended), rests(ended));
        let mut tx = self.pool.begin().await?;
        webhooks::record(&mut tx, &outcomes).await?;
        let gone: Vec<Uuid> = ended.iter().filter_map(gone_job).collect();
        if !gone.is_empty() {
            webhooks::end_of_jobs(&mut tx, &gone).await?;
        }
        webhooks::rest(&mut tx, &rests).await?;
        let failing_max_ms = i64::try_from(self.failing_max.as_millis()).unwrap_or(i64::MAX);
        let disabled = webhooks::disable(&mut tx, &rests, failing_max_ms).await?;
        if !disabled.is_empty() {
            let told = self.tell_of(&disabled).await?;
            webhooks::insert(&mut tx, &told).await?;
        }
        tx.commit().await?;
        ended.iter().for_each(count);
        disabled.iter().for_each(log_disabled);
        Ok(())
    }

    /// The deliveries that tell the tenant's other endpoints of these.
    async fn tell_of(&self, disabled: &[Disabled]) -> Result<Vec<NewDelivery>, store::Error> {
        let subscriptions = webhooks::subscriptions(&self.pool).await?;
        let now_ms = self.clock.now_ms();
        let told = disabled.iter().flat_map(|disabled| {
            let wanted = subscriptions.iter().filter(|subscription| {
                disabled.concerns(subscription) && payload::is_wanted(&subscription.events, payload::DISABLED)
            });
            wanted.map(|subscription| NewDelivery {
                id: self.ids.uuid_v7(now_ms),
                endpoint: subscription.endpoint,
                of_job: false,
                tenant: subscription.tenant.clone(),
                job: None,
                kind: payload::DISABLED.to_owned(),
                body: payload::of_disabled(disabled, now_ms),
                traceparent: None,
            })
        });
        Ok(told.collect())
    }
}

fn outcomes(ended: &[Sent]) -> Vec<Outcome> {
    let outcome = |Sent { due, verdict, took }: &Sent| Outcome {
        delivery: due.id,
        attempt: due.attempt,
        duration_ms: i64::try_from(took.as_millis()).unwrap_or(i64::MAX),
        status: verdict.status.map(i32::from),
        error: verdict.error,
        detail: verdict.detail.as_deref().map(|text| text.replace('\0', " ")),
        answer: verdict.answer.clone(),
        again_in_ms: verdict.again_in_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
    };
    ended.iter().map(outcome).collect()
}

/// The job whose own webhook has ended with this attempt.
fn gone_job(Sent { due, verdict, .. }: &Sent) -> Option<Uuid> {
    due.job.filter(|_| due.of_job && verdict.is_gone)
}

/// Of each endpoint, what its last attempt says; one that is gone stays so.
fn rests(ended: &[Sent]) -> Vec<Rest> {
    let mut rests: HashMap<Uuid, Rest> = HashMap::new();
    for Sent { due, verdict, .. } in ended {
        let rest = Rest {
            endpoint: due.endpoint,
            epoch: due.epoch,
            // A receiver that wants no more of one job is well.
            is_well: verdict.error.is_none() || (verdict.is_gone && due.of_job),
            is_slow: verdict.is_slow,
            pause_ms: i64::try_from(verdict.pause_ms).unwrap_or(i64::MAX),
            is_gone: verdict.is_gone && !due.of_job,
        };
        let known = rests.entry(due.endpoint).or_insert(rest);
        if !known.is_gone && known.epoch <= rest.epoch {
            *known = rest;
        }
    }
    rests.into_values().collect()
}

fn count(Sent { verdict, took, .. }: &Sent) {
    let outcome = match (verdict.error, verdict.again_in_ms) {
        (None, _) => "delivered",
        (Some(_), Some(_)) => "retrying",
        (Some(_), None) => "failed",
    };
    metrics::counter!("meanwhile_webhook_attempts_total", "outcome" => outcome).increment(1);
    metrics::histogram!("meanwhile_webhook_attempt_seconds", "outcome" => outcome).record(*took);
}

fn log_disabled(Disabled { endpoint, tenant, reason, .. }: &Disabled) {
    metrics::counter!("meanwhile_webhook_endpoints_disabled_total").increment(1);
    tracing::warn!(%endpoint, tenant, reason, "webhook endpoint disabled");
}
