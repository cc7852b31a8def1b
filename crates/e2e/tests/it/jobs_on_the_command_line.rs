//! `meanwhile jobs list` and `watch`, jobs that start later, parked jobs among the dead letters, and what a failed step
//! tells of its attempts.

use bus::{Producer, Record};
use flow::event::JobStatus;
use flow::id::JobId;
use serde_json::{Value, json};
use test_kit::eventually;

use crate::client::small_order;
use crate::command_line::meanwhile;
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_listed_and_watched_to_their_ends() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let api = stage.system.api();
    let url = [("MEANWHILE_URL", api.as_str())];
    let good = stage.submit("saga", &small_order("c-1", json!({}))).await.to_string();
    let declined = stage.submit("saga", &small_order("c-2", json!({ "payment": "declined" }))).await.to_string();
    let stuck = small_order("c-3", json!({ "inventory": "undo_error", "payment": "declined" }));
    let parked = stage.submit("patient", &stuck).await;

    for (job, code, end) in
        [(&good, 0, "= succeeded"), (&declined, 1, "= failed"), (&parked.to_string(), 4, "= needs_attention")]
    {
        let (exit, told, _) = meanwhile(&["jobs", "watch", job], &url, "").await;
        assert_eq!(exit, Some(code), "{told}");
        assert!(told.contains(end) && told.contains("reserve") && !told.contains('\u{1b}'), "{told}");
    }
    let unknown = "0190a5c1-0000-7000-8000-000000000000";
    let (exit, _, told) = meanwhile(&["jobs", "watch", unknown], &url, "").await;
    assert!(exit == Some(1) && told.contains("404 Not Found"), "{told}");

    // The projection is moments behind.
    let listed = eventually(PATIENCE, "all three are listed as they are", async || {
        let (_, told, _) = meanwhile(&["jobs", "list", "--since", "1h"], &url, "").await;
        ["succeeded", "failed", "needs_attention"].iter().all(|status| told.contains(status)).then_some(told)
    })
    .await;
    let ids: Vec<&str> = listed.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(ids, [&parked.to_string(), &declined, &good], "newest first: {listed}");
    assert!(listed.lines().nth(1).unwrap().contains("patient  needs_attention  reserve"), "{listed}");
    let (_, told, _) = meanwhile(&["jobs", "list", "--status", "failed,cancelled", "--json"], &url, "").await;
    let document: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&document["jobs"][0]["id"], &document["next"]), (&json!(declined), &Value::Null), "{told}");
    assert_eq!(document["jobs"].as_array().unwrap().len(), 1, "{told}");
    let (_, told, _) = meanwhile(&["jobs", "list", "--key", "c-9"], &url, "").await;
    assert_eq!(told, "no such jobs\n");
    let (exit, _, told) = meanwhile(&["jobs", "list", "--status", "done"], &url, "").await;
    assert!(exit == Some(2) && told.contains("needs_attention, succeeded"), "{told}");
    let (exit, _, told) = meanwhile(&["jobs", "list", "--flow", "sagga"], &url, "").await;
    assert!(exit == Some(1) && told.contains("there is no flow `sagga`; did you mean `saga`?"), "{told}");
    let (exit, _, told) = meanwhile(&["jobs", "cancel", "--flow", "sagga"], &url, "").await;
    assert!(exit == Some(1) && told.contains("did you mean `saga`?"), "{told}");
    let (_, told, _) = meanwhile(&["flows", "list"], &url, "").await;
    assert!(told.lines().any(|line| line == "saga"), "{told}");

    // A decline was one attempt, whose answer the step does not show.
    let status = stage.system.status(declined.parse().unwrap()).await.unwrap();
    let charge = status["steps"].as_array().unwrap().iter().find(|step| step["id"] == "charge").unwrap();
    let log = charge["error"]["attempt_log"].as_array().unwrap();
    assert_eq!((log.len(), &log[0]["attempt"], &log[0]["status"]), (1, &json!(1), &json!(402)), "{charge}");
    assert!(log[0]["duration_ms"].is_u64() && log[0].get("excerpt").is_none(), "{charge}");

    stage.shop.mend(true);
    meanwhile(&["jobs", "retry", &parked.to_string()], &url, "").await;
    assert_eq!(stage.end_of(parked).await.status, JobStatus::Failed);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_starts_later_is_waited_for_and_its_cancel_is_told() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let api = stage.system.api();
    let url = [("MEANWHILE_URL", api.as_str())];
    let input = small_order("c-1", json!({})).to_string();

    let (exit, told, _) = meanwhile(&["submit", "saga", "--input", &input, "--delay", "1h", "--json"], &url, "").await;
    let answer: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((exit, &answer["replayed"]), (Some(0), &json!(false)), "{told}");
    let later = answer["id"].as_str().unwrap().to_owned();
    stage.system.note_accepted([later.parse::<JobId>().unwrap()]);
    eventually(PATIENCE, "the late start is shown", async || {
        let (_, told, _) = meanwhile(&["jobs", "show", &later], &url, "").await;
        told.contains(". reserve    starts in 1 h").then_some(())
    })
    .await;
    let cancel = ["jobs", "cancel", &later, "--reason", "ordered twice", "--follow"];
    let (exit, told, _) = meanwhile(&cancel, &url, "").await;
    assert_eq!(exit, Some(0), "the cancel is what was wanted: {told}");
    let lines = ["wants: ordered twice", "cancelled; nothing was undone", "= cancelled ordered twice"];
    assert!(lines.iter().all(|line| told.contains(line)), "{told}");
    for follow in [&["jobs", "show", &later, "--follow"][..], &["jobs", "watch", &later]] {
        let (exit, told, _) = meanwhile(follow, &url, "").await;
        assert_eq!(exit, Some(3), "{follow:?}: {told}");
    }
    let (exit, told, _) = meanwhile(&["jobs", "watch", &later, "--json"], &url, "").await;
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((exit, &lines[0]["type"]), (Some(3), &json!("job.accepted")), "{told}");
    assert_eq!(lines.last().unwrap()["cancel"]["reason"], "ordered twice", "{told}");

    // Waited for: the result, and nothing else.
    let (exit, told, beside) = meanwhile(&["submit", "saga", "--input", &input, "--wait", "60s"], &url, "").await;
    assert_eq!(exit, Some(0), "{told}{beside}");
    let result: Value = serde_json::from_str(&told).unwrap();
    assert!(result.is_object(), "{told}");
    let declined = small_order("c-1", json!({ "payment": "declined" })).to_string();
    let wait = ["submit", "saga", "--input", &declined, "--wait", "60s", "--json"];
    let (exit, told, _) = meanwhile(&wait, &url, "").await;
    let status: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((exit, &status["status"]), (Some(1), &json!("failed")), "{told}");
    let wait = ["submit", "saga", "--input", &input, "--delay", "1h", "--wait", "1ms"];
    let (exit, told, beside) = meanwhile(&wait, &url, "").await;
    assert!(exit == Some(5) && beside.contains(&format!("jobs watch {}", told.trim())), "{told}{beside}");
    let (_, cancelled, _) = meanwhile(&["jobs", "cancel", told.trim(), "--json"], &url, "").await;
    assert_eq!(serde_json::from_str::<Value>(&cancelled).unwrap()["id"], told.trim());

    let jobs = meanwhile(&["jobs", "list", "--json"], &url, "").await.1;
    let jobs: Value = serde_json::from_str(&jobs).unwrap();
    let ids = jobs["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().parse().unwrap());
    let ids: Vec<JobId> = ids.collect();
    assert_eq!(ids.len(), 4, "{jobs}");
    stage.system.note_accepted(ids.iter().copied());
    stage.ends_of(ids).await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_an_operator_is_told_with_its_reason_and_settled_once() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let api = stage.system.api();
    let url = [("MEANWHILE_URL", api.as_str())];
    let stuck = small_order("c-3", json!({ "inventory": "undo_error", "payment": "declined" }));
    let job = stage.submit("patient", &stuck).await;
    let id = job.to_string();
    let list = async |more: &[&str]| meanwhile(&[&["dead-letters", "list"], more].concat(), &url, "").await.1;
    let listed = eventually(PATIENCE, "the parked job is listed", async || {
        let told = list(&[]).await;
        told.contains(&id).then_some(told)
    })
    .await;
    assert!(listed.contains("flow patient  reserve: ") && listed.contains("jobs retry ID"), "{listed}");
    let (exit, told, _) = meanwhile(&["dead-letters", "show", &id], &url, "").await;
    let status: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((exit, &status["status"]), (Some(0), &json!("needs_attention")), "{told}");
    let (exit, _, told) = meanwhile(&["dead-letters", "drop", &id, "--reason", "no"], &url, "").await;
    assert!(exit == Some(1) && told.contains(&format!("`meanwhile jobs cancel {id}`")), "{told}");

    // A record of a flow that is not there, sent back as it is, comes again.
    let producer = Producer::new(&stage.system.settings()).unwrap();
    let value = json!({ "flow": "sagga", "id": "k", "input": {} }).to_string().into_bytes();
    producer
        .send(&Record { topic: stage.system.topics().commands(), value: Some(value), ..Record::default() })
        .await
        .unwrap();
    let letter = async |but: &str| {
        eventually(PATIENCE, "the dead letter is listed", async || {
            let told = list(&["--class", "unknown-flow"]).await;
            let ids = told.lines().skip(1).filter_map(|line| line.split(' ').next());
            ids.map(str::to_owned).find(|id| id != but)
        })
        .await
    };
    let first = letter("").await;
    let told = list(&["--class", "too-large"]).await;
    assert!(told.contains("nothing that was chosen") && told.contains("unknown-flow 1"), "{told}");
    let (exit, _, told) = meanwhile(&["dead-letters", "list", "--flow", "patiemt"], &url, "").await;
    assert!(exit == Some(1) && told.contains("did you mean `patient`?"), "{told}");
    let order = ["dead-letters", "redrive", &first];
    let (_, once, _) = meanwhile(&order, &url, "").await;
    let (_, twice, _) = meanwhile(&order, &url, "").await;
    assert!(
        once.contains(" goes back to ") && twice.contains(" before, ") && twice.contains("not sent again"),
        "{twice}"
    );
    let second = letter(&first).await;
    let order = ["dead-letters", "drop", &second, "--reason", "a typo"];
    let (_, once, _) = meanwhile(&order, &url, "").await;
    let (_, twice, _) = meanwhile(&order, &url, "").await;
    assert!(once.ends_with(" is dropped\n") && twice.contains(" was dropped before, "), "{once}{twice}");

    stage.shop.mend(true);
    let (exit, told, _) = meanwhile(&["jobs", "retry", &id, "--json"], &url, "").await;
    assert_eq!((exit, serde_json::from_str::<Value>(&told).unwrap()["id"].clone()), (Some(0), json!(id)), "{told}");
    assert_eq!(stage.end_of(job).await.status, JobStatus::Failed);
    let left = stage.finish().await;
    assert_eq!(left.tokens.dead_letters, 2);
}
