//! Callers who wait get the answer that the old service gave, byte for byte.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request as Incoming, State};
use axum::http::header::CONTENT_TYPE;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use reqwest::Response;
use serde_json::{Value, json};
use test_kit::{Answer, Receiver, Request, Role, eventually, http_client, repository};

use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

/// Bytes that are no text in any common charset.
const PDF: &[u8] = b"%PDF-1.7\r\n\x00\x01\xfe\xff\xc3\x28 %%EOF";
/// White space, an order of keys, and digits of its own.
const JSON: &[u8] = b"{ \"id\" : 123456789012345678901234567890,\n  \"total\": 1.50, \"a\": [ ] }\n";

fn service(request: &Request) -> Answer {
    let with = |status: u16, body: &'static [u8]| Answer { body: body.into(), ..Answer::status(status) };
    match request.uri.path() {
        "/pdf" => with(200, PDF).header("content-type", "application/pdf").header("etag", "\"r-7\""),
        "/json" => with(201, JSON).header("location", "/orders/7").header("set-cookie", "session=1"),
        "/gone" => Answer::status(204),
        "/no" => Answer::json(422, &json!({ "detail": "no such sku" })),
        _ => Answer::status(200),
    }
}

async fn ask(stage: &mut Stage, address: &str, input: &Value, key: &str) -> Response {
    let request = http_client().post(format!("{}{address}", stage.system.api())).json(input);
    let request = request.header("prefer", "wait=60").header("idempotency-key", format!("\"{key}\""));
    let answer = request.send().await.unwrap();
    let job = header(&answer, "content-location").split('/').nth(3).map(str::to_owned);
    stage.system.note_accepted([job.expect("the job has ended in time").parse().unwrap()]);
    answer
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_waits_is_answered_as_the_old_service_answered() {
    let _turn = beside_others().await;
    let receiver = Receiver::start().await;
    receiver.answer_with(service);
    let url = receiver.url();
    let flows = repository().join("crates/e2e/answers");
    let mut stage = Stage::start_with(|builder| builder.flows(flows).variable("SERVICE_URL", url)).await;

    for (path, status, body) in [("json", 201, JSON), ("pdf", 200, PDF), ("gone", 204, b"")] {
        for _ in 0..2 {
            let answer = ask(&mut stage, "/as-it-was", &json!({ "path": path }), path).await;
            let seen = format!("{path}: {answer:?}");
            assert_eq!(answer.status().as_u16(), status, "{seen}");
            assert!(!answer.headers().contains_key("set-cookie"), "{seen}");
            let of = |name: &str| header(&answer, name).to_owned();
            let (kind, location, etag) = (of("content-type"), of("location"), of("etag"));
            match path {
                "json" => assert_eq!((kind.as_str(), location.as_str()), ("application/json", "/orders/7"), "{seen}"),
                "pdf" => assert_eq!((kind.as_str(), etag.as_str()), ("application/pdf", "\"r-7\""), "{seen}"),
                _ => assert_eq!(kind, "", "{seen}"),
            }
            assert_eq!(answer.bytes().await.unwrap(), body, "{seen}");
        }
        let calls = receiver.requests().iter().filter(|request| request.uri.path() == format!("/{path}")).count();
        assert_eq!(calls, 1, "{path}: the second caller gets the same job's answer");
    }
    let no = ask(&mut stage, "/as-it-was", &json!({ "path": "no" }), "no").await;
    assert_eq!((no.status().as_u16(), header(&no, "content-type")), (422, "application/problem+json"));
    let problem: Value = no.json().await.unwrap();
    assert_eq!((&problem["step"], &problem["detail"]), (&json!("call"), &json!("POST was answered 422: no such sku")));

    let letter = ask(&mut stage, "/v1/flows/letter/jobs", &json!({}), "letter").await;
    let result = header(&letter, "content-location").to_owned();
    assert_eq!((letter.status().as_u16(), header(&letter, "x-revision")), (203, "\"r-7\""));
    assert!(header(&letter, "location").starts_with("/letters/"));
    assert_eq!(letter.bytes().await.unwrap(), PDF);
    let archived = receiver.requests().into_iter().find(|request| request.uri.path() == "/archive").unwrap();
    assert_eq!((archived.header("content-type"), &archived.body[..]), ("application/pdf", PDF));

    // An instance that was not there gives it from the projection.
    let second = stage.add(Role::Ingest).await;
    let second = &mut stage.system.roles()[second];
    second.wait_until_ready().await.unwrap();
    let address = format!("{}{result}", second.url());
    let part = eventually(PATIENCE, "the projected result", async || {
        let answer = http_client().get(&address).header("range", "bytes=5-13").send().await.unwrap();
        (answer.status() == 206).then_some(answer)
    })
    .await;
    assert_eq!(header(&part, "content-range"), format!("bytes 5-13/{}", PDF.len()));
    assert_eq!(part.bytes().await.unwrap(), PDF[5..14]);
    // The shop has no part in it.
    stage.finish_but_for(&BTreeSet::new()).await;
}

/// The paths and the keys of the calls that a service got, and the bodies of those with one.
type Calls = Arc<Mutex<Vec<(String, String, Bytes)>>>;

/// A service whose first document stops in its middle; the next ones come whole.
async fn halting_service() -> (Calls, String) {
    async fn answer(State(calls): State<Calls>, request: Incoming) -> axum::response::Response {
        let key = request.headers().get("idempotency-key").map_or("", |key| key.to_str().unwrap()).to_owned();
        let path = request.uri().path().to_owned();
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
        let is_first = calls.lock().is_empty();
        calls.lock().push((path.clone(), key, body));
        let begun = stream::iter([Ok::<_, Infallible>(Bytes::from_static(&PDF[..9]))]);
        let mut response = axum::response::Response::new(match path.as_str() {
            "/pdf" if is_first => Body::from_stream(begun.chain(stream::pending())),
            "/pdf" => Body::from(PDF),
            _ => Body::empty(),
        });
        response.headers_mut().insert(CONTENT_TYPE, "application/pdf".parse().unwrap());
        response.headers_mut().insert("etag", "\"r-7\"".parse().unwrap());
        response
    }
    let calls = Calls::default();
    let router = Router::new().fallback(answer).with_state(Arc::clone(&calls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (calls, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_whose_worker_dies_while_it_comes_and_before_it_is_kept_is_the_same_byte_for_byte() {
    let _turn = beside_others().await;
    let (calls, url) = halting_service().await;
    let flows = repository().join("crates/e2e/answers");
    let mut stage = Stage::start_with(|builder| {
        let builder = builder.flows(flows).variable("SERVICE_URL", url);
        builder.variable("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "2000")
    })
    .await;
    let job = stage.system.submit("letter", "dying", &json!({})).await.unwrap();
    eventually(PATIENCE, "half of the document", async || (calls.lock().len() == 1).then_some(())).await;
    let worker = stage.system.role(Role::Workers).process();
    worker.kill9();
    // The next one has read all of it, and has kept nothing yet.
    worker.set_env("MEANWHILE_STOP_AT", "workers.before-commit");
    worker.restart().unwrap();
    assert!(!worker.wait_for_exit(PATIENCE).await.unwrap().success());
    worker.set_env("MEANWHILE_STOP_AT", "");
    worker.restart().unwrap();
    stage.end_of(job).await;

    let letter = ask(&mut stage, "/v1/flows/letter/jobs", &json!({}), "dying").await;
    assert_eq!((letter.status().as_u16(), header(&letter, "idempotent-replayed")), (203, "true"), "{letter:?}");
    assert_eq!((header(&letter, "content-type"), header(&letter, "x-revision")), ("application/pdf", "\"r-7\""));
    assert_eq!(letter.bytes().await.unwrap(), PDF);
    let calls = calls.lock().clone();
    let of = |wanted: &str| calls.iter().filter(move |(path, ..)| path == wanted).cloned().collect::<Vec<_>>();
    let (rendered, archived) = (of("/pdf"), of("/archive"));
    assert_eq!(rendered.len(), 3, "one that was cut, one that was not kept, and one that was");
    assert!(rendered.iter().all(|(_, key, _)| *key == rendered[0].1), "{rendered:?}");
    assert!(archived.iter().all(|(_, _, body)| body == PDF) && !archived.is_empty(), "{archived:?}");
    stage.finish_but_for(&BTreeSet::new()).await;
}
