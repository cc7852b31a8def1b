//! Webhooks that requests ask for their own jobs, as every door takes and stores them. The notifier's tests send them.

use axum::http::Method;
use flow::event::{EventKind, JobStatus};
use serde_json::{Value, json};
use test_kit::eventually;

use crate::commands::command;
use crate::retry::job_that_was_asked_with;
use crate::stage::{Answer, INPUT, PATIENCE, Stage};

const BATCH: &str = "/v1/flows/order/jobs:batch";
const HOSTILE: &str = include_str!("../../../outbound/hostile/urls.txt");
/// 24 bytes.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const KEY_HEX: &str = "31f290f6bf06298aab4f08d43c3f082cf648a362da2da4b0";
const URL: (&str, &str) = ("meanwhile-callback-url", "https://hooks.example.com/a");
const SIGNED: (&str, &str) = ("meanwhile-callback-secret", SECRET);

fn problem(answer: &Answer) -> (u16, &str) {
    assert!(!answer.text.contains("MfKQ9r8G"), "{}", answer.text);
    (answer.status, answer.problem())
}

/// Each row: url, types, key.
fn stored(stage: &Stage) -> Vec<String> {
    let sql = "select url || ' ' || array_to_string(events, ',') || ' ' || coalesce(encode(secret, 'hex'), 'none')
               from ingest.job_webhooks order by job";
    stage.ground.sql(sql).lines().map(str::to_owned).collect()
}

/// Nothing on its way to Kafka holds the secret or its key, in whatever form.
fn nothing_tells(stage: &Stage) {
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    for needle in [KEY_HEX, &hex["whsec_".len() * 2..]] {
        let sql = format!(
            "select count(*) from outbox.messages
             where position('{needle}' in encode(value, 'hex')) > 0
                or position('{needle}' in encode(headers, 'hex')) > 0"
        );
        assert_eq!(stage.ground.sql(&sql), "0");
    }
    assert_ne!(stage.ground.sql("select count(*) from outbox.messages"), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_asks_by_headers_and_its_callback_is_part_of_it() {
    let stage = Stage::new().await;
    let api = &stage.ingest.api;
    let (key, events) = (("idempotency-key", "\"k\""), ("meanwhile-callback-events", "job.parked, job.*"));
    let headers = [key, URL, SIGNED, events];
    let first = api.order(&headers, INPUT).await;
    let job = first.job();
    assert!(!first.text.contains("hooks.example.com") && !first.text.contains("MfKQ"), "{}", first.text);
    assert_eq!(stored(&stage), [format!("https://hooks.example.com/a job.parked,job.* {KEY_HEX}")]);
    assert_eq!(stage.ground.sql("select job from ingest.job_webhooks"), job);
    let again = api.order(&headers, INPUT).await;
    assert_eq!((again.job(), again.header("idempotent-replayed")), (job.clone(), "true"));
    let other_secret = ("meanwhile-callback-secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSv");
    for other in [vec![key], vec![key, URL], vec![key, URL, SIGNED], vec![key, URL, other_secret, events]] {
        assert_eq!(problem(&api.order(&other, INPUT).await), (422, "idempotency-key-reused"), "{other:?}");
    }
    // A flow's own route takes them, too; without a secret and types it is told of the ends, unsigned.
    api.post("/orders", &[URL], INPUT).await.job();
    assert_eq!(stored(&stage)[1], "https://hooks.example.com/a job.succeeded,job.failed,job.cancelled none");
    let status = api.get(&format!("/v1/jobs/{job}")).await;
    assert!(!status.text.contains("hooks.example.com") && !status.text.contains("MfKQ"), "{}", status.text);
    nothing_tells(&stage);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_that_is_not_taken_stores_nothing() {
    let stage = Stage::new().await;
    let api = &stage.ingest.api;
    for (headers, wanted) in [
        (vec![("meanwhile-callback-url", "http://169.254.169.254/latest"), SIGNED], (422, "url-refused")),
        (vec![("meanwhile-callback-url", "http://localhost:9000/")], (422, "url-refused")),
        (vec![SIGNED], (422, "schema-violation")),
        (vec![URL, ("meanwhile-callback-secret", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")], (422, "schema-violation")),
        (vec![URL, ("meanwhile-callback-secret", "whsec_MfKQ9r8G")], (422, "schema-violation")),
        (vec![URL, ("meanwhile-callback-events", "job.done")], (422, "schema-violation")),
    ] {
        assert_eq!(problem(&api.order(&headers, INPUT).await), wanted, "{headers:?}");
    }
    let input: Value = serde_json::from_str(INPUT).unwrap();
    let item = |callback: Value| json!({ "input": input, "callback": callback }).to_string();
    let urls = HOSTILE.lines().filter(|line| !line.starts_with('#'));
    let mut lines: Vec<String> = urls.map(|url| item(json!({ "url": url, "secret": SECRET }))).collect();
    let hostile = lines.len();
    lines.extend([json!(SECRET), json!([SECRET]), json!({ "url": URL.1, "secret": [SECRET] })].map(item));
    let lines = lines.join("\n");
    let post = async |query: &str| {
        let headers = [("content-type", "application/x-ndjson")];
        api.ask(Method::POST, &format!("{BATCH}{query}"), &headers, &lines).await.unwrap()
    };
    let told = post("").await;
    assert!(!told.text.contains("MfKQ9r8G"), "{}", told.text);
    for (place, answer) in told.text.lines().enumerate() {
        let answer: Value = serde_json::from_str(answer).unwrap();
        let kind = answer["problem"]["type"].as_str().unwrap().rsplit('/').next().unwrap();
        assert_eq!(kind, if place < hostile { "url-refused" } else { "bad-request" }, "{answer}");
    }
    let atomic = post("?atomic=true").await;
    assert_eq!(problem(&atomic), (422, "batch-not-accepted"));
    assert_eq!((stage.jobs_stored(), stored(&stage).len()), (0, 0));
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_of_batches_and_commands_ask_by_a_member() {
    let stage = Stage::new().await;
    let input: Value = serde_json::from_str(INPUT).unwrap();
    let callback = |path: &str| json!({ "url": format!("https://hooks.example.com/{path}"), "secret": SECRET });
    let items = json!([
        { "input": input, "callback": callback("batch") },
        { "input": input, "callback": null },
        { "input": input }
    ]);
    let answer = stage.ingest.api.post(&format!("{BATCH}?atomic=true"), &[], &items.to_string()).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let mut line = json!({ "flow": "order", "input": input, "callback": callback("command") });
    line["callback"]["events"] = json!(["*"]);
    stage.ground.send(&command(&stage.ground, b"k", line.to_string())).await;
    eventually(PATIENCE, "the command is a job", async || (stage.jobs_stored() == 4).then_some(())).await;
    assert_eq!(
        stored(&stage),
        [
            format!("https://hooks.example.com/batch job.succeeded,job.failed,job.cancelled {KEY_HEX}"),
            format!("https://hooks.example.com/command * {KEY_HEX}"),
        ]
    );
    assert_eq!(stage.ground.sql("select count(distinct receiver) from ingest.job_webhooks"), "1", "one host");
    nothing_tells(&stage);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_started_anew_keeps_its_callback() {
    let stage = Stage::new().await;
    let job = job_that_was_asked_with(&stage, &[URL, SIGNED], EventKind::JobFailed, JobStatus::Failed).await;
    let anew = stage.ingest.api.post(&format!("/v1/jobs/{job}/retry"), &[], "").await.job();
    assert_ne!(anew, job);
    let both = stored(&stage);
    assert_eq!((both.len(), &both[0]), (2, &both[1]));
    stage.ingest.stop().await;
}
