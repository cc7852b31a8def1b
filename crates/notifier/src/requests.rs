//! What people ask for: pings, and deliveries once more. Notifications of Postgres wake this loop and the deliveries.

use std::sync::Arc;
use std::time::Duration;

use service_kit::error_chain;
use service_kit::health::Readiness;
use service_kit::identity::{Clock, Ids};
use store::Pool;
use store::webhooks::{self, Action, Asked, NewDelivery};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::payload;

/// The pause while Postgres is down.
const RETRY: Duration = Duration::from_secs(1);
/// Notifications may be lost with a connection: after this time it looks all the same.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The loop's tools.
pub(crate) struct Requests {
    pub(crate) pool: Pool,
    /// With a connection of its own.
    pub(crate) listening: Pool,
    /// Wakes the deliveries.
    pub(crate) wake: Arc<Notify>,
    pub(crate) readiness: Readiness,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
}

impl Requests {
    /// Runs until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        while !shutdown.is_cancelled() {
            if let Some(Err(error)) = shutdown.run_until_cancelled(self.listen()).await {
                self.readiness.missing("postgres", error_chain(&error));
                let _ = shutdown.run_until_cancelled(tokio::time::sleep(RETRY)).await;
            }
        }
        Ok(())
    }

    async fn listen(&self) -> Result<(), store::Error> {
        let mut listener = webhooks::listen(&self.listening).await?;
        loop {
            while self.take().await? {}
            self.readiness.ready("postgres");
            self.wake.notify_one();
            if !listener.heard_within(LOOK_EVERY).await? {
                // What was asked since is found once it listens anew.
                return Ok(());
            }
        }
    }

    /// Takes what is asked. False: there was nothing.
    async fn take(&self) -> Result<bool, store::Error> {
        let mut tx = self.pool.begin().await?;
        let asked = webhooks::take(&mut tx).await?;
        let now_ms = self.clock.now_ms();
        let pings: Vec<NewDelivery> = asked.iter().filter_map(|asked| self.ping(asked, now_ms)).collect();
        if !pings.is_empty() {
            webhooks::insert(&mut tx, &pings).await?;
        }
        tx.commit().await?;
        Ok(!asked.is_empty())
    }

    fn ping(&self, Asked { request, tenant }: &Asked, now_ms: i64) -> Option<NewDelivery> {
        let trace = service_kit::trace::fresh(&self.ids, 1);
        (request.action == Action::Ping).then(|| NewDelivery {
            id: request.id,
            endpoint: request.endpoint,
            of_job: false,
            tenant: tenant.clone(),
            job: None,
            kind: payload::PING.to_owned(),
            body: payload::of_ping(&request.endpoint.to_string(), now_ms),
            traceparent: Some(trace.context.to_string()),
        })
    }
}
