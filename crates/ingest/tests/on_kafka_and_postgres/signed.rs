//! Webhooks of other services: a request that a secret of the flow has signed starts one job, however often it is sent;
//! anything else starts nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use events::decode_slip;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use test_kit::{Ground, http_client};

use crate::stage::{Answer, Ingest, ground, jobs_stored};

const SECRET: &str = "a secret of the sender";

async fn stage(flows: &[&str]) -> (Ground, Ingest) {
    let ground = ground().await;
    for flow in flows {
        ground.apply(flow).await;
    }
    let env = vec![
        ("MEANWHILE_SECRET_NEW".to_owned(), SECRET.to_owned()),
        ("MEANWHILE_SECRET_OLD".to_owned(), "another".to_owned()),
        ("MEANWHILE_SECRET_STANDARD".to_owned(), format!("whsec_{}", BASE64.encode(SECRET))),
        ("MEANWHILE_SECRET_EMPTY".to_owned(), String::new()),
    ];
    let ingest = Ingest::start_in(&ground, env, |_| {}).await;
    ingest.ready().await;
    (ground, ingest)
}

/// HMAC-SHA256 (RFC 2104), in hexadecimal digits.
fn mac(key: &str, message: &str) -> String {
    hex(&mac_bytes(key, message))
}

fn mac_bytes(key: &str, message: &str) -> Vec<u8> {
    let padded =
        |pad: u8| -> Vec<u8> { (0..64).map(|at| key.as_bytes().get(at).copied().unwrap_or_default() ^ pad).collect() };
    let inner = Sha256::digest([&padded(0x36)[..], message.as_bytes()].concat());
    Sha256::digest([&padded(0x5c)[..], &inner[..]].concat()).to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[expect(clippy::disallowed_methods, reason = "the sender has a clock of its own")]
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn refused(answer: &Answer, status: u16, problem: &str) {
    assert_eq!((answer.status, answer.problem()), (status, problem), "{}", answer.text);
}

async fn metric(ingest: &Ingest, outcome: &str) -> f64 {
    let page =
        http_client().get(format!("http://{}/metrics", ingest.address)).send().await.unwrap().text().await.unwrap();
    let is_one = |line: &&str| {
        line.starts_with("meanwhile_webhooks_received_total{") && line.contains(&format!("outcome=\"{outcome}\""))
    };
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    page.lines().filter(is_one).map(value).sum()
}

const PUSHED: &str = r#"
flow: pushed
on:
  webhook:
    verify: github
    secrets: [OLD, NEW]
    headers: [X-GitHub-Event]
    filter: "{{ input.headers['x-github-event'] == 'push' }}"
input:
  properties:
    body: { type: object, required: [after], properties: { after: { type: string } } }
key: "{{ input.body.after }}"
steps: [{ id: one, native: one }]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_secret_has_signed_starts_one_job_and_nothing_else_does() {
    let (ground, ingest) = stage(&[PUSHED]).await;
    let push = async |signed: &str, id: &str, event: &str, body: &str| {
        let signature = format!("sha256={signed}");
        let mut headers = vec![("x-hub-signature-256", signature.as_str()), ("x-github-event", event)];
        if !id.is_empty() {
            headers.push(("x-github-delivery", id));
        }
        ingest.api.post("/v1/flows/pushed/webhook", &headers, body).await
    };
    let body = r#"{ "after": "1b2c", "ref": "main" }"#;
    let good = mac(SECRET, body);
    let first = push(&good, "d-1", "push", body).await;
    let job = first.job();
    // Sent again, by hand or since the answer was lost; and in other words.
    let again = push(&good, "d-1", "push", body).await;
    assert_eq!((again.job(), again.header("idempotent-replayed")), (job.clone(), "true"));
    let other = r#"{"after":"1b2d"}"#;
    assert_eq!(push(&mac("another", other), "d-1", "push", other).await.job(), job);
    // Nobody takes its place: callers' keys are others.
    let by_caller = ingest.api.post("/v1/flows/pushed/jobs", &[("idempotency-key", "webhook d-2")], "{}").await;
    assert_ne!(by_caller.status, 401);
    let stored = jobs_stored(&ground);
    let slips = ground.outbox(&ground.topics.steps("default"));
    let slip = ground.reader.read(slips[0].value.as_deref(), decode_slip).await.unwrap();
    assert_eq!((slip.job.to_string(), slip.key.as_str()), (job, "1b2c"));
    assert_eq!(
        slip.input,
        json!({ "headers": { "x-github-event": "push" }, "body": { "after": "1b2c", "ref": "main" } })
    );

    let before = metric(&ingest, "signature").await;
    refused(&push(&mac("guessed", body), "d-3", "push", body).await, 401, "bad-signature");
    refused(&push(&good, "d-3", "push", &body.replace("main", "mine")).await, 401, "bad-signature");
    assert_eq!(metric(&ingest, "signature").await - before, 2.0);
    refused(&push("", "d-3", "push", body).await, 401, "bad-signature");
    // Not even JSON is looked for in what nobody has signed.
    refused(&push(&good, "d-3", "push", "{").await, 401, "bad-signature");
    refused(&push(&mac(SECRET, "{"), "d-3", "push", "{").await, 400, "invalid-json");
    refused(&push(&good, "", "push", body).await, 400, "bad-request");
    let wrong = push(&mac(SECRET, r#"{"after":7}"#), "d-3", "push", r#"{"after":7}"#).await;
    refused(&wrong, 422, "schema-violation");
    assert_eq!(wrong.json["errors"][0]["pointer"], "#/body/after", "{}", wrong.text);
    let filtered = push(&good, "d-4", "star", body).await;
    assert_eq!((filtered.status, &filtered.json), (200, &json!({ "ignored": "filter" })));
    let ping = push(&mac(SECRET, r#"{"zen":"x"}"#), "d-5", "ping", r#"{"zen":"x"}"#).await;
    assert_eq!((ping.status, &ping.json), (200, &json!({ "ignored": "ping" })));
    refused(&ingest.api.post("/v1/flows/plain/webhook", &[], "{}").await, 404, "not-found");
    refused(&ingest.api.post("/v1/flows/none/webhook", &[], "{}").await, 404, "unknown-flow");
    assert_eq!(jobs_stored(&ground), stored);
    ingest.stop().await;
}

fn flow(name: &str, webhook: &str) -> String {
    format!("flow: {name}\non: {{ webhook: {{ {webhook} }} }}\nsteps: [{{ id: one, native: one }}]\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_scheme_has_its_signature_its_time_and_its_id() {
    let flows = [
        flow("standard", "verify: standard, secrets: [STANDARD]"),
        flow("stripe", "verify: stripe, secrets: [NEW], tolerance: 1m"),
        flow("slack", "verify: slack, secrets: [NEW]"),
        flow("plain_mac", "verify: hmac, secrets: [NEW], signature: x-mac"),
        flow("named", "verify: hmac, secrets: [NEW], id: \"{{ input.no }}\""),
        flow("locked", "verify: hmac, secrets: [EMPTY, UNSET]"),
    ];
    let (ground, ingest) = stage(&flows.each_ref().map(String::as_str)).await;
    let post = async |flow: &str, headers: &[(&str, &str)], body: &str| {
        ingest.api.post(&format!("/v1/flows/{flow}/webhook"), headers, body).await
    };
    let standard = async |time_s: u64, id: &str, body: &str| {
        let time = time_s.to_string();
        let signature = format!("v1,{}", BASE64.encode(mac_bytes(SECRET, &format!("{id}.{time}.{body}"))));
        let headers = [("webhook-id", id), ("webhook-timestamp", &time), ("webhook-signature", &signature)];
        post("standard", &headers, body).await
    };
    let job = standard(now_s(), "msg_1", "{}").await.job();
    // Another attempt is signed anew.
    assert_eq!(standard(now_s() - 100, "msg_1", "{}").await.job(), job);
    assert_ne!(standard(now_s(), "msg_2", "{}").await.job(), job);
    refused(&standard(now_s() - 400, "msg_3", "{}").await, 401, "bad-signature");

    let stripe = async |time_s: u64, body: &str| {
        let signature = format!("t={time_s},v1={}", mac(SECRET, &format!("{time_s}.{body}")));
        post("stripe", &[("stripe-signature", &signature)], body).await
    };
    let job = stripe(now_s(), r#"{"id":"evt_1","pending_webhooks":2}"#).await.job();
    assert_eq!(stripe(now_s(), r#"{"id":"evt_1","pending_webhooks":1}"#).await.job(), job);
    refused(&stripe(now_s() - 90, r#"{"id":"evt_2"}"#).await, 401, "bad-signature");

    let slack = async |body: &str| {
        let time = now_s().to_string();
        let signature = format!("v0={}", mac(SECRET, &format!("v0:{time}:{body}")));
        post("slack", &[("x-slack-signature", &signature), ("x-slack-request-timestamp", &time)], body).await
    };
    let challenge = slack(r#"{"type":"url_verification","challenge":"3eZb"}"#).await;
    assert_eq!((challenge.status, &challenge.json), (200, &json!({ "challenge": "3eZb" })));
    let job = slack(r#"{"type":"event_callback","event_id":"Ev1"}"#).await.job();
    assert_eq!(slack(r#"{"type":"event_callback","event_id":"Ev1","retry":1}"#).await.job(), job);

    let plain = async |flow: &str, header: &str, body: &str| post(flow, &[(header, &mac(SECRET, body))], body).await;
    let job = plain("plain_mac", "x-mac", "[1]").await.job();
    assert_eq!(plain("plain_mac", "x-mac", "[1]").await.job(), job, "its body is its id");
    assert_ne!(plain("plain_mac", "x-mac", "[2]").await.job(), job);
    let job = plain("named", "x-signature", r#"{"no":7,"a":1}"#).await.job();
    assert_eq!(plain("named", "x-signature", r#"{"no":7,"a":2}"#).await.job(), job);
    refused(&plain("named", "x-signature", r#"{"a":2}"#).await, 422, "schema-violation");
    let long: Value = json!({ "no": "x".repeat(256) });
    refused(&plain("named", "x-signature", &long.to_string()).await, 422, "schema-violation");
    let locked = plain("locked", "x-signature", "{}").await;
    refused(&locked, 503, "not-ready");
    assert!(locked.text.contains("MEANWHILE_SECRET_EMPTY, MEANWHILE_SECRET_UNSET"), "{}", locked.text);
    assert_eq!(jobs_stored(&ground), 7);
    ingest.stop().await;
}
