//! A tick starts one job, although the processes that come to it are killed around its commit.

use std::collections::BTreeSet;

use flow::id::JobId;
use test_kit::{Role, eventually, psql, repository};

use crate::stage::{PATIENCE, Stage};
use crate::turn::nearly_alone;

const STOP_AT: &str = "MEANWHILE_STOP_AT";
/// Years that nobody was there for, each with one tick.
const TICKS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_starts_one_job_although_its_process_is_killed_before_or_after_the_commit() {
    let _turn = nearly_alone().await;
    let mut stage = Stage::start_with(|builder| builder.flows(repository().join("crates/e2e/timed"))).await;
    let database = stage.system.database_url().to_owned();
    let sql = |sql: &str| psql(&database, sql).unwrap();
    let until = async |what: &str, query: &str| {
        eventually(PATIENCE, what, async || (sql(query) == "t").then_some(())).await;
    };
    let other = stage.add(Role::Ingest).await;
    until("the schedule has begun", "select exists (select from ingest.schedules where flow = 'yearly')").await;
    // The killed one dies some ticks on, once before a commit and once after it; then both come back at once.
    for (years, seam, passage) in [(TICKS, "ingest.before-tick", 3), (2 * TICKS, "ingest.after-tick", 2)] {
        stage.system.roles()[other].process().kill9();
        let process = stage.system.role(Role::Ingest);
        process.process().set_env(STOP_AT, format!("{seam}:{passage}"));
        sql(&format!("update ingest.schedules set reached_at = {YEAR} - interval '{years} years'"));
        process.restart().unwrap();
        let status = process.process().wait_for_exit(PATIENCE).await.unwrap();
        assert!(!status.success() && process.process().log_tail().contains(seam), "{seam}: {status}");
        process.process().set_env(STOP_AT, "");
        process.restart().unwrap();
        stage.system.roles()[other].restart().unwrap();
        stage.system.role(Role::Ingest).wait_until_ready().await.unwrap();
        until("all ticks are reached", &format!("select reached_at = {YEAR} from ingest.schedules")).await;
        assert_eq!(sql(JOBS), years.to_string());
    }
    // The twenty that came twice are known by their keys.
    let ticks = "select count(distinct convert_from(input, 'UTF8')) from ingest.acceptances where flow = 'yearly'";
    assert_eq!(sql(ticks), (2 * TICKS).to_string());
    let jobs = sql("select job from ingest.acceptances where flow = 'yearly'");
    let jobs: Vec<JobId> = jobs.lines().map(|job| JobId::new(job.parse().unwrap())).collect();
    stage.system.note_accepted(jobs.iter().copied());
    stage.ends_of(jobs).await;
    stage.finish_but_for(&BTreeSet::new()).await;
}

const JOBS: &str = "select count(*) from ingest.acceptances where flow = 'yearly'";
/// The last tick.
const YEAR: &str = "date_trunc('year', now(), 'UTC')";
