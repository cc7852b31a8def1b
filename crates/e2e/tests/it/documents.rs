//! Documents that are too large for records: kept in a real S3, streamed in and out, through faults.

use std::collections::BTreeSet;

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flow::document::sha256;
use flow::event::JobStatus;
use flow::id::JobId;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use test_kit::{Answer, Receiver, Request, Role, S3, eventually, http_client, repository};

use crate::stage::{PATIENCE, Stage};
use crate::turn::{beside_others, nearly_alone};

const SIZE: usize = 60_000_000;
/// The memory that transfers may take: parts of a document on its way in and out, and the buffers of their
/// connections. Far less than a document.
const GROWTH_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// So many bytes that are no text, and the same each time.
fn document(size: usize) -> Bytes {
    (0..size).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect()
}

fn service(request: &Request) -> Answer {
    if request.uri.path() != "/render" {
        return Answer::status(204);
    }
    let size = request.json()["bytes"].as_u64().unwrap();
    Answer { body: document(usize::try_from(size).unwrap()), ..Answer::status(200) }
        .header("content-type", "application/pdf")
}

struct Ground {
    s3: S3,
    receiver: Receiver,
    stage: Stage,
}

impl Ground {
    async fn start() -> Self {
        let (s3, receiver) = (S3::start().await.unwrap(), Receiver::start().await);
        receiver.answer_with(service);
        let (url, variables) = (receiver.url(), s3.variables());
        let flows = repository().join("crates/e2e/documents");
        let stage = Stage::start_with(|builder| {
            let builder = builder.flows(flows).variable("SERVICE_URL", url);
            variables.into_iter().fold(builder, |builder, (name, value)| builder.variable(&name, value))
        })
        .await;
        Self { s3, receiver, stage }
    }

    async fn print(&mut self, size: usize) -> JobId {
        self.stage.submit("print", &json!({ "bytes": size })).await
    }

    fn result(&self, method: Method, job: JobId) -> RequestBuilder {
        http_client().request(method, format!("{}/v1/jobs/{job}/result", self.stage.system.api()))
    }

    fn archived(&self, job: JobId) -> Vec<Request> {
        let is_own = |request: &Request| request.uri.path() == format!("/archive/{job}");
        self.receiver.requests().into_iter().filter(is_own).collect()
    }

    fn scan(&self, key: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = http_client().post(format!("{}/v1/flows/scan/jobs", self.stage.system.api())).body(body);
        request.header("idempotency-key", format!("\"{key}\"")).header("content-type", "application/pdf")
    }

    async fn accepted(&mut self, answer: Response) -> (JobId, bool) {
        let replayed = answer.headers().contains_key("idempotent-replayed");
        assert_eq!(answer.status(), 202, "{:?}", answer.text().await);
        let job = answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().parse().unwrap();
        self.stage.system.note_accepted([job]);
        (job, replayed)
    }

    /// The shop has no part in it.
    async fn finish(self) {
        self.stage.finish_but_for(&BTreeSet::new()).await;
    }
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn problem(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    (status, body["type"].as_str().unwrap().rsplit('/').next().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_document_goes_through_two_steps_and_out_again_in_bounded_memory() {
    let _turn = nearly_alone().await;
    let mut ground = Ground::start().await;
    let small = ground.print(20_000).await;
    assert_eq!(ground.stage.end_of(small).await.status, JobStatus::Succeeded);
    assert_eq!(ground.s3.objects(), Vec::<String>::new(), "a small document travels in records");
    let middle = ground.print(100_000).await;
    assert_eq!(ground.stage.end_of(middle).await.status, JobStatus::Succeeded);
    let whole = async |ground: &Ground, job: JobId| {
        ground.result(Method::GET, job).send().await.unwrap().bytes().await.unwrap()
    };
    assert!(whole(&ground, middle).await == document(100_000));
    assert_eq!(ground.s3.objects().len(), 1, "a larger one lies in the store");
    nested(&mut ground).await;
    let peak = |ground: &mut Ground, role| ground.stage.system.role(role).process().memory_peak_bytes().unwrap();
    let before = [Role::Workers, Role::Ingest].map(|role| peak(&mut ground, role));

    let large = ground.print(SIZE).await;
    let end = ground.stage.end_of(large).await;
    assert_eq!(end.status, JobStatus::Succeeded, "{:?}", end.data);
    let body = document(SIZE);
    let archived = ground.archived(large);
    assert_eq!(archived.len(), 1);
    assert_eq!(
        (archived[0].header("content-type"), archived[0].header("content-length")),
        ("application/pdf", "60000000")
    );
    assert!(archived[0].body == body, "the second service has got it byte for byte");
    let answer = ground.result(Method::GET, large).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (200, "application/pdf"));
    let tag = header(&answer, "etag").to_owned();
    assert!(answer.bytes().await.unwrap() == body, "and so has the caller");

    let status = ground.stage.status_at_end(large).await;
    let told = &status["result"]["$document"];
    assert_eq!((&told["size"], &told["sha256"]), (&json!(SIZE), &json!(sha256(&body))));
    assert_eq!((told["href"].as_str(), told.get("ref")), (Some(format!("/v1/jobs/{large}/result").as_str()), None));
    let part = ground.result(Method::GET, large).header("range", "bytes=10000000-10000099").header("if-range", &tag);
    let part = part.send().await.unwrap();
    assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, "bytes 10000000-10000099/60000000"));
    assert!(part.bytes().await.unwrap() == body[10_000_000..10_000_100]);
    let head = ground.result(Method::HEAD, large).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), header(&head, "content-length"), header(&head, "etag")),
        (200, "60000000", tag.as_str())
    );
    let known = ground.result(Method::GET, large).header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(known.status(), 304);

    let answer = ground.scan("large", body.clone()).send().await.unwrap();
    let (scanned, _) = ground.accepted(answer).await;
    assert_eq!(ground.stage.end_of(scanned).await.status, JobStatus::Succeeded);
    assert!(ground.archived(scanned)[0].body == body);
    let after = [Role::Workers, Role::Ingest].map(|role| peak(&mut ground, role));
    for (role, (before, after)) in ["workers", "ingest"].into_iter().zip(before.into_iter().zip(after)) {
        let grown = after.saturating_sub(before);
        eprintln!("{role}: {} KiB more, of {} KiB", grown / 1024, after / 1024);
        assert!(grown < GROWTH_BYTES_MAX, "{role} has grown by {grown} bytes");
    }
    ground.finish().await;
}

/// A document within a result has an address, under which its bytes are.
async fn nested(ground: &mut Ground) {
    let job = ground.stage.submit("bundle", &json!({ "bytes": 100_000 })).await;
    assert_eq!(ground.stage.end_of(job).await.status, JobStatus::Succeeded);
    let get =
        async |path: &str| http_client().get(format!("{}{path}", ground.stage.system.api())).send().await.unwrap();
    let result: Value = get(&format!("/v1/jobs/{job}/result")).await.json().await.unwrap();
    let told = &result["files"][0]["$document"];
    assert_eq!((&told["size"], told.get("ref")), (&json!(100_000), None), "{result}");
    let href = told["href"].as_str().unwrap();
    assert!(href.starts_with(&format!("/v1/jobs/{job}/result?document=")), "{href}");
    let status: Value = get(&format!("/v1/jobs/{job}")).await.json().await.unwrap();
    assert_eq!(status["result"], result);
    let bytes = get(href).await;
    let seen = (bytes.status().as_u16(), header(&bytes, "content-type"), header(&bytes, "content-disposition"));
    assert_eq!(seen, (200, "application/pdf", "attachment"));
    assert!(bytes.bytes().await.unwrap() == document(100_000));
    let part = http_client().get(format!("{}{href}", ground.stage.system.api())).header("range", "bytes=-10");
    assert!(part.send().await.unwrap().bytes().await.unwrap() == document(100_000)[99_990..]);
    // A name leads to what the result shows only, even where the job has more.
    assert_eq!(problem(get(&format!("{href}x")).await).await, (404, "not-found".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_with_a_stored_document_and_a_store_that_is_down_lose_nothing() {
    let _turn = beside_others().await;
    let mut ground = Ground::start().await;
    let worker = ground.stage.system.role(Role::Workers);
    worker.process().set_env("MEANWHILE_STOP_AT", "workers.document-stored");
    worker.restart().unwrap();
    worker.wait_until_ready().await.unwrap();
    let killed = ground.print(6_000_000).await;
    eventually(PATIENCE, "the worker has died", async || {
        (!ground.stage.system.role(Role::Workers).process().is_alive()).then_some(())
    })
    .await;
    assert_eq!(ground.s3.objects().len(), 1, "it has stored the document");
    let worker = ground.stage.system.role(Role::Workers);
    worker.process().set_env("MEANWHILE_STOP_AT", "");
    worker.restart().unwrap();
    worker.wait_until_ready().await.unwrap();
    assert_eq!(ground.stage.end_of(killed).await.status, JobStatus::Succeeded);
    let body = document(6_000_000);
    assert!(ground.archived(killed).iter().all(|request| request.body == body));
    let answer = ground.result(Method::GET, killed).send().await.unwrap();
    assert!(answer.bytes().await.unwrap() == body);
    let objects = ground.s3.objects();
    assert!(objects.len() == 2 && objects.iter().all(|key| key.contains(&killed.to_string())), "{objects:?}");

    ground.s3.kill9();
    let waiting = ground.print(6_000_000).await;
    let ingest = ground.stage.system.api();
    eventually(PATIENCE, "readiness names the store", async || {
        let answer = http_client().get(format!("{ingest}/readyz")).send().await.unwrap();
        let said = (answer.status().as_u16(), answer.text().await.unwrap());
        (said.0 == 503 && said.1.contains("documents (ingest): ")).then_some(())
    })
    .await;
    let answer = ground.result(Method::GET, killed).send().await.unwrap();
    assert!(!header(&answer, "retry-after").is_empty(), "{answer:?}");
    assert_eq!(problem(answer).await, (503, "not-ready".to_owned()));
    let answer = ground.scan("down", body.clone()).send().await.unwrap();
    assert_eq!(problem(answer).await, (503, "not-ready".to_owned()));
    eventually(PATIENCE, "the step is retried", async || {
        let status = ground.stage.system.status(waiting).await.unwrap();
        let render = &status["steps"][0];
        (render["error"]["code"] == "document-store").then_some(())
    })
    .await;
    ground.s3.restart().await.unwrap();
    let end = ground.stage.end_of(waiting).await;
    assert_eq!(end.status, JobStatus::Succeeded, "{:?}", end.data);
    let answer = ground.result(Method::GET, waiting).send().await.unwrap();
    assert!(answer.bytes().await.unwrap() == body);
    for place in 0..ground.stage.system.roles().len() {
        ground.stage.system.roles()[place].wait_until_ready().await.unwrap();
    }

    let key = ground.s3.objects().into_iter().find(|key| key.contains(&waiting.to_string())).unwrap();
    let mut other = body.to_vec();
    other[3_000_000] ^= 1;
    std::fs::write(ground.s3.file(&key), other).unwrap();
    let read = ground.result(Method::GET, waiting).send().await.unwrap().bytes().await;
    assert!(read.is_err(), "other bytes are never given to their end");
    ground.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_one_job_however_often_it_is_sent_and_none_if_it_breaks_off() {
    let _turn = beside_others().await;
    let mut ground = Ground::start().await;
    let body = document(6_000_000);
    let first = ground.scan("one", body.clone()).send().await.unwrap();
    let (job, replayed) = ground.accepted(first).await;
    assert!(!replayed);
    let again = ground.scan("one", body.clone()).send().await.unwrap();
    assert_eq!(ground.accepted(again).await, (job, true));
    let other = ground.scan("one", document(5_999_999)).send().await.unwrap();
    assert_eq!(problem(other).await, (422, "idempotency-key-reused".to_owned()));
    assert_eq!(ground.s3.objects().len(), 1, "only the document of the job stays");
    let end = ground.stage.end_of(job).await;
    assert_eq!(
        (end.status, end.data),
        (JobStatus::Succeeded, Some(json!({ "size": 6_000_000, "sha256": sha256(&body) })))
    );
    assert!(ground.archived(job)[0].body == body);

    let retried = http_client().post(format!("{}/v1/jobs/{job}/retry", ground.stage.system.api())).send().await;
    let (retried, _) = ground.accepted(retried.unwrap()).await;
    assert_eq!(ground.stage.end_of(retried).await.status, JobStatus::Succeeded);
    assert!(ground.archived(retried)[0].body == body, "a job that is started anew has a document of its own");
    assert_eq!(ground.s3.objects().len(), 2);

    let digest = |bytes: &[u8]| {
        let hex = sha256(bytes);
        let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        format!("sha-256=:{}:", STANDARD.encode(bytes))
    };
    let right = ground.scan("two", body.clone()).header("content-digest", digest(&body)).send().await.unwrap();
    let (two, _) = ground.accepted(right).await;
    let wrong = ground.scan("three", body.clone()).header("repr-digest", digest(b"")).send().await.unwrap();
    assert_eq!(problem(wrong).await, (400, "bad-request".to_owned()));
    let mut html = ground.scan("three", "x").build().unwrap();
    html.headers_mut().insert("content-type", "text/html".parse().unwrap());
    assert_eq!(problem(http_client().execute(html).await.unwrap()).await, (415, "unsupported-media-type".to_owned()));
    let large = ground.scan("three", document(70_000_001)).send().await;
    if let Ok(large) = large {
        assert_eq!(problem(large).await, (413, "payload-too-large".to_owned()));
    }
    // Of a body of unknown length it is seen on the way.
    let chunks = (0..71).map(|_| Ok::<_, std::io::Error>(document(1_000_000)));
    let endless = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    if let Ok(endless) = ground.scan("three", endless).send().await {
        assert_eq!(problem(endless).await, (413, "payload-too-large".to_owned()));
    }
    let chunks = [Ok(document(7_000_000)), Err(std::io::Error::other("the caller breaks off"))];
    let broken = ground.scan("three", reqwest::Body::wrap_stream(futures_util::stream::iter(chunks))).send().await;
    assert!(broken.is_err() || broken.unwrap().status().is_client_error());
    assert_eq!(ground.stage.end_of(two).await.status, JobStatus::Succeeded);
    let jobs = http_client().get(format!("{}/v1/jobs?flow=scan", ground.stage.system.api())).send().await.unwrap();
    assert_eq!(jobs.json::<Value>().await.unwrap()["jobs"].as_array().unwrap().len(), 3);
    eventually(PATIENCE, "nothing is left of what was refused", async || {
        (ground.s3.objects().len() == 3).then_some(())
    })
    .await;
    ground.finish().await;
}
