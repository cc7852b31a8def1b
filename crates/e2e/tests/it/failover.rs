//! Postgres fails over, or comes back from a base backup, under load. `meanwhile relay recover` follows while all roles
//! stay up. Afterwards every job has one token, but for those that the command named.

use std::collections::BTreeSet;
use std::time::Duration;

use flow::id::JobId;
use serde_json::json;
use test_kit::{PostgresOptions, Role, eventually, psql};

use crate::chance::{Chance, TellSeed, seed};
use crate::client::small_order;
use crate::load::{Load, pass};
use crate::stage::{PATIENCE, Stage};
use crate::turn::{beside_others, nearly_alone};

/// In flight when Postgres goes.
const IN_FLIGHT_MIN: usize = 150;
/// The load keeps so many jobs in flight.
const IN_FLIGHT: usize = 200;
/// Submitted after the recovery.
const AFTERWARDS: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The promoted standby has every acknowledged commit.
    Synchronous,
    /// It lacks the last moments.
    Asynchronous,
    /// A base backup lacks all since.
    Backup,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_synchronous_standby_loses_and_splits_no_job() {
    survive(Fault::Synchronous).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_asynchronous_standby_loses_and_splits_only_jobs_that_are_named() {
    survive(Fault::Asynchronous).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_base_backup_loses_and_splits_only_jobs_that_are_named() {
    survive(Fault::Backup).await;
}

async fn survive(fault: Fault) {
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let mut stage = Stage::start_with(|builder| builder.private_postgres(PostgresOptions::default())).await;
    let load = Load::start_brisk(&stage, seed, IN_FLIGHT).await;
    load.until_in_flight(IN_FLIGHT_MIN).await;
    let postgres = stage.system.postgres();
    match fault {
        Fault::Synchronous => {
            let standby = postgres.standby(true).await.unwrap();
            pass(chance.ms_below(2_000)).await;
            postgres.fail_over(standby).await.unwrap();
        }
        Fault::Asynchronous => {
            let mut standby = postgres.standby(false).await.unwrap();
            standby.cut_off().await.unwrap();
            ahead(&mut stage).await;
            pass(chance.ms_below(800)).await;
            stage.system.postgres().fail_over(standby).await.unwrap();
        }
        Fault::Backup => {
            let backup = postgres.base_backup().await.unwrap();
            ahead(&mut stage).await;
            pass(chance.ms_below(2_000)).await;
            stage.system.postgres().restore(backup).await.unwrap();
        }
    }
    let told = stage.system.run(&["relay", "recover"]).await.unwrap();
    let named = named(&told);
    assert!(told.contains("settled  "), "{told}");
    assert_eq!(named.is_empty(), fault == Fault::Synchronous, "{told}");
    pass(AFTERWARDS).await;
    let jobs = load.end(&mut stage).await;
    let known = psql(stage.system.database_url(), "select job from ingest.acceptances").unwrap();
    let known: BTreeSet<JobId> = known.lines().map(|job| job.parse().unwrap()).collect();
    // Answered with 202, and neither the standby nor Kafka had heard of them.
    let unheard = stage.system.forget_accepted(|job| !known.contains(job) && !named.contains(job));
    assert!(fault != Fault::Synchronous || unheard == 0, "{unheard} acknowledged jobs are gone");
    eprintln!("{fault:?}: {jobs} jobs, {} named, {unheard} unheard of", named.len());
    if fault == Fault::Synchronous {
        stage.finish().await;
    } else {
        stage.finish_but_for(&named).await;
    }
}

/// Waits until Kafka knows of a job that was accepted now.
async fn ahead(stage: &mut Stage) {
    let job = stage.submit("saga", &small_order("c-1", json!({}))).await;
    stage.end_of(job).await;
}

/// The jobs of which Kafka knows what Postgres does not.
fn named(told: &str) -> BTreeSet<JobId> {
    let jobs = told.lines().filter_map(|line| line.strip_prefix("  ahead  job ")?.split(':').next()?.parse().ok());
    jobs.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_was_dropped_is_made_again_by_migrate_and_no_job_is_lost() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    psql(stage.system.database_url(), "drop publication meanwhile_outbox").unwrap();
    let waiting = stage.submit("saga", &small_order("c-1", json!({}))).await;
    let relay = stage.system.role(Role::Relay).url();
    let told = async || {
        let answer = test_kit::http_client().get(format!("{relay}/readyz")).send().await.ok()?;
        answer
            .text()
            .await
            .ok()?
            .contains("publication meanwhile_outbox is missing; run `meanwhile migrate`")
            .then_some(())
    };
    eventually(PATIENCE, "the relay names the remedy", told).await;
    let migrated = stage.system.run(&["migrate"]).await.unwrap();
    assert!(migrated.contains("publication created"), "{migrated}");
    stage.end_of(waiting).await;
    let later = stage.submit("saga", &small_order("c-1", json!({}))).await;
    stage.end_of(later).await;
    stage.system.role(Role::Relay).wait_until_ready().await.unwrap();
    stage.finish().await;
}
