//! Many jobs cancelled by one command, which is cut off from its servers meanwhile; and the statistics of their flow.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use client::JobChoice;
use flow::event::JobStatus;
use serde_json::{Value, json};
use test_kit::{Role, eventually};

use crate::client::{order, small_order};
use crate::command_line::meanwhile;
use crate::delayed::submit;
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

const JOBS: usize = 60;

/// The command, and what it has told until its first page was done.
async fn begin(api: &str) -> (Child, BufReader<std::process::ChildStdout>, String) {
    let mut command = Command::new(test_kit::binary().await.unwrap());
    command.args(["jobs", "cancel", "--flow", "order", "--status", "waiting", "--rate", "20", "--reason", "over"]);
    let mut child = command.env("MEANWHILE_URL", api).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    tokio::task::block_in_place(|| told.read_line(&mut line)).unwrap();
    (child, told, line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_cancel_goes_on_through_kills_of_ingest_and_orchestrator_and_cancels_each_once() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let mut jobs = vec![];
    for number in 0..JOBS {
        jobs.push(submit(&mut stage, "order", "delay=300d", &order(&format!("c-{number}"), json!({}))).await);
    }
    let other = stage.submit("saga", &small_order("c-1", json!({}))).await;
    let client = stage.system.client();
    let waiting = JobChoice { status: Some("waiting".to_owned()), ..JobChoice::default() };
    eventually(PATIENCE, "all are listed as waiting", async || {
        let page = client.jobs(&waiting, None, 200).await.ok()?;
        (page.jobs.len() == JOBS).then_some(())
    })
    .await;

    let (mut child, mut told, first) = begin(&stage.system.api()).await;
    assert_eq!(first, "20 are to be cancelled so far\n");
    for role in [Role::Ingest, Role::Orchestrator] {
        stage.system.role(role).process().kill9();
    }
    for role in [Role::Ingest, Role::Orchestrator] {
        stage.system.role(role).restart().unwrap();
        stage.system.role(role).wait_until_ready().await.unwrap();
    }
    let mut rest = String::new();
    tokio::task::block_in_place(|| told.read_to_string(&mut rest)).unwrap();
    let code = tokio::task::block_in_place(|| child.wait()).unwrap();
    assert!(code.success() && rest.ends_with(&format!("{JOBS} of {JOBS} are to be cancelled\n")), "{rest}");

    let ends = stage.ends_of(jobs).await;
    assert!(ends.values().all(|end| end.status == JobStatus::Cancelled), "{ends:?}");
    assert_eq!(stage.end_of(other).await.status, JobStatus::Succeeded);
    let left = stage.finish().await;
    assert_eq!((left.count(JobStatus::Cancelled), left.count(JobStatus::Succeeded)), (JOBS, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_statistics_of_a_flow_are_those_of_its_jobs() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let api = stage.system.api();
    let url = [("MEANWHILE_URL", api.as_str())];
    let mut jobs = vec![];
    for number in 0..10 {
        let simulate = if number == 0 { json!({ "payment": "declined" }) } else { json!({ "shipping": "slow:300" }) };
        jobs.push(stage.submit("saga", &small_order(&format!("c-{number}"), simulate)).await);
    }
    stage.ends_of(jobs).await;
    let read = async || {
        let (code, told, _) = meanwhile(&["flows", "stats", "saga", "--window", "15m", "--json"], &url, "").await;
        assert_eq!(code, Some(0), "{told}");
        serde_json::from_str::<Value>(&told).unwrap()
    };
    let stats = eventually(PATIENCE, "all ends are counted", async || {
        let stats = read().await;
        (stats["jobs"]["ended"] == 10).then_some(stats)
    })
    .await;
    let (jobs, steps) = (&stats["jobs"], stats["steps"].as_array().unwrap());
    assert_eq!([&jobs["accepted"], &jobs["succeeded"], &jobs["failed"]], [10, 9, 1], "{stats:#}");
    let step = |id: &str| steps.iter().find(|step| step["id"] == id).unwrap();
    assert_eq!([&step("charge")["succeeded"], &step("charge")["failed"]], [9, 1]);
    assert_eq!(step("reserve")["succeeded"], 10);
    assert!(step("ship")["duration_ms"]["p50"].as_u64().unwrap() >= 280, "{stats:#}");
    assert!(jobs["duration_ms"]["p99"].as_u64() >= step("ship")["duration_ms"]["p50"].as_u64(), "{stats:#}");

    let (code, told, _) = meanwhile(&["flows", "stats", "saga"], &url, "").await;
    assert_eq!(code, Some(0), "{told}");
    for begin in ["STEP", "reserve", "charge", "ship", "(job)"] {
        assert!(told.lines().any(|line| line.starts_with(begin)), "no {begin}: {told}");
    }
    let (code, _, told) = meanwhile(&["flows", "stats", "sago"], &url, "").await;
    assert!(code == Some(1) && told.contains("404"), "{told}");
    stage.finish().await;
}
