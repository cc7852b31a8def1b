//! One Idempotency-Key is one job (docs/contract.md), however often and wherever it is sent.

use std::collections::BTreeSet;

use serde_json::json;

use crate::client::{Seen, order, send};
use crate::stage::Stage;
use crate::turn::beside_others;

const REPETITIONS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submit_repeated_at_once_is_one_job() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let (url, client) = (format!("{}/orders", stage.system.api()), test_kit::http_client());
    let repetitions: Vec<_> = (0..REPETITIONS)
        .map(|_| {
            let request = client.post(&url).header("idempotency-key", "\"one\"").json(&order("c-1", json!({})));
            tokio::spawn(send(request))
        })
        .collect();
    let mut answers = vec![];
    for answer in repetitions {
        answers.push(answer.await.unwrap());
    }
    let (accepted, in_use): (Vec<&Seen>, Vec<&Seen>) = answers.iter().partition(|answer| answer.status == 202);
    assert!(in_use.iter().all(|answer| answer.status == 409 && answer.header("retry-after") == "1"), "{in_use:?}");
    let jobs: BTreeSet<_> = accepted.iter().map(|answer| answer.job()).collect();
    assert_eq!(jobs.len(), 1);
    assert_eq!(accepted.iter().filter(|answer| answer.header("idempotent-replayed") != "true").count(), 1);
    assert_eq!(accepted.iter().map(|answer| answer.header("location")).collect::<BTreeSet<_>>().len(), 1);
    stage.system.note_accepted(jobs.iter().copied());

    // In any later state too, and by the other door; the bare value is the same key.
    stage.ends_of(jobs.iter().copied()).await;
    let late = send(client.post(&url).header("idempotency-key", "one").json(&order("c-1", json!({})))).await;
    assert_eq!((late.job(), late.header("idempotent-replayed")), (*jobs.first().unwrap(), "true"));
    let left = stage.finish().await;
    assert_eq!(left.tokens.ends().len(), 1);
    assert_eq!(left.shop.states().payment.entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_accepted_is_refused_with_the_reason_and_not_stored() {
    let _turn = beside_others().await;
    let mut stage =
        Stage::start_with(|builder| builder.variable("MEANWHILE__INGEST__IDEMPOTENCY_KEY_REQUIRED", "true")).await;
    let (url, client) = (format!("{}/v1/flows/order/jobs", stage.system.api()), test_kit::http_client());
    let post = |key: &'static str, body: serde_json::Value| {
        let request = client.post(&url).json(&body);
        send(if key.is_empty() { request } else { request.header("idempotency-key", key) })
    };
    let missing = post("", order("c-1", json!({}))).await;
    assert_eq!((missing.status, missing.problem()), (400, "idempotency-key-missing"));
    let first = post("\"k\"", order("c-1", json!({}))).await;
    stage.system.note_accepted([first.job()]);
    let other_body = post("\"k\"", order("c-2", json!({}))).await;
    assert_eq!((other_body.status, other_body.problem()), (422, "idempotency-key-reused"));
    let mut violating = order("c-1", json!({}));
    violating["qty"] = json!(0);
    violating["colour"] = json!("red");
    let violating = post("\"v\"", violating).await;
    assert_eq!((violating.status, violating.problem()), (422, "schema-violation"));
    let pointers: BTreeSet<_> =
        violating.body["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert!(pointers.contains("#/qty"), "{pointers:?}");
    let unknown = format!("{}/v1/flows/ordr/jobs", stage.system.api());
    let unknown = send(client.post(unknown).header("idempotency-key", "\"u\"").json(&json!({}))).await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body["detail"].as_str().unwrap().contains("`order`"), "{unknown:?}");
    let bad_json = client.post(&url).header("idempotency-key", "\"b\"").header("content-type", "application/json");
    let bad_json = send(bad_json.body("{\"customer_id\": }")).await;
    assert_eq!((bad_json.status, &bad_json.body["line"]), (400, &json!(1)));
    // A refused request leaves its key free.
    let retried = post("\"v\"", order("c-1", json!({}))).await;
    stage.system.note_accepted([retried.job()]);
    let left = stage.finish().await;
    assert_eq!(left.tokens.ends().len(), 2);
}
