//! What is known of how long flows' jobs take. Read from Postgres for the flows that somebody asks about, beside the
//! requests: none waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use store::Pool;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::estimate::Expected;

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

/// Runs until shutdown.
pub(crate) async fn keep(
    estimates: &Estimates,
    (pool, catalog): (&Pool, &Catalog),
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let reading = async {
        loop {
            for name in estimates.due(Instant::now()) {
                let expected = read(pool, catalog, &name).await;
                estimates.learn(&name, expected, Instant::now());
            }
            tokio::time::sleep(PAUSE).await;
            // A timeout is no error: it is time to look again.
            tokio::time::timeout(READ_EVERY - PAUSE, estimates.asked.notified()).await.ok();
        }
    };
    shutdown.run_until_cancelled(reading).await;
    Ok(())
}

async fn read(pool: &Pool, catalog: &Catalog, (tenant, flow): &Name) -> Option<Expected> {
    let definition = catalog.active(flow)?;
    let steps: Vec<String> =
        std::iter::once(String::new()).chain(definition.steps().iter().map(|step| step.id.clone())).collect();
    let limits = (MINUTES_MAX, ENDS_ENOUGH);
    let reading = store::statistics::latest(pool, (tenant, flow), &steps, limits);
    match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(Ok(steps)) => Some(Expected::of(steps)),
        Ok(Err(error)) => {
            tracing::debug!(flow, %error, "statistics cannot be read");
            None
        }
        Err(_) => None,
    }
}
