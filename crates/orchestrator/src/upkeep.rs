//! What is no longer needed goes: days of the projection, cancels of jobs that have ended, statistics of yesterday,
//! dead letters whose records Kafka has dropped, and records of `meanwhile.waits` that were taken in. And partitions
//! are made for the days to come.

use std::time::Duration;

use anyhow::Context;
use bus::admin::Admin;
use events::time::{DAY_MS, HOUR_MS};
use events::topic::Topics;
use service_kit::due::{Pace, at_intervals};
use service_kit::health::Readiness;
use service_kit::{Clock, error_chain};
use store::dead_letters::{self, FORGOTTEN_MAX};
use store::offsets::{TopicPartition, positions};
use store::{Pool, cancels, jobs, signals, statistics};
use tokio_util::sync::CancellationToken;

use crate::cancels::sweep;

/// The pause between rounds.
const INTERVAL: Duration = Duration::from_secs(3_600);
const SECONDS_A_DAY: u64 = 24 * 3_600;
/// The pause between attempts while Postgres is down.
const RETRY: Duration = Duration::from_secs(5);
/// Days for which partitions exist in advance.
pub(crate) const DAYS_AHEAD: u32 = 3;
/// As long as Kafka keeps the records (deploy/kafka/topics.yaml).
const DEAD_LETTERS_KEPT_MS: i64 = 30 * DAY_MS;

/// All that the upkeep needs.
pub(crate) struct Upkeep {
    pub(crate) pool: Pool,
    pub(crate) admin: Admin,
    pub(crate) clock: Clock,
    pub(crate) topics: Topics,
    pub(crate) keep_jobs_d: u32,
    pub(crate) keep_waits_h: u32,
}

impl Upkeep {
    /// Runs until shutdown. No job waits for this work.
    pub(crate) async fn run(self, readiness: Readiness, shutdown: CancellationToken) -> anyhow::Result<()> {
        let pace = Pace { dependency: "postgres", readiness: &readiness, interval_max: INTERVAL, retry: RETRY };
        at_intervals(pace, &shutdown, || self.run_once()).await;
        Ok(())
    }

    async fn run_once(&self) -> Result<(), store::Error> {
        jobs::ensure_partitions(&self.pool, DAYS_AHEAD).await?;
        if self.keep_jobs_d > 0 {
            self.retire_jobs().await?;
            let kept = Duration::from_secs(u64::from(self.keep_jobs_d) * SECONDS_A_DAY);
            signals::retire(&self.pool, kept).await?;
            while cancels::retire(&self.pool, kept).await? > 0 {}
        }
        store::sweep::jobs(&self.pool).await?;
        sweep(&self.pool, &self.topics).await?;
        statistics::forget(&self.pool).await?;
        while dead_letters::forget(&self.pool, DEAD_LETTERS_KEPT_MS).await? == FORGOTTEN_MAX.unsigned_abs() {}
        // Kafka's absence does no harm: the next round tries again.
        if let Err(error) = self.trim_waits().await {
            let error = error_chain(&*error);
            tracing::debug!(error, "the topic of holds was not trimmed");
        }
        Ok(())
    }

    async fn retire_jobs(&self) -> Result<(), store::Error> {
        let retired = jobs::retire(&self.pool, i64::from(self.keep_jobs_d) * DAY_MS).await?;
        if retired != store::Retired::default() {
            let (partitions, postponed) = (retired.partitions.join(", "), retired.postponed);
            let (moved_rows, default_rows) = (retired.moved_rows, retired.default_rows);
            tracing::info!(partitions, postponed, moved_rows, default_rows, "dropped what is no longer kept");
        }
        Ok(())
    }

    /// Deletes the records that were taken in (so they are in Postgres, or over) and are old enough. The topic's own
    /// retention is endless, since it carries tokens.
    async fn trim_waits(&self) -> anyhow::Result<()> {
        let waits = self.topics.waits();
        let ends = self.admin.end_offsets(std::slice::from_ref(&waits)).await.context("the ends")?;
        let until_ms = self.clock.now_ms() - i64::from(self.keep_waits_h) * HOUR_MS;
        let young = self.admin.offsets_at(&waits, until_ms).await.context("the times")?;
        let places: Vec<TopicPartition> = ends.keys().cloned().collect();
        let taken_in = positions(&self.pool, &places).await.context("the offsets")?;
        let below = ends.into_iter().zip(taken_in).filter_map(|((place, end), taken_in)| {
            let old = young.get(&place).copied().unwrap_or(end);
            Some((place, taken_in?.min(old)))
        });
        let below: Vec<_> = below.filter(|(_, offset)| *offset > 0).collect();
        self.admin.delete_records(&below).await.context("deleting")
    }
}
