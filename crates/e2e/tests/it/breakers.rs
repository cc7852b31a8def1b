//! A downstream that is dead: its jobs wait without losing attempts, one probe goes at a time, all others go on, and
//! when it answers again all of them end. `E2E_BREAKER_JOBS=20000` has so many jobs.

use std::collections::BTreeSet;
use std::time::Duration;

use flow::event::{EventKind, JobStatus};
use flow::slip::HoldReason;
use serde_json::{Value, json};
use shop::{Op, Trade};
use test_kit::{Role, eventually};

use crate::client::{send, small_order};
use crate::load::pass;
use crate::stage::{PATIENCE, Stage};
use crate::turn::nearly_alone;

const JOBS_DEFAULT: usize = 200;
/// Of the breakers of these tests.
const PAUSE: Duration = Duration::from_millis(1_000);

async fn start(workers: u32, release_per_s: usize) -> Stage {
    let pause_ms = PAUSE.as_millis().to_string();
    Stage::start_with(|builder| {
        builder
            .role(Role::Workers, workers)
            .variable("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "6000")
            .variable("MEANWHILE__WORKERS__BREAKERS__CALLS_MIN", "20")
            .variable("MEANWHILE__ORCHESTRATOR__BREAKERS__PAUSE_MS", pause_ms.as_str())
            .variable("MEANWHILE__ORCHESTRATOR__BREAKERS__PAUSE_MS_MAX", pause_ms.as_str())
            .variable("MEANWHILE__ORCHESTRATOR__BREAKERS__RELEASE_PER_S", release_per_s.to_string())
    })
    .await
}

/// The breakers that are listed.
async fn listed(stage: &Stage) -> Vec<Value> {
    let seen = send(reqwest::Client::new().get(format!("{}/v1/breakers", stage.system.api()))).await;
    assert_eq!(seen.status, 200, "{seen:?}");
    seen.body["breakers"].as_array().unwrap().clone()
}

/// The breaker of the shop's payments.
async fn payment(stage: &Stage) -> Option<Value> {
    let host = stage.shop.urls().payment.trim_start_matches("http://").to_owned();
    listed(stage).await.into_iter().find(|breaker| breaker["downstream"] == host)
}

async fn until_payment(stage: &Stage, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(PATIENCE, what, async || payment(stage).await.filter(|breaker| is(breaker))).await
}

async fn order(stage: &Stage, state: &str) {
    let host = stage.shop.urls().payment.trim_start_matches("http://").to_owned();
    let url = format!("{}/v1/breakers/{host}", stage.system.api());
    let seen = send(reqwest::Client::new().put(url).json(&json!({ "state": state, "reason": "a test" }))).await;
    assert_eq!(seen.status, 202, "{seen:?}");
}

/// Calls that have come to the shop's payments.
fn calls(stage: &Stage) -> usize {
    stage.shop.log_after(Trade::Payment, 0).iter().filter(|line| line.op == Op::CreateCalled).count()
}

/// Jobs that end by what another downstream says. Returns their times as text.
async fn of_another_downstream(stage: &mut Stage) -> String {
    let mut others = Vec::new();
    for number in 0..20 {
        let input = small_order(&format!("o-{number}"), json!({ "inventory": "out_of_stock" }));
        others.push(stage.submit("saga", &input).await);
    }
    let ends = stage.ends_of(others).await;
    assert!(ends.values().all(|end| end.status == JobStatus::Failed), "another downstream says no: {ends:?}");
    let mut times_ms: Vec<i64> = ends.values().map(|end| end.at_ms - end.accepted_at_ms).collect();
    times_ms.sort_unstable();
    format!("median {} ms, longest {} ms", times_ms[times_ms.len() / 2], times_ms[times_ms.len() - 1])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_a_dead_downstream_wait_and_lose_no_attempts_while_all_others_go_on() {
    let _turn = nearly_alone().await;
    let jobs = std::env::var("E2E_BREAKER_JOBS").map_or(JOBS_DEFAULT, |text| text.parse().expect("a number"));
    let mut stage = if jobs > JOBS_DEFAULT { start(10, 500).await } else { start(2, 50).await };
    // The first ones wait until the workers have shared the partitions.
    of_another_downstream(&mut stage).await;
    let before_that = of_another_downstream(&mut stage).await;
    let mut waiting = Vec::new();
    for number in 0..jobs {
        waiting.push(stage.submit("saga", &small_order(&format!("c-{number}"), json!({ "payment": "error" }))).await);
    }
    until_payment(&stage, "the breaker opens", |breaker| breaker["state"] != "closed").await;
    let all = jobs as u64;
    until_payment(&stage, "nearly all jobs wait", |breaker| breaker["waiting"].as_u64() >= Some(all - all / 20)).await;
    // From here on, calls are probes: one for each pause.
    let (before, since) = (calls(&stage), std::time::Instant::now());
    let status = eventually(PATIENCE, "a status names the breaker", async || {
        let status = stage.system.status(waiting[jobs - 1]).await.unwrap();
        status.to_string().contains("\"breaker\":\"127.0.0.1").then_some(status)
    });
    assert_eq!(status.await["status"], "waiting");
    let meanwhile = of_another_downstream(&mut stage).await;
    eprintln!("jobs of another downstream: {before_that} before, {meanwhile} meanwhile");
    // The keeper of breakers and a worker die, perhaps with a probe.
    for role in [Role::Orchestrator, Role::Workers] {
        stage.system.role(role).process().kill9();
        pass(Duration::from_millis(500)).await;
        stage.system.role(role).restart().unwrap();
        stage.system.role(role).wait_until_ready().await.unwrap();
    }
    eprintln!("after two kills: {}", of_another_downstream(&mut stage).await);
    let probes = calls(&stage) - before;
    let pauses = since.elapsed().as_millis() / PAUSE.as_millis();
    eprintln!("{probes} calls in {:?}, in which {jobs} jobs waited", since.elapsed());
    assert!(probes as u128 <= pauses + 2, "{probes} calls in {pauses} pauses");
    stage.shop.mend(true);
    let ends = stage.ends_of(waiting.clone()).await;
    let lost: Vec<_> = ends.values().filter(|end| end.status != JobStatus::Succeeded).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let left = stage.finish().await;
    let waited = |event: &&flow::event::JobEvent| event.reason == Some(HoldReason::Breaker);
    let waited: BTreeSet<_> = left.tokens.events.iter().filter(waited).map(|event| event.job).collect();
    assert!(waited.len() >= jobs / 2, "{} jobs waited", waited.len());
    // What the probes cost is no attempt of their steps.
    let charged = |event: &&flow::event::JobEvent| {
        event.kind == EventKind::StepSucceeded && event.step.as_deref() == Some("charge")
    };
    let attempts: u32 = left.tokens.events.iter().filter(charged).map(|event| event.attempts).sum();
    let made: u32 = left.shop.states().payment.calls.values().map(|calls| calls.create).sum();
    assert!(made - attempts >= probes as u32, "{made} calls, {attempts} attempts, {probes} probes");
    let failed = left.tokens.events.iter().filter(|event| event.kind == EventKind::StepFailed);
    assert!(failed.into_iter().all(|event| event.step.as_deref() == Some("reserve")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_opens_a_breaker_and_calls_decide_again_when_the_order_is_taken_back() {
    let _turn = nearly_alone().await;
    let mut stage = start(2, 50).await;
    order(&stage, "open").await;
    until_payment(&stage, "it is open", |breaker| breaker["state"] == "open" && breaker["forced"] == true).await;
    let host = stage.shop.urls().payment.trim_start_matches("http://").to_owned();
    for worker in stage.system.roles().iter().filter(|process| process.role() == Role::Workers) {
        let heeds =
            async || worker.metric("meanwhile_breaker_open", &host).await.is_ok_and(|open| open > 0.0).then_some(());
        eventually(PATIENCE, "a worker heeds it", heeds).await;
    }
    // As operators see it.
    let told = stage.system.run(&["breakers", "list", "--url", &stage.system.api()]).await.unwrap();
    assert!(told.contains(&host) && told.contains("open, by order") && told.contains("a test"), "{told}");
    let mut jobs = Vec::new();
    for number in 0..20 {
        jobs.push(stage.submit("saga", &small_order(&format!("c-{number}"), json!({}))).await);
    }
    let breaker = until_payment(&stage, "all jobs wait", |breaker| breaker["waiting"] == 20).await;
    assert_eq!((&breaker["reason"], calls(&stage)), (&json!("a test"), 0), "{breaker}");
    let told = stage.system.run(&["breakers", "auto", &host, "--url", &stage.system.api()]).await.unwrap();
    assert!(told.contains("is called as its answers allow"), "{told}");
    let ends = stage.ends_of(jobs).await;
    assert!(ends.values().all(|end| end.status == JobStatus::Succeeded), "{ends:?}");
    until_payment(&stage, "it is closed", |breaker| breaker["state"] == "closed" && breaker["waiting"] == 0).await;
    assert_eq!(stage.finish().await.tokens.dead_letters, 0);
}
