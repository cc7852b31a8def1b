//! What a stream sends next, whatever its form.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use web::context::{Credential, RequestContext};
use web::server::Crowd;

use super::dropped;
use super::item::{End, Item};
use super::job::JobSource;
use super::tenant::TenantSource;
use crate::state::Api;

/// The source of a stream's events.
pub(super) enum Source {
    Job(JobSource),
    Tenant(TenantSource),
}

/// One open stream.
pub(super) struct Feed {
    api: Arc<Api>,
    source: Source,
    crowd: Option<Crowd>,
    credential: Option<Credential>,
    heartbeat: Duration,
    heartbeat_at: Instant,
    is_over: bool,
}

impl Feed {
    pub(super) fn new(api: Arc<Api>, context: &RequestContext, source: Source) -> Self {
        let heartbeat = Duration::from_secs(api.config.stream_heartbeat_s.max(1));
        let heartbeat_at = Instant::now() + heartbeat;
        let (crowd, credential) = (context.crowd.clone(), context.credential.clone());
        Self { api, source, crowd, credential, heartbeat, heartbeat_at, is_over: false }
    }

    /// True if there is nothing to send, now or ever.
    pub(super) fn is_finished(&self) -> bool {
        matches!(&self.source, Source::Job(source) if source.is_finished())
    }

    /// Returns once the caller's credential has expired or is revoked.
    async fn ended(credential: Option<&Credential>, now_ms: i64) {
        let Some(Credential { until_ms, ended }) = credential else { return std::future::pending().await };
        let left_ms = until_ms.map(|until_ms| u64::try_from(until_ms - now_ms).unwrap_or(0));
        let expired = async {
            match left_ms {
                Some(left_ms) => tokio::time::sleep(Duration::from_millis(left_ms)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ended.cancelled() => {}
            () = expired => {}
        }
    }

    /// The next thing; none after the end. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Item> {
        if self.is_over {
            return None;
        }
        let api = Arc::clone(&self.api);
        let ended = Self::ended(self.credential.as_ref(), api.clock.now_ms());
        let next = async {
            loop {
                if let Some(item) = self.source.ready(&self.api).await {
                    return item;
                }
                let crowded = async {
                    match &self.crowd {
                        Some(crowd) => crowd.wanted().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = self.source.news() => {}
                    () = sleep_until(self.heartbeat_at) => return Item::Heartbeat { cursor: self.source.moved() },
                    () = crowded => return Item::End(End::Crowded),
                }
            }
        };
        let item = tokio::select! {
            biased;
            () = api.leaving.begun.cancelled() => Item::End(End::Leaving),
            () = ended => Item::End(End::Unauthorized),
            item = next => item,
        };
        self.heartbeat_at = Instant::now() + self.heartbeat;
        if let Item::End(end) = &item {
            self.is_over = true;
            match end {
                // Whoever drops it for that counts it.
                End::Finished | End::Slow => {}
                End::Leaving | End::Crowded | End::Unauthorized | End::Failed(_) => dropped(end.reason().0),
            }
        }
        Some(item)
    }

    /// Returns once the client is found to be too slow, or the process leaves, while something is being sent to it.
    pub(super) async fn over(&self) {
        let slow = async {
            match &self.source {
                Source::Job(source) => source.dropped().await,
                Source::Tenant(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = slow => {}
            () = self.api.leaving.begun.cancelled() => {}
        }
    }
}

impl Source {
    async fn ready(&mut self, api: &Api) -> Option<Item> {
        match self {
            Self::Job(source) => source.ready(api).await,
            Self::Tenant(source) => source.ready(api).await,
        }
    }

    async fn news(&mut self) {
        match self {
            Self::Job(source) => source.news().await,
            Self::Tenant(source) => source.news().await,
        }
    }

    fn moved(&mut self) -> Option<String> {
        match self {
            Self::Job(_) => None,
            Self::Tenant(source) => source.moved(),
        }
    }
}
