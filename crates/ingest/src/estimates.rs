//! What is known of how long flows' jobs take. Read from Postgres for the flows that somebody asks about, beside the
//! requests: none waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::estimate::{Expected, left_ms, retry_after_s};
use crate::job_lookup::JobState;
use crate::state::Api;

/// Flows that are kept in mind.
const FLOWS_MAX: usize = 1_000;
/// The age at which what is known of a flow is read again.
const READ_EVERY: Duration = Duration::from_secs(5);
/// The pause between two rounds of reading.
const PAUSE: Duration = Duration::from_millis(250);
/// A flow that nobody has asked about for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Minutes of the past of each step, at most, and the ends that say enough.
const MINUTES_MAX: u32 = 120;
const ENDS_ENOUGH: u64 = 200;

/// A flow of a tenant.
type Name = (String, String);

struct Known {
    expected: Option<Arc<Expected>>,
    asked_at: Instant,
    read_at: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct Estimates {
    flows: Mutex<HashMap<Name, Known>>,
    /// Somebody asks about a flow of which nothing is known yet.
    asked: Notify,
}

impl Estimates {
    /// What is known of this flow now. If that is nothing, it will be looked for.
    pub(crate) fn of(&self, tenant: &str, flow: &str) -> Option<Arc<Expected>> {
        let (name, now) = ((tenant.to_owned(), flow.to_owned()), Instant::now());
        let mut flows = self.flows.lock();
        if let Some(known) = flows.get_mut(&name) {
            known.asked_at = now;
            return known.expected.clone();
        }
        if flows.len() < FLOWS_MAX {
            flows.insert(name, Known { expected: None, asked_at: now, read_at: None });
            self.asked.notify_one();
        }
        None
    }

    /// The flows that are to be read now.
    fn due(&self, now: Instant) -> Vec<Name> {
        let mut flows = self.flows.lock();
        flows.retain(|_, known| now.duration_since(known.asked_at) < FORGOTTEN_AFTER);
        let is_due = |known: &Known| known.read_at.is_none_or(|read_at| now.duration_since(read_at) >= READ_EVERY);
        flows.iter().filter(|(_, known)| is_due(known)).map(|(name, _)| name.clone()).collect()
    }

    fn learn(&self, name: &Name, expected: Option<Expected>, now: Instant) {
        if let Some(known) = self.flows.lock().get_mut(name) {
            known.read_at = Some(now);
            // Without an answer what was known before stays.
            known.expected = expected.map(Arc::new).or_else(|| known.expected.take());
        }
    }
}

/// The time until a job's end, in milliseconds; none where nothing is known of it.
pub(crate) fn of_job(api: &Api, job: &JobState) -> Option<f64> {
    let view = &job.view;
    if view.status.is_final() || job.cancel.is_some() {
        return None;
    }
    let expected = api.estimates.of(&view.tenant, &view.flow)?;
    let definition = api.catalog.version(&view.flow, &view.version)?;
    left_ms((view, &job.events), &definition, &expected, api.clock.now_ms())
}

/// The value of `Retry-After` for a job that has so much time left.
pub(crate) fn ask_again_s(api: &Api, left_ms: Option<f64>) -> u64 {
    retry_after_s(left_ms, (api.config.retry_after_s, api.config.retry_after_max_s))
}

/// The value of `Retry-After` for a job that begins now.
pub(crate) fn of_new(api: &Api, tenant: &str, flow: &str) -> u64 {
    ask_again_s(api, api.estimates.of(tenant, flow).and_then(|expected| expected.job_ms()))
}

/// Runs until shutdown.
pub(crate) async fn keep(api: Arc<Api>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let reading = async {
        loop {
            for name in api.estimates.due(Instant::now()) {
                let expected = read(&api, &name).await;
                api.estimates.learn(&name, expected, Instant::now());
            }
            tokio::time::sleep(PAUSE).await;
            // A timeout is no error: it is time to look again.
            tokio::time::timeout(READ_EVERY - PAUSE, api.estimates.asked.notified()).await.ok();
        }
    };
    shutdown.run_until_cancelled(reading).await;
    Ok(())
}

async fn read(api: &Api, (tenant, flow): &Name) -> Option<Expected> {
    let definition = api.catalog.active(flow)?;
    let steps: Vec<String> =
        std::iter::once(String::new()).chain(definition.steps().iter().map(|step| step.id.clone())).collect();
    let limits = (MINUTES_MAX, ENDS_ENOUGH);
    let reading = store::statistics::latest(&api.pool, (tenant, flow), &steps, limits);
    match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(Ok(steps)) => Some(Expected::of(steps)),
        Ok(Err(error)) => {
            tracing::debug!(flow, %error, "statistics cannot be read");
            None
        }
        Err(_) => None,
    }
}
