//! The time until a job's end, as its status tells it, against the time that it took: a figure for
//! `docs/performance.md`, at a steady load.

use std::time::Duration;

use flow::id::JobId;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::chance::{Chance, seed};
use crate::client::small_order;
use crate::stage::{PATIENCE, Stage};
use crate::turn::nearly_alone;

/// Of the load: so many jobs at this interval. Those of the first part only make the times known.
const JOBS: usize = 400;
const WARM: usize = 100;
const EVERY: Duration = Duration::from_millis(100);
/// The interval at which each status is read.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Shorter times than this are not compared, in milliseconds: a tenth of a second is what a status tells.
const LEFT_MS_MIN: i64 = 500;

/// What a status told, and when, in milliseconds since the Unix epoch.
struct Told {
    at_ms: i64,
    eta_s: f64,
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// Reads a job's status until it has ended.
async fn watch(client: client::Client, job: JobId) -> (JobId, Vec<Told>) {
    let mut told = vec![];
    loop {
        let status: Value = client.status_document(&job.to_string()).await.unwrap();
        if status["status"] == "succeeded" {
            return (job, told);
        }
        if let Some(eta_s) = status["eta_s"].as_f64() {
            told.push(Told { at_ms: now_ms(), eta_s });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: takes a minute"]
async fn the_error_of_the_estimate_at_a_steady_load() {
    let (_turn, mut chance) = (nearly_alone().await, Chance::new(seed()));
    let mut stage = Stage::start().await;
    let client = stage.system.client();
    let (mut watching, mut jobs) = (JoinSet::new(), vec![]);
    let mut pace = tokio::time::interval(EVERY);
    for number in 0..JOBS {
        pace.tick().await;
        // Each step takes a fifth more or less than usual.
        let mut slow = |usual_ms: u64| format!("slow:{}", usual_ms * (80 + chance.below(41)) / 100);
        let simulate = json!({ "inventory": slow(400), "payment": slow(900), "shipping": slow(1_800) });
        let job = stage.submit("saga", &small_order(&format!("c-{number}"), simulate)).await;
        jobs.push(job);
        if number >= WARM {
            watching.spawn(watch(client.clone(), job));
        }
    }
    let watched = tokio::time::timeout(PATIENCE, watching.join_all()).await.unwrap();
    let ends = stage.ends_of(jobs).await;
    let (mut parts, mut early) = (vec![], 0);
    for (job, told) in &watched {
        for Told { at_ms, eta_s } in told {
            let left_ms = ends[job].at_ms - at_ms;
            if left_ms >= LEFT_MS_MIN {
                let error_ms = eta_s * 1_000.0 - left_ms as f64;
                early += u32::from(error_ms > 0.0);
                parts.push(error_ms.abs() / left_ms as f64);
            }
        }
    }
    parts.sort_by(f64::total_cmp);
    let part = |quantile: f64| parts[((parts.len() - 1) as f64 * quantile) as usize] * 100.0;
    eprintln!(
        "{} answers about {} jobs: error {:.0} % at p50, {:.0} % at p90, {:.0} % at p99; {} % ended early",
        parts.len(),
        watched.len(),
        part(0.5),
        part(0.9),
        part(0.99),
        early * 100 / u32::try_from(parts.len()).unwrap().max(1),
    );
    assert!(parts.len() > 1_000 && part(0.5) < 25.0);
    stage.finish().await;
}
