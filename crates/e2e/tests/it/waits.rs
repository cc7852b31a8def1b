//! Answers that wait (`Prefer: wait=N`): one URL, synchronous for who waits.

use std::collections::BTreeMap;
use std::fs;

use serde_json::json;
use test_kit::{Role, eventually, http_client};
use tokio::task::JoinSet;

use crate::client::{Seen, order, send, small_order};
use crate::stage::{PATIENCE, Stage};
use crate::turn::{beside_others, nearly_alone};

/// The job that an answer about a result is about.
fn job_of(answer: &Seen) -> flow::id::JobId {
    let address = answer.header("content-location").trim_end_matches("/result");
    address.rsplit('/').next().unwrap().parse().unwrap_or_else(|_| panic!("{answer:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_waits_gets_the_result_the_problem_or_the_202_of_the_same_job() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let (url, client) = (format!("{}/orders", stage.system.api()), http_client());
    let post = |wait: &'static str, customer: &'static str, simulate| {
        let request = client.post(&url).header("prefer", wait).header("idempotency-key", customer);
        send(request.json(&order(customer, simulate)))
    };
    let done = post("wait=30", "quick", json!({})).await;
    assert_eq!((done.status, done.header("preference-applied"), done.header("vary")), (200, "wait=30", "Prefer"));
    assert_eq!(done.body["tracking"], "TRACK-000001", "{done:?}");
    let again = post("wait=30", "quick", json!({})).await;
    assert_eq!((again.status, &again.body, again.header("idempotent-replayed")), (200, &done.body, "true"));
    assert_eq!(job_of(&again), job_of(&done));

    let declined = post("respond-async, wait=30", "poor", json!({ "payment": "declined" })).await;
    assert_eq!((declined.status, declined.problem()), (402, "step-failed"), "{declined:?}");
    assert_eq!(declined.body["undone"], json!(["reserve"]));
    let exposed = post("wait=30", "late", json!({ "inventory": "out_of_stock" })).await;
    assert_eq!((exposed.status, exposed.problem(), exposed.body["status"].as_u64()), (409, "step-failed", Some(409)));

    let slow = post("wait=0", "slow", json!({ "shipping": "slow:2000" })).await;
    let job = slow.job();
    let address = format!("{}{}", stage.system.api(), slow.header("location"));
    let (mut tag, mut seen) = (String::new(), BTreeMap::new());
    loop {
        let request = client.get(&address).header("prefer", "wait=30").header("if-none-match", &tag);
        let status = send(request).await;
        assert_eq!((status.status, status.header("preference-applied")), (200, "wait=30"), "{status:?}");
        assert_ne!(status.header("etag"), tag, "each answer is news");
        tag = status.header("etag").to_owned();
        *seen.entry(status.body["status"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        if status.body["status"] == "succeeded" {
            break;
        }
    }
    assert!(seen.values().sum::<i32>() <= 6, "as often as something happens: {seen:?}");
    // It is sent on to the result.
    let result = send(client.get(&address).header("prefer", "return=minimal, wait=30")).await;
    assert_eq!(result.status, 200, "{result:?}");
    assert!(result.body["tracking"].is_string(), "{result:?}");
    stage.system.note_accepted([&done, &declined, &exposed].map(job_of).into_iter().chain([job]));
    stage.finish().await;
}

/// As many as a process has connections.
const CONNECTIONS_MAX: usize = 800;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_that_hold_all_connections_let_others_in() {
    let _turn = beside_others().await;
    let mut stage = Stage::start_with(|builder| builder.variable("MEANWHILE__INGEST__WAIT_MAX_S", "900")).await;
    let job = stage.submit("consent", &small_order("c-1", json!({}))).await;
    let address = format!("{}/v1/jobs/{job}/result", stage.system.api());
    let (client, mut asked) = (http_client(), JoinSet::new());
    for _ in 0..CONNECTIONS_MAX + 10 {
        // Each has a connection of its own.
        asked.spawn(send(client.get(&address).header("prefer", "wait=900")));
    }
    let mut early = 0;
    while early < 10 {
        let answer = asked.join_next().await.unwrap().unwrap();
        assert_eq!((answer.status, answer.problem(), answer.header("connection")), (404, "not-finished", "close"));
        early += 1;
    }
    assert_eq!(send(client.get(format!("{}/healthz", stage.system.api()))).await.status, 200);
    stage.system.client().signal(&job.to_string(), "consent", Some("{\"n\": 1}".to_owned()), None).await.unwrap();
    let answers = asked.join_all().await;
    let done = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(done >= CONNECTIONS_MAX - 20, "{done} of {}", answers.len());
    stage.finish().await;
}

/// Resident memory of a process, MiB.
pub(crate) fn rss_mib(id: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let field = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    field.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures for docs/performance.md: cargo test --workspace --test it waits -- --ignored --nocapture"]
async fn ten_thousand_callers_wait_at_one_ingest_for_less_than_200_mib() {
    const CONNECTIONS: usize = 64;
    let waiters = std::env::var("E2E_WAITERS").map_or(10_000, |text| text.parse().expect("a number"));
    let _turn = nearly_alone().await;
    let mut stage = Stage::start_with(|builder| builder.variable("MEANWHILE__INGEST__WAIT_MAX_S", "900")).await;
    let url = format!("{}/orders", stage.system.api());
    let warm = send(http_client().post(&url).header("prefer", "wait=60").json(&order("warm", json!({})))).await;
    stage.system.role(Role::Workers).process().kill9();
    let ingest = stage.system.role(Role::Ingest).process().id();
    let before = rss_mib(ingest);
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap())
        .collect();
    let mut asked = JoinSet::new();
    for number in 0..waiters {
        let request = clients[number % CONNECTIONS].post(&url).header("prefer", "wait=900");
        asked.spawn(send(request.json(&order(&format!("c-{number}"), json!({})))));
    }
    eventually(PATIENCE, "all wait", async || {
        let waiting = stage.system.role(Role::Ingest).metric("meanwhile_waiters", "").await.ok()?;
        (waiting as usize == waiters).then_some(())
    })
    .await;
    let with = rss_mib(ingest);
    stage.system.role(Role::Workers).restart().unwrap();
    let answers = asked.join_all().await;
    let ends = answers.iter().filter(|answer| !answer.header("content-location").is_empty()).count();
    eprintln!("{waiters} waiters: {before:.0} MiB before, {with:.0} MiB with them, {:.0} MiB after", rss_mib(ingest));
    assert_eq!(ends, waiters, "each is told of the end of its job, whatever that is");
    assert!(with - before < 200.0, "{before} to {with}");
    stage.system.note_accepted(answers.iter().chain([&warm]).map(job_of));
    stage.finish().await;
}
