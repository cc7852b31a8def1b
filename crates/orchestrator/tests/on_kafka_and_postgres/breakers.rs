//! Breakers: one probe goes, then the rest at a rate, each hold once, whatever orchestrators there are.

use std::collections::BTreeSet;

use events::breaker::{Breaker, BreakerNews, BreakerSaid, BreakerState};
use events::wait::Wait;
use events::{Inbound, Record, decode_slip, release, wait_record};
use flow::id::JobId;
use flow::slip::{Hold, HoldReason, Pass};
use orchestrator::config::Config;
use service_kit::Ids;
use test_kit::{Ground, TEST_TRACE, sample_job, sample_slip};

use crate::stage::{start_with, start_zombie_with, until, until_taken_in};

const PAYMENT: &str = "payment:8080";
const NEVER_MS: u64 = 3_600_000;
const HELD: &str = "select count(*) from orchestrator.holds";
const PHASE: &str = "select phase from orchestrator.breakers";

async fn send(ground: &Ground, wait: Wait) {
    ground.send(&wait_record(&ground.topics, &ground.writers, &wait, &TEST_TRACE).unwrap()).await;
}

async fn hold(ground: &Ground, job: JobId, release_after_ms: Option<u64>) {
    let (slip, queue, limit) = (sample_slip(job, 2), "default".to_owned(), Some(PAYMENT.to_owned()));
    send(ground, Wait::Hold(Hold { slip, queue, reason: HoldReason::Breaker, release_after_ms, signal: None, limit }))
        .await;
}

async fn say(ground: &Ground, said: BreakerSaid) {
    let (downstream, id) = (PAYMENT.to_owned(), Ids::system().uuid().to_string());
    send(ground, Wait::Breaker(BreakerNews { downstream, said, id, at_ms: 1 })).await;
}

async fn fail(ground: &Ground, epoch: u64) {
    say(ground, BreakerSaid::Failing { epoch, calls: 40, failures: 21 }).await;
}

/// Pauses and rates that suit a test.
fn brisk(config: &mut Config) {
    config.breakers.pause_ms = 300;
    config.breakers.release_per_s = 200;
}

/// The jobs that were let pass, with their passes.
async fn passed(ground: &Ground) -> Vec<(JobId, Option<Pass>)> {
    let mut passed = Vec::new();
    for Record { value, headers, .. } in ground.outbox(&ground.topics.steps("default")) {
        let mut slip = ground.reader.read(value.as_deref(), decode_slip).await.unwrap();
        release::note(&mut slip, &headers);
        passed.push((slip.job, slip.pass()));
    }
    passed
}

/// The states that workers were told of.
fn told(ground: &Ground) -> Vec<Breaker> {
    let read = |Record { topic, key, value, headers }| {
        Breaker::read(&Inbound { topic, key, value, headers, ..Inbound::default() }).unwrap().unwrap()
    };
    ground.outbox(&ground.topics.breakers()).into_iter().map(read).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_holds_is_the_probe_and_the_rest_follows_its_success_each_once() {
    let mut ground = Ground::new().await;
    // The pause ends when the test says so: one that ends before the first hold has come is followed by no probe.
    let patient = |config: &mut Config| {
        brisk(config);
        (config.breakers.pause_ms, config.breakers.pause_ms_max) = (NEVER_MS, NEVER_MS);
    };
    let all = [start_zombie_with(&mut ground, patient), start_with(&ground, patient), start_with(&ground, patient)];
    let jobs: BTreeSet<JobId> = (0..300).map(|_| sample_job()).collect();
    fail(&ground, 0).await;
    until(&ground, "select phase <> 'closed' from orchestrator.breakers", "t").await;
    for job in &jobs {
        hold(&ground, *job, None).await;
    }
    until_taken_in(&ground, &ground.topics.waits(), jobs.len() + 1).await;
    ground.sql("update orchestrator.breakers set due_at = now()");
    until(&ground, PHASE, "probing").await;
    // Others have seen failures too, of a state that is over.
    fail(&ground, 0).await;
    until_taken_in(&ground, &ground.topics.waits(), jobs.len() + 2).await;
    let probe = passed(&ground).await;
    let [(_, Some(Pass { epoch, is_probe: true }))] = probe[..] else { panic!("{probe:?}") };
    assert_eq!(ground.sql(HELD), "299");
    say(&ground, BreakerSaid::Probed { epoch, answered: true }).await;
    until(&ground, HELD, "0").await;
    until(&ground, PHASE, "closed").await;
    let passes = passed(&ground).await;
    assert_eq!(passes.len(), jobs.len(), "each once");
    assert_eq!(passes.iter().map(|(job, _)| *job).collect::<BTreeSet<_>>(), jobs);
    assert_eq!(passes.iter().filter(|(_, pass)| pass.is_some_and(|pass| pass.is_probe)).count(), 1);
    let told = told(&ground);
    let states: Vec<_> = told.iter().map(|breaker| breaker.state).collect();
    let ways = [BreakerState::Open, BreakerState::HalfOpen, BreakerState::HalfOpen, BreakerState::Closed];
    assert_eq!(states, ways, "{told:?}");
    assert!(told.is_sorted_by(|one, other| one.epoch < other.epoch), "{told:?}");
    for orchestrator in all {
        orchestrator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_of_which_nothing_is_heard_is_followed_by_another_one() {
    let ground = Ground::new().await;
    let orchestrator = start_with(&ground, |config| {
        brisk(config);
        config.breakers.probe_timeout_ms = 200;
    });
    fail(&ground, 0).await;
    for _ in 0..3 {
        hold(&ground, sample_job(), None).await;
    }
    until(&ground, HELD, "0").await;
    let passes = passed(&ground).await;
    let epochs: Vec<_> = passes.iter().map(|(_, pass)| pass.unwrap().epoch).collect();
    assert!(epochs.is_sorted_by(|one, other| one < other), "each is the probe of a state of its own: {epochs:?}");
    // None is left: the next one that comes is the probe.
    until(&ground, PHASE, "ready").await;
    hold(&ground, sample_job(), None).await;
    until(&ground, HELD, "0").await;
    assert!(passed(&ground).await.iter().all(|(_, pass)| pass.unwrap().is_probe));
    orchestrator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_that_comes_to_a_closed_breaker_goes_on_and_one_whose_time_is_over_does_not_wait() {
    let ground = Ground::new().await;
    let orchestrator = start_with(&ground, brisk);
    hold(&ground, sample_job(), None).await;
    until_taken_in(&ground, &ground.topics.waits(), 1).await;
    until(&ground, HELD, "0").await;
    let state = Some(BreakerState::Open);
    say(&ground, BreakerSaid::Order { state, reason: Some("a test".to_owned()), by: "ann".to_owned() }).await;
    until(&ground, "select phase || ordered_by || reason from orchestrator.breakers", "pausedanna test").await;
    hold(&ground, sample_job(), Some(1)).await;
    hold(&ground, sample_job(), None).await;
    until_taken_in(&ground, &ground.topics.waits(), 4).await;
    until(&ground, HELD, "1").await;
    let passes: Vec<_> = passed(&ground).await.iter().map(|(_, pass)| *pass).collect();
    assert_eq!(passes, [Some(Pass { epoch: 0, is_probe: false }), None]);
    orchestrator.stop().await;
}
