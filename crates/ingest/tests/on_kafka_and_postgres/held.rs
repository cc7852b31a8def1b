//! A process that leaves while callers wait: whoever is owed the outcome of a job is held until it is there.

use flow::event::JobEvent;
use serde_json::json;
use test_kit::eventually;
use tokio::task::JoinHandle;

use crate::modes::{BODY, Front, all, succeeded};
use crate::stage::{Answer, Api, PATIENCE, accepted_event, jobs_stored};

fn asking(api: &Api, path: &'static str, header: (&'static str, &'static str)) -> JoinHandle<Answer> {
    let api = api.clone();
    tokio::spawn(async move { api.post(path, &[header], BODY).await })
}

async fn answered(asking: JoinHandle<Answer>) -> Answer {
    tokio::time::timeout(PATIENCE, asking).await.expect("an answer").unwrap()
}

/// The acceptance of the job under this key. Its caller is held from before it was stored.
async fn accepted(front: &Front, key: &str) -> JobEvent {
    let sql = format!("select job from ingest.idempotency where key = '{key}'");
    let stored = async || Some(front.ground.sql(&sql)).filter(|job| !job.is_empty());
    accepted_event(&front.ground, &eventually(PATIENCE, "a stored job", stored).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_is_owed_the_outcome_gets_it_from_a_process_that_leaves_and_others_go_at_once() {
    let front = Front::new().await;
    front.flags(0, all()).await;
    let held = asking(&front.ingest.api, "/legacy", ("idempotency-key", "k-1"));
    let accepted = accepted(&front, "k-1").await;
    // The same job, by a request that repeats the first.
    let again = asking(&front.ingest.api, "/legacy", ("idempotency-key", "k-1"));
    let repeated = async || {
        let callers = front.ingest.api.get("/v1/flows/legacy/callers").await.json["callers"].clone();
        (callers[0]["requests"] == 2).then_some(())
    };
    eventually(PATIENCE, "the first request is repeated", repeated).await;
    let waiting = asking(&front.ingest.api, "/v1/flows/legacy/jobs", ("prefer", "wait=60"));
    eventually(PATIENCE, "another job", async || (jobs_stored(&front.ground) == 2).then_some(())).await;
    let Front { ground, ingest, .. } = front;
    let leaving = tokio::spawn(ingest.stop());
    assert_eq!(answered(waiting).await.status, 202);
    assert!(!held.is_finished() && !again.is_finished() && !leaving.is_finished());
    for event in [&accepted, &succeeded(&accepted)] {
        ground.tell(event).await;
    }
    for (asked, replayed) in [(held, ""), (again, "true")] {
        let answer = answered(asked).await;
        assert_eq!((answer.status, answer.json.clone()), (200, json!({ "order": 7 })), "{}", answer.text);
        assert_eq!(answer.header("idempotent-replayed"), replayed);
    }
    tokio::time::timeout(PATIENCE, leaving).await.expect("it leaves once nobody is held").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_is_still_held_at_the_end_of_the_drain_time_is_told_where_its_job_goes_on() {
    let front = Front::new().await;
    front.flags(0, all()).await;
    let hasty = Front::ingest_with(&front.ground, &front.old.url, |config| config.drain_timeout_ms = 100).await;
    let held = asking(&hasty.api, "/legacy", ("idempotency-key", "k-1"));
    let job = accepted(&front, "k-1").await.job.to_string();
    hasty.stop().await;
    let late = answered(held).await;
    assert_eq!((late.status, late.problem(), late.header("retry-after")), (504, "answer-late", "1"), "{}", late.text);
    assert!(late.text.contains("shutting down") && late.json["job"] == job.as_str(), "{}", late.text);
    assert!(late.json["links"]["self"].as_str().unwrap().ends_with(&job), "{}", late.text);
    front.ingest.stop().await;
}
