//! Documents between steps, in a folder: kept where they are too large for records, sent on as they are, or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use flow::document::{StoredDocument, sha256};
use flow::event::{EventKind, JobEvent, JobStatus};
use serde_json::{Value, json};
use service_kit::config::DocumentSettings;
use tempfile::TempDir;
use test_kit::{Answer, Receiver};
use workers::Workers;

use crate::stage::Stage;

const FLOW: &str = r#"
flow: shop
steps:
  - id: render
    http: { method: POST, url: "{{ env.SHOP_URL }}/render", body: { form: "{{ input.form }}" } }
  - id: archive
    http: { method: PUT, url: "{{ env.SHOP_URL }}/archive/{{ input.form }}", body: "{{ steps.render.output }}" }
    retry: { attempts: 2, backoff: 10ms..10ms }
result: "{{ steps.render.output }}"
"#;

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 % 241) as u8 | 0x80).collect()
}

/// The answer of each form, and whether it lies in the store afterwards.
fn answer(form: &str) -> (Answer, bool) {
    let of = |media_type: &str, body: Vec<u8>| {
        Answer { body: body.into(), ..Answer::status(200) }.header("content-type", media_type)
    };
    match form {
        "small" => (of("application/pdf", bytes(1_000)), false),
        "large" => (of("application/pdf", bytes(1_001)), true),
        "unknown" => (of("x/y", bytes(1_001)), true),
        "text" => (of("text/csv", vec![b'a'; 9_000]), false),
        "json" => (of("application/json", json!({ "a": "b".repeat(20_000) }).to_string().into_bytes()), true),
        _ => (of("application/pdf", bytes(60_000)), true),
    }
}

async fn stage() -> (Stage, Receiver, TempDir) {
    let (receiver, folder) = (Receiver::start().await, tempfile::tempdir().unwrap());
    let mut stage = Stage::new(FLOW).await;
    stage.env.push(("SHOP_URL".to_owned(), receiver.url()));
    let url = format!("file://{}", folder.path().display());
    stage.documents =
        DocumentSettings { url, inline_bytes_max: 1_000, bytes_max: 50_000, transfers_max: 2, options: Vec::new() };
    receiver.answer_with(|request| match request.uri.path() {
        "/render" => answer(request.json()["form"].as_str().unwrap()).0,
        _ => Answer::status(204),
    });
    (stage, receiver, folder)
}

/// The workers of this stage, which hold 10,000 bytes of an answer in memory.
fn work(stage: &Stage) -> crate::stage::Running {
    let mut settings = stage.settings("a");
    settings.config.http.response_bytes_max = 10_000;
    stage.work_with(settings, Workers::builder().build())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn failure(end: &JobEvent) -> (&str, &str) {
    let data = end.data.as_ref().unwrap();
    (data["step"].as_str().unwrap(), data["code"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_large_for_a_record_goes_on_byte_for_byte() {
    let (stage, receiver, folder) = stage().await;
    let running = work(&stage);
    let forms = ["small", "large", "unknown", "text", "json"];
    let mut jobs = Vec::new();
    for form in forms {
        jobs.push(stage.submit(json!({ "form": form })).await);
    }
    let ends = stage.ends().await;
    let requests = receiver.requests();
    for (form, job) in forms.into_iter().zip(jobs) {
        let end = ends.iter().find(|end| end.job == job).unwrap();
        assert_eq!(end.status, JobStatus::Succeeded, "{form}: {:?}", end.data);
        let (answer, is_stored) = answer(form);
        let archived = requests.iter().find(|request| request.uri.path() == format!("/archive/{form}")).unwrap();
        // A text within a value would be JSON.
        if form != "text" {
            assert!(archived.body == answer.body, "{form}");
            assert_eq!(archived.header("content-type"), answer.headers[0].1, "{form}");
        }
        let result = StoredDocument::of(end.data.as_ref().unwrap());
        assert_eq!(result.is_some(), is_stored, "{form}");
        if let Some(document) = result {
            assert_eq!((document.size, document.sha256), (answer.body.len() as u64, sha256(&answer.body)), "{form}");
        }
    }
    assert_eq!(files(folder.path()).len(), 3);
    running.stop().await;
    stage.tokens().await;
}

/// The bytes with the coding `deflate`: in blocks that are stored as they are (RFC 1951 section 3.2.4).
fn deflated(bytes: &[u8]) -> Vec<u8> {
    let block = |(is_last, block): (bool, &[u8])| {
        let length = u16::try_from(block.len()).unwrap();
        [&[u8::from(is_last)][..], &length.to_le_bytes(), &(!length).to_le_bytes(), block].concat()
    };
    let blocks: Vec<&[u8]> = bytes.chunks(50_000).collect();
    let last = blocks.len() - 1;
    blocks.into_iter().enumerate().flat_map(|(at, part)| block((at == last, part))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_with_a_content_coding_is_kept_without_it() {
    let (stage, receiver, folder) = stage().await;
    receiver.answer_with(|request| match request.uri.path() {
        "/render" => Answer { body: deflated(&bytes(40_000)).into(), ..Answer::status(200) }
            .header("content-type", "application/pdf")
            .header("content-encoding", "deflate"),
        _ => Answer::status(204),
    });
    let running = work(&stage);
    stage.submit(json!({ "form": "coded" })).await;
    let end = stage.ends().await.pop().unwrap();
    assert_eq!(end.status, JobStatus::Succeeded, "{:?}", end.data);
    let document = StoredDocument::of(end.data.as_ref().unwrap()).unwrap();
    assert_eq!((document.size, document.sha256), (40_000, sha256(&bytes(40_000))));
    let requests = receiver.requests();
    assert_eq!(requests[0].header("accept-encoding"), "identity");
    assert!(requests[1].body == bytes(40_000) && files(folder.path()).len() == 1);
    running.stop().await;
    stage.tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_over_its_limit_fails_its_step_and_leaves_nothing() {
    let (mut stage, _receiver, folder) = stage().await;
    let running = work(&stage);
    stage.submit(json!({ "form": "huge" })).await;
    let end = stage.ends().await.pop().unwrap();
    assert_eq!(failure(&end), ("render", "too-large"));
    assert!(end.data.unwrap()["message"].as_str().unwrap().contains("`documents.bytes_max`"));
    running.stop().await;
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());

    stage.documents = DocumentSettings::default();
    let running = work(&stage);
    let without = stage.submit(json!({ "form": "huge" })).await;
    let ends = stage.ends().await;
    let end = ends.iter().find(|end| end.job == without).unwrap();
    assert_eq!(failure(end), ("render", "too-large"));
    let told = end.data.as_ref().unwrap()["message"].as_str().unwrap();
    assert!(told.contains("larger than 10000 bytes") && told.contains("`documents.url`"), "the remedy: {told}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_with_other_bytes_or_none_fails_its_step_for_good_and_is_not_sent() {
    let (stage, receiver, folder) = stage().await;
    let root = folder.path().to_owned();
    receiver.answer_with(move |request| match request.uri.path() {
        "/render" => answer("large").0,
        // The documents of jobs that have come so far are spoiled before the next attempt.
        "/archive/spoiled" => {
            files(&root).iter().for_each(|file| fs::write(file, vec![7; 1_001]).unwrap());
            Answer::status(503)
        }
        "/archive/gone" => {
            files(&root).iter().for_each(|file| fs::remove_file(file).unwrap());
            Answer::status(503)
        }
        _ => Answer::status(204),
    });
    let running = work(&stage);
    for form in ["spoiled", "gone"] {
        let job = stage.submit(json!({ "form": form })).await;
        let ends = stage.ends().await;
        let end = ends.iter().find(|end| end.job == job).unwrap();
        assert_eq!(failure(end), ("archive", "document-store"), "{form}");
        let came = receiver.requests().into_iter().filter(|request| request.uri.path() == format!("/archive/{form}"));
        assert_eq!(came.count(), 1, "{form}: the second attempt has sent nothing whole");
    }
    running.stop().await;
    let tokens = stage.tokens().await;
    let retried = tokens.events.iter().filter(|event| event.kind == EventKind::StepRetrying);
    let codes: Vec<Value> = retried.map(|event| event.data.as_ref().unwrap()["code"].clone()).collect();
    assert!(codes.iter().all(|code| code == "step-failed"), "neither is worth another attempt: {codes:?}");
}
