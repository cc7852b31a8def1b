//! Requests that become no job: each says why, in one form, and leaves nothing behind.

use axum::http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{INPUT, Stage};

const ORDER: &str = "/v1/flows/order/jobs";
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_accepted_is_refused_with_the_reason_and_leaves_nothing_behind() {
    let stage = Stage::with(|config| config.body_bytes_max = 4_096).await;
    let key = |value: &'static str| ("idempotency-key", value);
    let deep = "[".repeat(500);
    let too_long = format!(r#"{{"customer_id":"{}","qty":1}}"#, "x".repeat(300));
    let too_large = format!(r#"{{"customer_id":"{}","qty":1}}"#, "x".repeat(5_000));
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        ("/v1/flows/odrer/jobs", &[JSON], INPUT, 404, "unknown-flow", "Did you mean `order`?"),
        ("/nowhere", &[JSON], INPUT, 404, "not-found", "POST /nowhere"),
        (ORDER, &[JSON], "{\n  \"qty\": }", 400, "invalid-json", "line 2 column"),
        (ORDER, &[JSON], "", 400, "invalid-json", "line 1 column 0"),
        (ORDER, &[JSON], &deep, 400, "invalid-json", "recursion limit"),
        (ORDER, &[JSON], r#"{"customer_id":"\ud800","qty":1}"#, 400, "invalid-json", "line 1"),
        (ORDER, &[JSON], r#"{"customer_id":"a\u0000b","qty":1}"#, 422, "schema-violation", "NUL"),
        (ORDER, &[JSON], r#"{"customer_id":"","qty":1}"#, 422, "schema-violation", "empty"),
        (ORDER, &[JSON], &too_long, 422, "schema-violation", "256"),
        (ORDER, &[JSON], r#"{"customer_id":"c","qty":0}"#, 422, "schema-violation", "#/qty"),
        (ORDER, &[JSON], &too_large, 413, "payload-too-large", "4096 at most"),
        ("/orders", &[JSON], &too_large, 413, "payload-too-large", "4096 at most"),
        (ORDER, &[], INPUT, 415, "unsupported-media-type", "no Content-Type"),
        (ORDER, &[JSON, ("content-encoding", "gzip")], INPUT, 415, "unsupported-media-type", "`gzip`"),
        (ORDER, &[("content-type", "text/plain")], INPUT, 415, "unsupported-media-type", "`text/plain`"),
        (ORDER, &[JSON, key("\"\"")], INPUT, 400, "invalid-idempotency-key", "empty"),
        (ORDER, &[JSON, key("\"open")], INPUT, 400, "invalid-idempotency-key", "quoted string"),
        (ORDER, &[JSON, key("a"), key("b")], INPUT, 400, "invalid-idempotency-key", "quoted string"),
    ];
    for (path, headers, body, status, problem, words) in cases {
        let answer = stage.ingest.api.ask(Method::POST, path, headers, body).await.unwrap();
        assert_eq!((answer.status, answer.problem()), (*status, *problem), "{path} {body:.80}: {}", answer.text);
        assert!(answer.json["detail"].as_str().unwrap().contains(words), "{path} {body:.80}: {}", answer.text);
    }
    let tables = ["ingest.acceptances", "ingest.idempotency"];
    for table in tables {
        assert_eq!(stage.ground.sql(&format!("select count(*) from {table}")), "0", "{table}");
    }
    assert!(stage.ground.outbox(&stage.ground.topics.events()).is_empty());
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_violation_of_the_schema_is_told_with_its_pointer_and_bad_json_with_its_place() {
    let stage = Stage::new().await;
    let answer = stage.ingest.api.order(&[], r#"{"customer_id":7,"note":[]}"#).await;
    let pointers: Vec<&Value> =
        answer.json["errors"].as_array().unwrap().iter().map(|error| &error["pointer"]).collect();
    for pointer in ["#/customer_id", "#/note", "#"] {
        assert!(pointers.contains(&&json!(pointer)), "{}", answer.text);
    }
    assert!(answer.text.contains("qty"), "{}", answer.text);
    let answer = stage.ingest.api.order(&[], "{\n  \"qty\": }").await;
    assert_eq!((&answer.json["line"], &answer.json["column"]), (&json!(2), &json!(10)), "{}", answer.text);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_methods_and_addresses_are_refused_as_problems_too() {
    let stage = Stage::new().await;
    let (job, young) = ("0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d", "f190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d");
    let cases = [
        (Method::GET, "/orders".to_owned(), 405, "method-not-allowed", "POST"),
        (Method::PUT, ORDER.to_owned(), 405, "method-not-allowed", "POST"),
        (Method::POST, format!("/v1/jobs/{job}"), 405, "method-not-allowed", "GET,HEAD,DELETE"),
        (Method::POST, "/healthz".to_owned(), 405, "method-not-allowed", "GET,HEAD"),
        (Method::GET, format!("/v1/jobs/{job}"), 404, "unknown-job", ""),
        (Method::GET, format!("/v1/jobs/{young}/result"), 404, "unknown-job", ""),
        // Its id is of 2024: if there was such a job, its result has been forgotten.
        (Method::GET, format!("/v1/jobs/{job}/result"), 410, "gone", ""),
        (Method::GET, format!("/v1/jobs/{job}/events"), 404, "unknown-job", ""),
        (Method::GET, "/v1/jobs/not-a-job".to_owned(), 404, "unknown-job", ""),
        (Method::GET, "/v1/flows/odrer".to_owned(), 404, "unknown-flow", ""),
        (Method::GET, "/v1/nothing".to_owned(), 404, "not-found", ""),
        (Method::GET, "/problems/no-such-problem".to_owned(), 404, "not-found", ""),
        (Method::GET, format!("/v1/jobs/{job}/events?after=x"), 400, "bad-request", ""),
        (Method::GET, format!("/v1/jobs/{job}/events?befor=1"), 400, "bad-request", ""),
    ];
    for (method, path, status, problem, allow) in cases {
        let answer = stage.ingest.api.ask(method, &path, &[], "").await.unwrap();
        assert_eq!((answer.status, answer.problem()), (status, problem), "{path}: {}", answer.text);
        assert_eq!(answer.header("allow").replace(' ', ""), allow, "{path}");
    }
    for (path, allow) in [("/orders", "POST"), (ORDER, "POST"), ("/v1/jobs", "GET,HEAD")] {
        let answer = stage.ingest.api.ask(Method::OPTIONS, path, &[], "").await.unwrap();
        assert_eq!((answer.status, answer.header("allow")), (204, allow), "{path}");
    }
    for (path, coding) in [("/openapi.json", "gzip"), ("/v1/flows", "")] {
        let answer = stage.ingest.api.ask(Method::HEAD, path, &[("accept-encoding", "gzip")], "").await.unwrap();
        assert_eq!((answer.status, answer.header("content-encoding")), (200, coding), "{path}");
    }
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_is_refused_before_it_is_read_whole() {
    let stage = Stage::with(|config| config.body_bytes_max = 4_096).await;
    let mut connection = TcpStream::connect(&stage.ingest.address).await.unwrap();
    let head = format!(
        "POST {ORDER} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: 1000000000\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&[b' '; 5_000]).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(8).any(|bytes| bytes == b"HTTP/1.1") || !answer.ends_with(b"}") {
        let read = connection.read_buf(&mut answer).await.unwrap();
        assert_ne!(read, 0, "closed after {}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&answer));
    stage.ingest.stop().await;
}
