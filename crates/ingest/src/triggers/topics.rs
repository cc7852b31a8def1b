//! Topics of others whose records start jobs: each is followed for itself, so that one that is not there, or cannot be
//! read, holds up no other, and makes no process unready.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bus::admin::Admin;
use bus::{FollowerOptions, TopicPartition};
use flow::definition::{ReadFrom, Trigger};
use inbox::Inbox;
use service_kit::health::Readiness;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::records::{Records, of_topic};
use crate::commands::Commands;
use crate::plan::Planner;
use crate::settings::Settings;
use crate::state::Api;

/// The pause between looks for a topic that is not there yet.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The pause before a topic is read again after an error that is a person's to mend.
const RETRY: Duration = Duration::from_secs(30);
/// The interval at which the lag is looked at.
const LAG_INTERVAL: Duration = Duration::from_secs(15);
const LAG: &str = "meanwhile_trigger_lag";

/// Follows the topics that active flows name, until shutdown.
pub(super) async fn keep(api: &Arc<Api>, planner: &Planner, settings: &Settings, shutdown: &CancellationToken) {
    let mut changes = api.catalog.changes();
    let mut followed: HashMap<String, CancellationToken> = HashMap::new();
    let mut running = JoinSet::new();
    loop {
        changes.mark_unchanged();
        let flows = api.catalog.list();
        let topics = flows.iter().filter_map(|flow| flow.trigger().and_then(Trigger::topic));
        let wanted: BTreeSet<String> = topics.map(|topic| topic.name.clone()).collect();
        followed.retain(|topic, stop| {
            let stays = wanted.contains(topic);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for topic in wanted {
            if followed.contains_key(&topic) {
                continue;
            }
            let stop = shutdown.child_token();
            let following = Following {
                api: Arc::clone(api),
                planner: planner.clone(),
                settings: settings.clone(),
                topic: topic.clone(),
            };
            running.spawn(following.run(stop.clone()));
            followed.insert(topic, stop);
        }
        tokio::select! {
            _ = changes.changed() => {}
            Some(_) = running.join_next() => {}
            () = shutdown.cancelled() => break,
        }
    }
    while running.join_next().await.is_some() {}
}

/// One topic.
struct Following {
    api: Arc<Api>,
    planner: Planner,
    settings: Settings,
    topic: String,
}

impl Following {
    async fn run(self, stop: CancellationToken) {
        let topic = self.topic.as_str();
        let own = format!("{}.", self.settings.topics.prefix());
        if topic.starts_with(&own) {
            tracing::error!(topic, "a flow is triggered by a topic of Meanwhile's own; it is not read");
            return;
        }
        loop {
            match self.follow(&stop).await {
                Ok(()) => break,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(topic, error, "the topic of a trigger cannot be read; retrying");
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                break;
            }
        }
        metrics::gauge!(LAG, "topic" => self.topic.clone()).set(0.0);
    }

    /// Reads the topic until `stop`.
    async fn follow(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let Self { api, settings, topic, .. } = self;
        let admin = Admin::new(&settings.bus)?;
        let Some(there) = stop.run_until_cancelled(self.until_there(&admin)).await else { return Ok(()) };
        there?;
        self.begin(&admin).await?;
        let caller = settings.config.commands_caller();
        let door = Commands { api: Arc::clone(api), planner: self.planner.clone(), caller, is_waiting: false };
        // Its own: the doors of this process stay open while a topic of others cannot be read.
        let readiness = Readiness::new(api.clock.clone(), "ingest");
        let inbox = Inbox::new(settings.bus.clone(), api.pool.clone(), readiness);
        let group = settings.topics.trigger_group(topic);
        let reading = inbox.run(FollowerOptions::new(group, [topic.as_str()]), Records::new(door), stop);
        tokio::select! {
            outcome = reading => outcome.with_context(|| format!("{topic}: see docs/runbooks/trigger-topic.md")),
            () = self.watch_lag(&admin) => Ok(()),
        }
    }

    async fn until_there(&self, admin: &Admin) -> anyhow::Result<()> {
        let mut told = false;
        while !admin.topic_exists(&self.topic).await? {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(topic = self.topic, "the topic of a trigger does not exist yet; it is looked for");
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Stores where partitions begin that were never read. A broker of `meanwhile dev` holds nothing that is old.
    async fn begin(&self, admin: &Admin) -> anyhow::Result<()> {
        let flows = self.api.catalog.list();
        let reads_all = of_topic(&flows, &self.topic).any(|(_, topic)| topic.from == ReadFrom::Beginning);
        if reads_all || self.api.dev_capacity.is_some() {
            return Ok(());
        }
        let stored = store::flows::all(&self.api.pool).await?;
        let is_active = |it: &&store::flows::AppliedFlow| {
            of_topic(&flows, &self.topic).any(|(flow, _)| (flow.name(), flow.version()) == (&it.flow, &it.version))
        };
        let Some(applied_ms) = stored.iter().filter(is_active).map(|it| it.applied_at_ms).min() else { return Ok(()) };
        // The ends first: what comes in between is found by its time.
        let ends = admin.end_offsets(std::slice::from_ref(&self.topic)).await?;
        let newer = admin.offsets_at(&self.topic, applied_ms).await?;
        let begin = |(place, end): (TopicPartition, i64)| {
            let offset = newer.get(&place).copied().unwrap_or(end);
            (place, offset)
        };
        let begins: Vec<_> = ends.into_iter().map(begin).collect();
        Ok(store::offsets::begin_at(&self.api.pool, &begins).await?)
    }

    /// Never ends.
    async fn watch_lag(&self, admin: &Admin) {
        loop {
            if let Ok(lag) = self.lag(admin).await {
                metrics::gauge!(LAG, "topic" => self.topic.clone()).set(lag as f64);
            }
            tokio::time::sleep(LAG_INTERVAL).await;
        }
    }

    async fn lag(&self, admin: &Admin) -> anyhow::Result<i64> {
        let offsets = admin.offsets(std::slice::from_ref(&self.topic)).await?;
        let places: Vec<TopicPartition> = offsets.keys().cloned().collect();
        let read = store::offsets::positions(&self.api.pool, &places).await?;
        let lag = |((begin, end), next): (&(i64, i64), Option<i64>)| (end - next.unwrap_or(*begin)).max(0);
        Ok(offsets.values().zip(read).map(lag).sum())
    }
}
