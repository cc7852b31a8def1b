//! Webhooks that requests have asked for their own jobs.

use std::time::Duration;

use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use outbound::signature::Secret;
use store::webhooks;
use test_kit::{Answer, Ground, Receiver, eventually, sample_event, sample_job};
use uuid::Uuid;

use crate::stage::{PATIENCE, SECRET, answers, ask_for, deliveries, ended, ids, register, start, start_with, until};

async fn tell_three(ground: &Ground, job: JobId) {
    for (kind, status) in [
        (EventKind::JobAccepted, JobStatus::Accepted),
        (EventKind::StepSucceeded, JobStatus::Running),
        (EventKind::JobSucceeded, JobStatus::Succeeded),
    ] {
        ground.tell(&sample_event(job, kind, status, 0)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_told_at_its_own_webhook_signed_where_there_is_a_secret_and_no_other_job_is() {
    let (ground, receiver) = (Ground::new().await, Receiver::start().await);
    let (signed, plain, other) = (sample_job(), sample_job(), sample_job());
    let at = |path: &str| format!("{}/{path}", receiver.url());
    let place = ask_for(&ground, signed, &at("signed"), "job.accepted job.succeeded", Some(&SECRET));
    assert_eq!(ask_for(&ground, plain, &at("plain"), "job.succeeded", None), place, "one host");
    let running = start(&ground);
    for job in [signed, plain, other] {
        tell_three(&ground, job).await;
    }
    until(&ground, place, "delivered", 3).await;
    let requests = receiver.requests();
    let at = |path: &str| requests.iter().filter(|request| request.uri.path() == path).cloned().collect::<Vec<_>>();
    let (signed_ones, plain_ones) = (at("/signed"), at("/plain"));
    let kinds: Vec<_> = signed_ones.iter().map(|request| request.json()["type"].clone()).collect();
    assert_eq!(kinds, ["job.accepted", "job.succeeded"]);
    for request in &signed_ones {
        assert_eq!(request.json()["data"]["job"], signed.to_string());
        let (id, timestamp) = (request.header("webhook-id"), request.header("webhook-timestamp"));
        let signature = Secret::Hmac(&SECRET).sign(id, timestamp.parse().unwrap(), &request.body).unwrap();
        assert_eq!(request.header("webhook-signature"), signature);
    }
    let [unsigned] = plain_ones.as_slice() else { panic!("{plain_ones:?}") };
    assert_eq!(unsigned.json()["data"]["job"], plain.to_string());
    assert!(!unsigned.headers.contains_key("webhook-signature") && unsigned.headers.contains_key("webhook-timestamp"));
    assert_eq!(requests.len(), 3);
    assert_eq!(ground.sql("select count(distinct job) from notifier.deliveries where of_job"), "2");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_repeated_in_order_and_given_up_after_the_schedule_but_never_disabled() {
    let (ground, receiver) = (Ground::new().await, Receiver::start().await);
    answers(&receiver, 500);
    let job = sample_job();
    let place = ask_for(&ground, job, &receiver.url(), "*", Some(&SECRET));
    let running = start_with(&ground, |config| (config.schedule_s, config.disable_after_h) = (vec![0, 0], 0));
    tell_three(&ground, job).await;
    until(&ground, place, "failed", 3).await;
    let mut tried = ids(&receiver.requests());
    assert_eq!(tried.len(), 9);
    tried.dedup();
    assert_eq!(tried.len(), 3, "one after the other");
    assert_eq!(ground.sql("select count(*) from notifier.endpoints where disabled_at is not null"), "0");
    // By hand it goes on.
    answers(&receiver, 200);
    let pool = ground.pool(store::Role::Ingest);
    let last: Uuid = deliveries(&ground, place, "id")[2].parse().unwrap();
    assert!(!webhooks::resend(&pool, "another", Uuid::now_v7(), last).await.unwrap());
    assert!(webhooks::resend(&pool, "default", Uuid::now_v7(), last).await.unwrap());
    until(&ground, place, "delivered", 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_410_ends_the_webhook_of_its_job_and_of_no_other() {
    let (ground, receiver) = (Ground::new().await, Receiver::start().await);
    receiver.answer_with(|request| Answer::status(if request.uri.path() == "/gone" { 410 } else { 200 }));
    let (gone, well) = (sample_job(), sample_job());
    let place = ask_for(&ground, gone, &format!("{}/gone", receiver.url()), "*", None);
    ask_for(&ground, well, &format!("{}/well", receiver.url()), "*", None);
    let running = start(&ground);
    ground.tell(&sample_event(gone, EventKind::JobAccepted, JobStatus::Accepted, 0)).await;
    until(&ground, place, "failed", 1).await;
    // Both come after the end of the first.
    ground.tell(&ended(gone)).await;
    ground.tell(&ended(well)).await;
    until(&ground, place, "delivered", 1).await;
    eventually(PATIENCE, "all events are taken in", async || {
        (ground.sql("select sum(next_offset) from notifier.offsets") == "3").then_some(())
    })
    .await;
    let paths: Vec<_> = receiver.requests().iter().map(|request| request.uri.path().to_owned()).collect();
    assert_eq!(paths, ["/gone", "/well"]);
    assert_eq!(ground.sql("select count(*) from notifier.deliveries"), "2", "no more is made of its events");
    assert_eq!(ground.sql("select count(*) from notifier.endpoints"), "0", "the host is well");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_an_answer_410_is_given_up() {
    let (ground, receiver) = (Ground::new().await, Receiver::start().await);
    answers(&receiver, 410);
    let job = sample_job();
    let place = ask_for(&ground, job, &receiver.url(), "*", None);
    tell_three(&ground, job).await;
    // All three are taken in at once.
    let running = start(&ground);
    until(&ground, place, "failed", 3).await;
    assert_eq!(deliveries(&ground, place, "attempts"), ["1", "0", "0"]);
    assert_eq!(receiver.requests().len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_webhooks_that_lead_to_a_dead_host_delay_no_other() {
    let (ground, dead, well) = (Ground::new().await, Receiver::start().await, Receiver::start().await);
    dead.answer_with(|_| Answer::status(200).after(Duration::from_secs(3_600)));
    let (waiting, quick): (Vec<_>, Vec<_>) = (0..40).map(|_| (sample_job(), sample_job())).unzip();
    for job in &waiting {
        ask_for(&ground, *job, &format!("{}/{job}", dead.url()), "*", None);
    }
    let place = ask_for(&ground, quick[0], &well.url(), "*", None);
    for job in &quick[1..] {
        ask_for(&ground, *job, &well.url(), "*", None);
    }
    let endpoint = register(&ground, &well.url(), &["*"]).await;
    for (waiting, quick) in waiting.iter().zip(&quick) {
        ground.tell(&ended(*waiting)).await;
        ground.tell(&ended(*quick)).await;
    }
    // Less room than the dead host has deliveries.
    let running = start_with(&ground, |config| (config.deliveries_max, config.timeout_ms) = (25, 3_600_000));
    until(&ground, place, "delivered", 40).await;
    until(&ground, endpoint.id, "delivered", 80).await;
    assert!(dead.requests().len() <= 10, "{}", dead.requests().len());
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_whose_address_is_not_allowed_any_more_is_not_called() {
    let ground = Ground::new().await;
    let job = sample_job();
    let place = ask_for(&ground, job, "http://10.0.0.1/", "*", None);
    let running = start_with(&ground, |config| config.schedule_s = vec![]);
    ground.tell(&ended(job)).await;
    until(&ground, place, "failed", 1).await;
    assert_eq!(ground.sql("select error from notifier.attempts"), "refused");
    running.stop().await;
}
