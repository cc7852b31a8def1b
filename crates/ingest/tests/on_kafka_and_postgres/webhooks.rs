//! Webhooks as tenants register them, and see what became of them. No notifier runs: its rows are written by hand.

use axum::http::Method;
use serde_json::{Value, json};

use crate::stage::{Answer, PREFIX, Stage};

const AT: &str = "/v1/webhooks/endpoints";
const HOSTILE: &str = include_str!("../../../outbound/hostile/urls.txt");

async fn register(stage: &Stage, body: &str) -> Answer {
    stage.ingest.api.post(AT, &[], body).await
}

/// Registers one; its path and its secret.
async fn registered(stage: &Stage, body: &str) -> (String, String) {
    let answer = register(stage, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let path = answer.header("location").strip_prefix(PREFIX).unwrap().to_owned();
    (path, answer.json["secret"].as_str().unwrap().to_owned())
}

async fn ask(stage: &Stage, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = [&[("content-type", "application/json")], headers].concat();
    stage.ingest.api.ask(method, path, &headers, body).await.unwrap()
}

fn refused(answer: &Answer, status: u16, problem: &str) {
    assert_eq!((answer.status, answer.problem()), (status, problem), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_shows_its_secret_once_and_is_changed_by_whoever_has_seen_it() {
    let stage = Stage::new().await;
    let (path, secret) = registered(&stage, r#"{"url":"https://example.com/hook","description":"billing"}"#).await;
    assert!(secret.starts_with("whsec_") && secret.len() > 48, "{secret}");
    let api = &stage.ingest.api;
    let seen = api.get(&path).await;
    assert_eq!((seen.status, seen.header("etag")), (200, "\"1\""), "{}", seen.text);
    assert!(!seen.text.contains(&secret["whsec_".len()..]) && seen.json.get("secret").is_none(), "{}", seen.text);
    assert_eq!(seen.json["events"], json!(["job.succeeded", "job.failed", "job.cancelled"]));
    assert_eq!(api.get(AT).await.json["endpoints"], json!([seen.json]));

    let change = r#"{"url":"https://example.com/other","events":["job.*"]}"#;
    refused(&ask(&stage, Method::PUT, &path, &[], change).await, 428, "precondition-required");
    let changed = ask(&stage, Method::PUT, &path, &[("if-match", "\"1\"")], change).await;
    assert_eq!((changed.status, changed.header("etag")), (200, "\"2\""), "{}", changed.text);
    assert_eq!((&changed.json["url"], &changed.json["description"]), (&json!("https://example.com/other"), &json!("")));
    for method in [Method::PUT, Method::DELETE] {
        let late = ask(&stage, method, &path, &[("if-match", "\"1\"")], change).await;
        refused(&late, 412, "precondition-failed");
    }
    let other_kind = r#"{"url":"https://example.com/other","kind":"ed25519"}"#;
    refused(&ask(&stage, Method::PUT, &path, &[("if-match", "*")], other_kind).await, 422, "schema-violation");

    let rotated = ask(&stage, Method::POST, &format!("{path}/rotate"), &[], r#"{"overlap":"1h"}"#).await;
    assert_eq!(rotated.status, 200, "{}", rotated.text);
    assert_ne!(rotated.json["secret"], secret.as_str());
    assert!(rotated.json["old_secret_until"].is_string(), "{}", rotated.text);
    let wrong = ask(&stage, Method::POST, &format!("{path}/rotate"), &[], r#"{"overlap":"1 hour"}"#).await;
    refused(&wrong, 422, "schema-violation");

    assert_eq!(ask(&stage, Method::DELETE, &path, &[], "").await.status, 204);
    refused(&api.get(&path).await, 404, "unknown-endpoint");
    for (method, rest) in [
        (Method::DELETE, ""),
        (Method::POST, "/rotate"),
        (Method::POST, "/enable"),
        (Method::POST, "/ping"),
        (Method::GET, "/public-key"),
    ] {
        refused(&ask(&stage, method, &format!("{path}{rest}"), &[], "").await, 404, "unknown-endpoint");
    }
    refused(&api.get(&format!("{AT}/1")).await, 404, "unknown-endpoint");
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_of_ed25519_has_a_public_key_for_everybody() {
    let stage = Stage::new().await;
    let (path, secret) = registered(&stage, r#"{"url":"https://example.com","kind":"ed25519"}"#).await;
    assert!(secret.starts_with("whsk_"), "{secret}");
    let key = stage.ingest.api.get(&format!("{path}/public-key")).await;
    assert_eq!(key.json["public_key"], stage.ingest.api.get(&path).await.json["public_key"], "{}", key.text);
    let (hmac, _) = registered(&stage, r#"{"url":"https://example.com"}"#).await;
    refused(&stage.ingest.api.get(&format!("{hmac}/public-key")).await, 404, "no-public-key");
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_hostile_url_is_registered_and_nothing_of_a_bad_registration_is_stored() {
    let stage = Stage::new().await;
    for url in HOSTILE.lines().filter(|line| !line.starts_with('#')) {
        let answer = register(&stage, &json!({ "url": url }).to_string()).await;
        refused(&answer, 422, "url-refused");
        assert!(!answer.text.contains("user:password"), "{}", answer.text);
    }
    for (body, status, problem) in [
        (r#"{"url":"https://example.com","events":["job.done"]}"#, 422, "schema-violation"),
        (r#"{"url":"https://example.com","events":[]}"#, 422, "schema-violation"),
        (r#"{"url":"https://example.com","kind":"rsa"}"#, 422, "schema-violation"),
        (r#"{"url":"https://example.com","secret":"mine"}"#, 400, "bad-request"),
        (r#"{"events":["job.*"]}"#, 400, "bad-request"),
        ("[]", 400, "bad-request"),
        ("{", 400, "invalid-json"),
    ] {
        refused(&register(&stage, body).await, status, problem);
    }
    assert_eq!(stage.ground.sql("select count(*) from ingest.webhook_endpoints"), "0");
    stage.ground.sql(
        "insert into ingest.webhook_endpoints (id, tenant, url, description, events, kind, secret)
         select gen_random_uuid(), 'default', 'https://example.com', '', '{*}', 'hmac', ''
         from generate_series(1, 200)",
    );
    refused(&register(&stage, r#"{"url":"https://example.com"}"#).await, 409, "too-many-endpoints");
    stage.ingest.stop().await;
}

/// Deliveries as the notifier keeps them.
fn deliver(stage: &Stage, endpoint: &str, tenant: &str) {
    stage.ground.sql(&format!(
        "insert into notifier.deliveries (id, endpoint, tenant, job, type, body, status, attempts)
         select ('0190a6f2-7c1e-7cc0-b1f1-00000000000' || number)::uuid, '{endpoint}', '{tenant}',
                '0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d', 'job.failed',
                '{{\"type\":\"job.failed\",\"timestamp\":\"2026-01-05T09:30:00Z\",\"data\":{{}}}}',
                case when number < 3 then 'failed' else 'delivered' end, 2
         from generate_series(1, 5) as number"
    ));
    stage.ground.sql(
        "insert into notifier.attempts (delivery, attempt, duration_ms, status, error, detail, answer)
         values ('0190a6f2-7c1e-7cc0-b1f1-000000000001', 1, 7, 500, 'status', 'it answered with 500', 'no\\377'),
                ('0190a6f2-7c1e-7cc0-b1f1-000000000001', 2, 7, null, 'timed-out', 'no answer', '')",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_deliveries_is_the_tenants_own_and_comes_in_pages() {
    let stage = Stage::new().await;
    let (path, _) = registered(&stage, r#"{"url":"https://example.com"}"#).await;
    let endpoint = path.rsplit('/').next().unwrap();
    deliver(&stage, endpoint, "default");
    let api = &stage.ingest.api;
    let list = async |query: &str| api.get(&format!("/v1/webhooks/deliveries{query}")).await;
    let ids = |answer: &Answer| -> Vec<Value> {
        answer.json["deliveries"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect()
    };
    let all = list("").await;
    assert_eq!((ids(&all).len(), &all.json["next"]), (5, &Value::Null), "{}", all.text);
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(&format!("?endpoint={endpoint}&limit=2&cursor={cursor}")).await;
        paged.extend(ids(&page));
        match page.json["next"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(paged, ids(&all));
    let of_job = "?job=0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d&status=failed";
    assert_eq!(ids(&list(of_job).await), paged[3..]);
    for wrong in ["?status=lost", "?job=1", "?endpoint=x", "?cursor=x", "?limit=0", "?limit=201", "?page=2"] {
        refused(&list(wrong).await, 400, "bad-request");
    }
    let one = format!("/v1/webhooks/deliveries/{}", paged[4].as_str().unwrap());
    let shown = api.get(&one).await;
    assert_eq!(shown.json["body"]["type"], "job.failed", "{}", shown.text);
    assert_eq!(
        (&shown.json["attempt_log"][0]["status"], &shown.json["attempt_log"][1]["error"]),
        (&json!(500), &json!("timed-out"))
    );
    assert_eq!(ask(&stage, Method::POST, &format!("{one}/resend"), &[], "").await.status, 202);
    assert_eq!(stage.ground.sql("select action, endpoint from ingest.webhook_requests"), format!("resend|{endpoint}"));
    stage.ground.sql("update notifier.deliveries set tenant = 'another'");
    assert_eq!(ids(&list("").await).len(), 0);
    refused(&api.get(&one).await, 404, "unknown-delivery");
    refused(&ask(&stage, Method::POST, &format!("{one}/resend"), &[], "").await, 404, "unknown-delivery");
    refused(&api.get("/v1/webhooks/deliveries/msg_1").await, 404, "unknown-delivery");
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_of_the_notifier_is_stored_for_it_and_a_disabled_endpoint_is_enabled() {
    let stage = Stage::new().await;
    let (path, _) = registered(&stage, r#"{"url":"https://example.com"}"#).await;
    let endpoint = path.rsplit('/').next().unwrap();
    let ping = ask(&stage, Method::POST, &format!("{path}/ping"), &[], "").await;
    assert_eq!(ping.status, 202, "{}", ping.text);
    let recovery = r#"{"since":"2026-01-05T09:30:00Z"}"#;
    assert_eq!(ask(&stage, Method::POST, &format!("{path}/recover"), &[], recovery).await.status, 202);
    let asked = "select action, extract(epoch from since)::bigint from ingest.webhook_requests order by id";
    assert_eq!(stage.ground.sql(asked), "ping|\nrecover|1767605400");
    for wrong in [r#"{"since":"noon"}"#, "{}"] {
        refused(&ask(&stage, Method::POST, &format!("{path}/recover"), &[], wrong).await, 400, "bad-request");
    }
    stage.ground.sql(&format!(
        "insert into notifier.endpoints (endpoint, epoch, failing_since, disabled_at, disabled_reason)
         values ('{endpoint}', 1, now(), now(), 'failing')"
    ));
    let seen = stage.ingest.api.get(&path).await;
    assert_eq!((&seen.json["status"], &seen.json["disabled_reason"]), (&json!("disabled"), &json!("failing")));
    let enabled = ask(&stage, Method::POST, &format!("{path}/enable"), &[], "").await;
    assert_eq!((enabled.status, &enabled.json["status"]), (200, &json!("enabled")), "{}", enabled.text);
    stage.ingest.stop().await;
}
