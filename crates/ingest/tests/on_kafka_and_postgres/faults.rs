//! Dependencies go away and come back: the service names the missing one, recovers by itself, and loses nothing.

use events::headers::Headers;
use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::Method;
use events::Record;
use serde_json::json;
use test_kit::{Ground, Kafka, KafkaOptions, Postgres, PostgresOptions, Registry, eventually, kafka, registry};
use test_kit::{postgres_database, prefix};
use tokio::task::JoinSet;

use crate::stage::{Api, INPUT, Ingest, PATIENCE, apply_flows, jobs_stored};

/// Between two tries of a patient client.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Waits until `/readyz` names what is missing.
async fn until_missing(api: &Api, dependency: &str) {
    eventually(PATIENCE, dependency, async || {
        let answer = api.get("/readyz").await;
        let words = format!("{dependency} (ingest): ");
        (answer.status == 503 && answer.json["detail"].as_str().unwrap().contains(&words)).then_some(())
    })
    .await;
}

/// As a patient client does: again with the same key until there is a job.
async fn submit_patiently(api: Api, key: String) -> String {
    let body = json!({ "customer_id": key, "qty": 1 }).to_string();
    let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
    let submit = async {
        loop {
            let answer = api.ask(Method::POST, "/orders", &headers, &body).await;
            match answer {
                Some(answer) if answer.status == 202 => return answer.job(),
                Some(answer) => assert!([409, 503].contains(&answer.status), "{}", answer.text),
                None => {}
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    };
    tokio::time::timeout(PATIENCE, submit).await.expect("a job")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_down_at_start_is_named_and_waited_for() {
    let mut registry = Registry::start().await.unwrap();
    let ground = Ground::on(&kafka().await, &registry.url(), &postgres_database().await).await;
    apply_flows(&ground).await;
    registry.kill9();
    let ingest = Ingest::start(&ground, |_| {}).await;
    until_missing(&ingest.api, "registry").await;
    for path in ["/orders", "/v1/flows/order/jobs"] {
        let answer = ingest.api.post(path, &[], INPUT).await;
        assert_eq!((answer.status, answer.problem(), answer.header("retry-after")), (503, "not-ready", "1"));
        assert!(answer.json["detail"].as_str().unwrap().contains("registry: "), "{}", answer.text);
    }
    registry.restart().await.unwrap();
    ingest.ready().await;
    ingest.api.post("/orders", &[], INPUT).await.job();
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_goes_away_loses_nothing_that_was_promised() {
    let mut postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let database_url = postgres.create_database(&prefix()).unwrap();
    let ground = Ground::on(&kafka().await, &registry().await, &database_url).await;
    apply_flows(&ground).await;
    let ingest = Ingest::start(&ground, |_| {}).await;
    ingest.ready().await;
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let api = ingest.api.clone();
        clients.spawn(async move {
            let mut jobs = Vec::new();
            for number in 0..60 {
                jobs.push(submit_patiently(api.clone(), format!("k-{client}-{number}")).await);
            }
            jobs
        });
    }
    for number in 0..200 {
        let text = format!(r#"{{"flow":"order","input":{INPUT},"id":"cmd-{number}"}}"#);
        let key = Some(format!("k{number}").into_bytes());
        ground
            .send(&Record {
                topic: ground.topics.commands(),
                key,
                value: Some(text.into()),
                headers: Headers::default(),
            })
            .await;
        if number == 100 {
            postgres.kill9();
        }
    }
    until_missing(&ingest.api, "postgres").await;
    let answer = ingest.api.order(&[], INPUT).await;
    assert_eq!((answer.status, answer.problem(), answer.header("retry-after")), (503, "not-ready", "1"));
    let answer = ingest.api.get("/v1/jobs/0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d").await;
    assert_eq!((answer.status, answer.problem()), (503, "not-ready"));
    // One that starts while Postgres is away.
    let late = Ingest::start(&ground, |_| {}).await;
    until_missing(&late.api, "postgres").await;
    assert_eq!(late.api.post("/orders", &[], INPUT).await.status, 503);

    postgres.restart().await.unwrap();
    late.ready().await;
    let promised: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    assert_eq!(promised.iter().collect::<BTreeSet<_>>().len(), 480, "one job per key");
    eventually(PATIENCE, "all jobs", async || (jobs_stored(&ground) >= 680).then_some(())).await;
    ingest.ready().await;
    for job in promised.iter().step_by(40) {
        assert_eq!(late.api.get(&format!("/v1/jobs/{job}")).await.status, 200);
    }
    ingest.stop().await;
    late.stop().await;
    let kept = ground.sql("select count(*) from ingest.idempotency");
    assert_eq!((kept.as_str(), jobs_stored(&ground)), ("680", 680));
    assert_eq!(ground.outbox(&ground.topics.steps("default")).len(), 680);
    assert!(ground.outbox(&ground.topics.dead_letters()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_kafka_requests_are_accepted_still_and_readiness_says_what_is_missing() {
    let mut kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let ground = Ground::on(&kafka.brokers(), &registry().await, &postgres_database().await).await;
    apply_flows(&ground).await;
    let ingest = Ingest::start(&ground, |_| {}).await;
    ingest.ready().await;
    kafka.kill9();
    until_missing(&ingest.api, "kafka").await;
    let job = ingest.api.order(&[], INPUT).await.job();
    assert_eq!(ingest.api.get(&format!("/v1/jobs/{job}")).await.status, 200);
    kafka.restart().await.unwrap();
    ingest.ready().await;
    let text = format!(r#"{{"flow":"order","input":{INPUT}}}"#);
    let record = Record { topic: ground.topics.commands(), value: Some(text.into()), ..Record::default() };
    ground.send(&record).await;
    eventually(PATIENCE, "the command's job", async || (jobs_stored(&ground) >= 2).then_some(())).await;
    ingest.stop().await;
}
