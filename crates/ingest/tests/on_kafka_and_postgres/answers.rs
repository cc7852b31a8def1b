//! The answers of jobs that succeeded, and their bodies as resources: types, tags, ranges, and no harm to browsers.

use axum::http::Method;
use flow::answer::{Answer, Body};
use flow::document::{Document, StoredDocument, sha256};
use flow::event::{EventKind, JobEvent, JobStatus};
use serde_json::{Value, json};
use test_kit::eventually;

use crate::stage::{INPUT, PATIENCE, PREFIX, Stage, accepted_event};
use crate::stream_client::Sse;
use crate::streams_of_all::now;

const PDF: &[u8] = b"%PDF-1.7\r\n\x00\xff\xfe";

fn given(status: u16, headers: &[(&str, &str)], body: Body) -> Option<Answer> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Some(Answer { status, headers, body })
}

/// A job that has ended so, under this key.
async fn ended(stage: &Stage, key: &str, result: Value, answer: Option<Answer>) -> String {
    let (ground, api) = (&stage.ground, &stage.ingest.api);
    let job = api.order(&[("idempotency-key", key)], INPUT).await.job();
    let accepted = accepted_event(ground, &job).await;
    ground.tell(&accepted).await;
    let (kind, status) = (EventKind::JobSucceeded, JobStatus::Succeeded);
    ground.tell(&JobEvent { kind, status, hop: 1, data: Some(result), answer, ..accepted }).await;
    eventually(PATIENCE, "the job has ended", async || {
        (api.get(&format!("/v1/jobs/{job}")).await.json["status"] == "succeeded").then_some(())
    })
    .await;
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_given_as_it_was_formed_and_its_body_stays_as_a_resource() {
    let stage = Stage::new().await;
    let api = &stage.ingest.api;
    let headers = [("content-type", "text/csv"), ("location", "/orders/7"), ("cache-control", "max-age=60")];
    let job = ended(&stage, "\"csv\"", json!("a,b\n1,2\n"), given(201, &headers, Body::OfResult)).await;
    let again = [("prefer", "wait=5"), ("idempotency-key", "\"csv\"")];
    let answer = api.order(&again, INPUT).await;
    assert_eq!((answer.status, answer.text.as_str()), (201, "a,b\n1,2\n"));
    let address = format!("{PREFIX}/v1/jobs/{job}/result");
    for (name, value) in [
        ("content-type", "text/csv"),
        ("location", "/orders/7"),
        ("cache-control", "max-age=60"),
        ("content-location", address.as_str()),
        ("idempotent-replayed", "true"),
        ("content-disposition", "attachment"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }

    let path = format!("/v1/jobs/{job}/result");
    let whole = api.get(&path).await;
    assert_eq!((whole.status, whole.text.as_str()), (200, "a,b\n1,2\n"), "whatever the answer's status was");
    for (name, value) in [
        ("content-type", "text/csv"),
        ("location", ""),
        ("accept-ranges", "bytes"),
        ("cache-control", "no-store"),
        ("content-disposition", "attachment"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(whole.header(name), value, "{name}");
    }
    let tag = whole.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.len() > 20, "strong: {tag}");
    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let unchanged = api.get_with(&path, &[("if-none-match", &known), ("range", "bytes=0-0")]).await;
        assert_eq!((unchanged.status, unchanged.header("etag")), (304, tag.as_str()), "{known}");
    }
    for (range, condition, status, body, told) in [
        ("bytes=2-3", tag.as_str(), 206, "b\n", "bytes 2-3/8"),
        ("bytes=-4", tag.as_str(), 206, "1,2\n", "bytes 4-7/8"),
        ("bytes=2-3", "\"other\"", 200, "a,b\n1,2\n", ""),
        ("bytes=0-0,2-2", tag.as_str(), 200, "a,b\n1,2\n", ""),
    ] {
        let part = api.get_with(&path, &[("range", range), ("if-range", condition)]).await;
        assert_eq!((part.status, part.text.as_str()), (status, body), "{range} {condition}");
        assert_eq!((part.header("content-range"), part.header("etag")), (told, tag.as_str()), "{range} {condition}");
    }
    let beyond = api.get_with(&path, &[("range", "bytes=8-")]).await;
    assert_eq!((beyond.status, beyond.problem()), (416, "range-not-satisfiable"), "{}", beyond.text);
    assert_eq!(beyond.header("content-range"), "bytes */8");
    let head = api.ask(Method::HEAD, &path, &[("range", "bytes=0-0")], "").await.unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, "8"), "a range is for GET only");
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_is_served_as_bytes_and_shown_without_them_everywhere_else() {
    let stage = Stage::new().await;
    let api = &stage.ingest.api;
    let document = Document::new("application/pdf", PDF.to_vec()).to_json();
    let base64 = document["$document"]["base64"].as_str().unwrap();
    let begin = now(&stage.ingest).await;
    let job = ended(&stage, "\"pdf\"", document.clone(), None).await;
    let result = api.stream(&format!("/v1/jobs/{job}/result"), &[]).await;
    assert_eq!(result.headers()["content-type"], "application/pdf");
    assert_eq!(result.bytes().await.unwrap(), PDF);
    let status = api.get(&format!("/v1/jobs/{job}")).await;
    let shown = &status.json["result"]["$document"];
    assert_eq!(shown["href"], format!("{PREFIX}/v1/jobs/{job}/result"), "{}", status.text);
    assert_eq!((&shown["media_type"], &shown["size"]), (&json!("application/pdf"), &json!(PDF.len())));
    let events = api.get(&format!("/v1/jobs/{job}/events")).await;
    let mut stream = Sse::open(api, "/v1/events?status=succeeded", Some(&begin)).await;
    let streamed = stream.event().await.unwrap().json().to_string();
    for text in [&status.text, &events.text, &streamed] {
        assert!(text.contains("application/pdf") && !text.contains(base64), "{text}");
    }
    let within = ended(&stage, "\"within\"", json!({ "letter": document }), None).await;
    let result = api.get(&format!("/v1/jobs/{within}/result")).await;
    assert_eq!(result.json["letter"], document, "there is no other place for its bytes");
    assert!(!api.get(&format!("/v1/jobs/{within}")).await.text.contains(base64));
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_a_service_returns_cannot_run_on_our_origin_and_an_error_of_a_flow_stays_its_own() {
    let stage = Stage::new().await;
    let api = &stage.ingest.api;
    let page = "<script>alert(1)</script>";
    let headers = [("content-type", "text/html"), ("content-disposition", "inline")];
    let job = ended(&stage, "\"page\"", json!(page), given(200, &headers, Body::OfResult)).await;
    let result = api.get(&format!("/v1/jobs/{job}/result")).await;
    assert_eq!((result.text.as_str(), result.header("content-type")), (page, "text/html"));
    assert_eq!(result.header("content-disposition"), "inline", "the service's own word");
    assert_eq!(result.header("content-security-policy"), "sandbox; default-src 'none'");

    let own = Body::Value(json!({ "state": "sold out" }));
    ended(&stage, "\"own\"", json!(7), given(409, &[("x-own", "1")], own)).await;
    let again = stage.ingest.address.clone();
    let request = test_kit::http_client().post(format!("http://{again}/v1/flows/order/jobs")).body(INPUT);
    let request = request.header("content-type", "application/json").header("prefer", "wait=5");
    let answer = request.header("idempotency-key", "\"own\"").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-own"]), (409, &"1".parse().unwrap()));
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.text().await.unwrap(), "{\"state\":\"sold out\"}");
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_document_within_a_result_is_told_by_its_address_and_by_no_other_name() {
    let stage = Stage::new().await;
    let api = &stage.ingest.api;
    let stored = |name: &str| StoredDocument::new("application/pdf", 14, sha256(b"x"), name.to_owned()).to_json();
    let result = json!({ "pdf": stored("render-1"), "more": [1] });
    let body = Body::Value(json!([stored("render-2")]));
    let job = ended(&stage, "\"nested\"", result, given(201, &[], body)).await;
    let told = |name: &str| {
        let href = format!("{PREFIX}/v1/jobs/{job}/result?document={name}");
        json!({ "$document": { "media_type": "application/pdf", "size": 14, "sha256": sha256(b"x"), "href": href } })
    };
    let answer = api.order(&[("prefer", "wait=5"), ("idempotency-key", "\"nested\"")], INPUT).await;
    assert_eq!((answer.status, &answer.json), (201, &json!([told("render-2")])));
    let path = format!("/v1/jobs/{job}/result");
    assert_eq!(api.get(&path).await.json, json!([told("render-2")]));
    let status = api.get(&format!("/v1/jobs/{job}")).await.json;
    assert_eq!(status["result"], json!({ "pdf": told("render-1"), "more": [1] }));
    for name in ["render-1", "render-2"] {
        let head = api.ask(Method::HEAD, &format!("{path}?document={name}"), &[], "").await.unwrap();
        let seen = (head.status, head.header("content-type"), head.header("content-length"));
        assert_eq!(seen, (200, "application/pdf", "14"), "{name}");
    }
    for name in ["render-3", "", "..%2Frender-1"] {
        let missing = api.get(&format!("{path}?document={name}")).await;
        assert_eq!((missing.status, missing.problem()), (404, "not-found"), "{name}");
    }
    stage.ingest.stop().await;
}
