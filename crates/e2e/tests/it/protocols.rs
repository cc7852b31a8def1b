//! The API below JSON, on a real connection: HTTP/2 without a TLS handshake, bodies that are announced before they are
//! sent, HEAD wherever there is GET, and the ids by which a request is found again.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use test_kit::{TestSystem, http_client, repository, run, tool_path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::send;
use crate::stage::PATIENCE;
use crate::turn::beside_others;

async fn sandbox() -> TestSystem {
    TestSystem::builder().flows(repository().join("examples/sandbox")).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_of_http_2_carries_a_wait_a_stream_and_many_requests_at_once() {
    let _turn = beside_others().await;
    let mut system = sandbox().await;
    let (api, node) = (system.api(), tool_path("node").unwrap());
    let mut command = Command::new(node);
    command.arg(repository().join("crates/e2e/callers/http2.mjs")).arg(&api);
    let said = tokio::task::spawn_blocking(move || run(&mut command).unwrap()).await.unwrap();
    let seen: Value = serde_json::from_str(&said).unwrap();
    assert!(seen["waited"]["status"] == 200 && seen["waited"]["text"].as_str().unwrap().contains("bill-"), "{seen}");
    for (index, answer) in seen["all"].as_array().unwrap().iter().enumerate() {
        assert_eq!(answer["status"], if index % 2 == 1 { 200 } else { 404 }, "{answer}");
    }
    // Errors are problems there, too, with an absolute type, though HTTP/2 has no `Host`.
    let missing: Value = serde_json::from_str(seen["all"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(missing["type"], format!("{api}/problems/not-found"));
    let events = seen["events"]["text"].as_str().unwrap();
    assert!(events.contains("job.accepted") && events.contains("job.succeeded"), "it ends with the job: {events}");
    assert_eq!((&seen["large"], &seen["after"]), (&json!(413), &json!(200)), "a refused body breaks no other request");
    system.note_accepted([seen["id"].as_str().unwrap().parse().unwrap()]);
    system.finish(PATIENCE).await.unwrap();
}

/// Sends the head of a request that announces its body, and returns the first answer; the body if one is asked for.
async fn announce(api: &str, head: &str, body: &str) -> (bool, String) {
    let address = api.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!("{head}\r\nhost: {address}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 1024];
    let reading = tokio::time::timeout(Duration::from_secs(60), connection.read(&mut first));
    let count = reading.await.expect("an answer to the head").unwrap();
    let said = String::from_utf8_lossy(&first[..count]).into_owned();
    if !said.starts_with("HTTP/1.1 100") {
        return (false, said);
    }
    connection.write_all(body.as_bytes()).await.unwrap();
    let mut rest = String::new();
    connection.read_to_string(&mut rest).await.unwrap();
    (true, said + &rest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_would_be_refused_is_refused_before_it_is_sent() {
    let _turn = beside_others().await;
    let mut system = sandbox().await;
    let (api, body) = (system.api(), r#"{"holder":"ann","cents":1200}"#);
    let head = |path: &str, kind: &str, length: usize| {
        format!("POST {path} HTTP/1.1\r\ncontent-type: {kind}\r\ncontent-length: {length}")
    };
    let (json, own) = ("application/json", body.len());
    let (was_asked, said) = announce(&api, &head("/policies", json, own), body).await;
    assert!(was_asked && said.contains("HTTP/1.1 202 Accepted"), "{said}");
    let job = said.lines().find_map(|line| line.strip_prefix("location: ")?.rsplit('/').next()?.parse().ok()).unwrap();
    for (path, kind, length, status) in [
        ("/policies", json, 600_000_000, 413),
        ("/v1/flows/policy/jobs", json, 600_000_000, 413),
        ("/v1/flows/nothing/jobs", json, own, 404),
        ("/nowhere", json, own, 404),
        ("/v1/flows/policy/jobs?delay=soon", json, own, 400),
        ("/policies", "text/plain", own, 415),
        ("/v1/flows/policy/jobs", "text/plain", own, 415),
        ("/healthz", json, own, 405),
    ] {
        let (was_asked, said) = announce(&api, &head(path, kind, length), body).await;
        let expected = format!("HTTP/1.1 {status}");
        assert!(!was_asked && said.starts_with(&expected), "{path} {kind} {length}: {said}");
    }
    system.note_accepted([job]);
    system.finish(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_is_answered_like_get_wherever_there_is_a_get_and_without_its_body() {
    let _turn = beside_others().await;
    let mut system = sandbox().await;
    let (api, client) = (system.api(), http_client());
    let job = system.submit("policy", "one", &json!({ "holder": "ann", "cents": 1 })).await.unwrap();
    system.wait_until_ended([job], PATIENCE).await.unwrap();
    let document = send(client.get(format!("{api}/openapi.json"))).await.body;
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        if item.get("get").is_none() {
            continue;
        }
        let filled = path.replace("{job}", &job.to_string()).replace("{flow}", "policy").replace("{name}", "not-found");
        let url = format!("{api}{}", filled.replace("{id}", "0-0"));
        // What changes while it is told twice.
        let own = |name: &str| !["date", "x-correlation-id", "content-length", "retry-after", "etag"].contains(&name);
        let get = send(client.get(&url)).await;
        let head = client.head(&url).send().await.unwrap();
        assert_eq!(head.status().as_u16(), get.status, "{url}");
        let names = |headers: &reqwest::header::HeaderMap| {
            let names = headers.iter().filter(|(name, _)| own(name.as_str()));
            names.map(|(name, value)| (name.to_string(), value.clone())).collect::<Vec<_>>()
        };
        assert_eq!(names(head.headers()), names(&get.headers), "{url}");
        assert_eq!(head.bytes().await.unwrap().len(), 0, "{url}");
        asked += 1;
    }
    assert!(asked > 20, "{asked}");
    system.finish(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_and_its_job_are_found_by_the_id_that_a_caller_or_its_proxy_gave() {
    let _turn = beside_others().await;
    let mut system = sandbox().await;
    let (api, client) = (system.api(), http_client());
    let of = |holder: &str| client.post(format!("{api}/policies")).json(&json!({ "holder": holder, "cents": 1 }));
    for (headers, id) in [
        (vec![("x-correlation-id", "order-17")], "order-17"),
        (vec![("x-request-id", "proxy-4711")], "proxy-4711"),
        (vec![("x-request-id", "proxy-4712"), ("x-correlation-id", "order-18")], "order-18"),
    ] {
        let request = headers.iter().fold(of("ann"), |request, (name, value)| request.header(*name, *value));
        let seen = send(request).await;
        assert_eq!((seen.header("x-correlation-id"), &seen.body["correlation_id"]), (id, &json!(id)), "{seen:?}");
        let found = send(client.get(format!("{api}/v1/jobs?correlation_id={id}"))).await;
        assert_eq!(found.body["jobs"][0]["id"], seen.body["id"], "{found:?}");
        system.note_accepted([seen.job()]);
    }
    // A refused request has one, too, beside the trace that its log line names.
    let refused = send(of("").header("x-request-id", "proxy-4713")).await;
    assert_eq!((refused.status, refused.header("x-correlation-id")), (422, "proxy-4713"));
    assert_eq!(refused.body["trace_id"].as_str().unwrap().len(), 32);
    system.finish(PATIENCE).await.unwrap();
}
