//! `Idempotency-Key` (docs/contract.md): one key, one job.

use std::collections::BTreeSet;

use serde_json::json;
use tokio::task::JoinSet;

use crate::stage::{INPUT, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_gets_the_first_ones_job() {
    let stage = Stage::new().await;
    let first_headers = [("idempotency-key", "\"order-17\""), ("x-correlation-id", "the first")];
    let first = stage.ingest.api.order(&first_headers, INPUT).await;
    assert_eq!(first.header("idempotent-replayed"), "");
    // Quoted or bare, by whichever way in, with its members in whichever order: the same request.
    let same = r#"{ "qty": 2, "customer_id": "c-1" }"#;
    for (path, key, body) in
        [("/v1/flows/order/jobs", "\"order-17\"", INPUT), ("/orders", "order-17", INPUT), ("/orders", "order-17", same)]
    {
        let again = stage.ingest.api.post(path, &[("idempotency-key", key)], body).await;
        assert_eq!((again.job(), again.header("idempotent-replayed")), (first.job(), "true"));
        assert_eq!(again.header("location"), first.header("location"));
        assert_eq!(again.json, first.json, "the same answer: the job's own trace and correlation id");
    }
    let other = stage.ingest.api.order(&first_headers, r#"{"customer_id":"c-1","qty":3}"#).await;
    assert_eq!((other.status, other.problem()), (422, "idempotency-key-reused"));
    // Another flow is another scope.
    let elsewhere = stage.ingest.api.post("/v1/flows/plain/jobs", &first_headers, INPUT).await;
    assert_ne!(elsewhere.job(), first.job());
    assert_eq!(stage.jobs_stored(), 2);
    assert_eq!(stage.ground.outbox(&stage.ground.topics.steps("default")).len(), 2);

    stage.ground.sql("update ingest.idempotency set expires_at = now()");
    let later = stage.ingest.api.order(&first_headers, INPUT).await;
    assert_ne!(later.job(), first.job(), "the key has expired");
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_with_one_key_at_one_moment_make_one_job() {
    let stage = Stage::new().await;
    for round in 0..20 {
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            let (api, key) = (stage.ingest.api.clone(), format!("round-{round}"));
            clients.spawn(async move { api.order(&[("idempotency-key", &key)], INPUT).await });
        }
        let answers = clients.join_all().await;
        let jobs: BTreeSet<String> =
            answers.iter().filter(|answer| answer.status == 202).map(|answer| answer.job()).collect();
        assert_eq!(jobs.len(), 1);
        for answer in answers.iter().filter(|answer| answer.status != 202) {
            assert_eq!((answer.status, answer.problem()), (409, "idempotency-key-in-use"));
            assert_eq!(answer.header("retry-after"), "1");
        }
    }
    assert_eq!(stage.jobs_stored(), 20);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_keys_are_required_a_request_without_one_is_refused() {
    let stage = Stage::with(|config| config.idempotency_key_required = true).await;
    let answer = stage.ingest.api.order(&[], INPUT).await;
    assert_eq!((answer.status, answer.problem()), (400, "idempotency-key-missing"));
    let answer = stage.ingest.api.order(&[("idempotency-key", "k")], INPUT).await;
    assert_eq!((answer.status, &answer.json["status"]), (202, &json!("accepted")));
    stage.ingest.stop().await;
}
