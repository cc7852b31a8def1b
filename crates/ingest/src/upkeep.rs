//! Maintenance of the acceptances: makes partitions for the days to come, drops the days that are no longer kept, and
//! deletes idempotency keys that have expired, what was done about dead letters that are forgotten, versions of flows
//! that no job is on, and documents that no job needs.

use std::sync::Arc;
use std::time::Duration;

use events::time::DAY_MS;
use events::topic::Topics;
use flow::event::JobStatus;
use service_kit::due::{Pace, at_intervals};
use store::flows::RetiredFlow;
use store::kept_jobs::{KeptJob, kept};
use tokio_util::sync::CancellationToken;

use crate::state::Api;

/// The pause between rounds.
const INTERVAL: Duration = Duration::from_secs(3_600);
/// The pause between attempts while Postgres is down.
const RETRY: Duration = Duration::from_secs(5);
/// Days for which partitions exist in advance.
const DAYS_AHEAD: u32 = 3;
/// Rows deleted by one statement.
const PURGE_ROWS_MAX: u32 = 10_000;
/// Documents that are removed in one round, roughly.
const DOCUMENTS_MAX: u64 = 100_000;
/// Versions of flows that are forgotten in one transaction.
const FLOWS_MAX: u32 = 100;

/// Runs until shutdown. No job waits for this work.
pub(crate) async fn run(api: Arc<Api>, topics: Topics, shutdown: CancellationToken) -> anyhow::Result<()> {
    let pace = Pace { dependency: "postgres", readiness: &api.readiness, interval_max: INTERVAL, retry: RETRY };
    at_intervals(pace, &shutdown, || run_once(&api, &topics)).await;
    Ok(())
}

async fn run_once(api: &Api, topics: &Topics) -> Result<(), store::Error> {
    store::acceptances::ensure_partitions(&api.pool, DAYS_AHEAD).await?;
    let keep_jobs_d = api.config.keep_jobs_d;
    if keep_jobs_d > 0 {
        let retired = store::acceptances::retire(&api.pool, i64::from(keep_jobs_d) * DAY_MS).await?;
        if retired != store::Retired::default() {
            let (partitions, postponed) = (retired.partitions.join(", "), retired.postponed);
            let (moved_rows, default_rows) = (retired.moved_rows, retired.default_rows);
            tracing::info!(partitions, postponed, moved_rows, default_rows, "dropped what is no longer kept");
        }
        store::webhooks::forget_of_jobs(&api.pool, i64::from(keep_jobs_d) * DAY_MS).await?;
        while retire_flows(api, topics, i64::from(keep_jobs_d) * DAY_MS).await? >= FLOWS_MAX as usize {}
    }
    let swept = store::sweep::acceptances(&api.pool).await?;
    if swept > 0 {
        tracing::info!(swept, "dropped jobs that their tenant or flow keeps no longer");
    }
    store::webhooks::forget(&api.pool).await?;
    while store::letters::forget_settled(&api.pool, PURGE_ROWS_MAX).await? >= u64::from(PURGE_ROWS_MAX) {}
    store::api_keys::forget(&api.pool).await?;
    if api.config.keep_audit_d > 0 {
        store::audit::retire(&api.pool, api.config.keep_audit_d).await?;
    }
    store::callers::purge(&api.pool, crate::callers::KEPT_DAYS).await?;
    while store::idempotency::purge(&api.pool, PURGE_ROWS_MAX).await? >= u64::from(PURGE_ROWS_MAX) {}
    sweep_documents(api).await
}

/// Removes the documents of jobs that are no longer kept or whose results are gone, and those that no job came of.
async fn sweep_documents(api: &Api) -> Result<(), store::Error> {
    let Some(documents) = &api.documents else { return Ok(()) };
    // Readiness tells of a store that does not answer; the next round goes on.
    let Ok(mut old) = documents.old(api.clock.now_ms()).await else { return Ok(()) };
    let mut removed = 0;
    while let Ok(Some(page)) = old.page().await {
        let known = kept(&api.pool, &page.jobs()).await?;
        let needed = known.into_iter().filter(|job| !is_over(api, job)).map(|job| job.job).collect();
        let Ok(gone) = documents.remove_but_for(page, &needed).await else { break };
        removed += gone;
        if removed >= DOCUMENTS_MAX {
            break;
        }
    }
    if removed > 0 {
        tracing::info!(removed, "removed documents that no job needs");
    }
    Ok(())
}

/// True for a job whose result is no longer given. Of any other, the input may still be needed for a retry.
fn is_over(api: &Api, job: &KeptJob) -> bool {
    let Some((JobStatus::Succeeded, ended_ms)) = &job.seen else { return false };
    let until_ms = api.catalog.result_until_ms((&job.flow, &job.version), *ended_ms);
    until_ms.is_some_and(|until_ms| until_ms <= api.clock.now_ms())
}

/// Forgets versions of flows, here and on Kafka. Returns their count.
async fn retire_flows(api: &Api, topics: &Topics, keep_ms: i64) -> Result<usize, store::Error> {
    let mut tx = api.pool.begin().await?;
    let retired = store::flows::retire(&mut tx, keep_ms, FLOWS_MAX).await?;
    let tombstones: Vec<_> =
        retired.iter().map(|gone| events::flow_tombstone(topics, &gone.flow, &gone.version)).collect();
    store::outbox::append(&mut tx, &tombstones).await?;
    tx.commit().await?;
    for RetiredFlow { flow, version } in &retired {
        tracing::info!(flow, version, "a version of a flow that no job is on is forgotten");
    }
    Ok(retired.len())
}
