//! What is not at a worker is never the job's fault: its token rests, the job says why, and goes on once it is there.

use std::collections::BTreeMap;

use events::flow_document::FlowDocument;
use events::wait::{Unread, UnreadRest, Wait};
use events::{Record, decode_event, flow_record, slip_record};
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::slip::{Hold, HoldReason, Slip};
use serde_json::json;
use test_kit::{eventually, read_topic};
use workers::Workers;

use crate::stage::{ONE_STEP, PATIENCE, Stage, trace, workers_of_one_step};

/// The only wait that the worker has committed, beside its signs of life, once it is there.
async fn wait(stage: &Stage) -> Wait {
    eventually(PATIENCE, "a wait", async || {
        let records = read_topic(&stage.bus.brokers, &stage.topics.waits()).await.unwrap();
        let mut waits: Vec<Wait> = records.iter().filter_map(|record| stage.decode_wait(record)).collect();
        waits.retain(|wait| !matches!(wait, Wait::Alive(_)));
        assert!(waits.len() <= 1, "{waits:?}");
        waits.pop()
    })
    .await
}

/// The only hold, which is one of something missing; and the last event.
async fn missing(stage: &Stage) -> (Hold, JobEvent) {
    let Wait::Hold(hold) = wait(stage).await else { panic!("a hold") };
    assert_eq!(hold.reason, HoldReason::MissingStep);
    assert!(hold.release_after_ms.is_some_and(|after_ms| (1_000..=2_000).contains(&after_ms)), "it looks again soon");
    let schemas = events::Schemas::new();
    schemas.insert_writers(&stage.writers);
    let events = read_topic(&stage.bus.brokers, &stage.topics.events()).await.unwrap();
    let events = events.iter().map(|record| decode_event(&schemas, record.value.as_deref().unwrap()).unwrap());
    let last = events.filter(|event| event.job == hold.slip.job).last().unwrap();
    assert_eq!((last.kind, last.status), (EventKind::StepRetrying, JobStatus::Waiting));
    let failure = last.data.as_ref().unwrap();
    assert_eq!(failure["code"], "missing-step");
    assert_eq!(failure["message"], hold.slip.search.as_ref().unwrap().missing);
    (hold, last)
}

/// What the orchestrator does when the time has come.
async fn release(stage: &Stage, hold: &Hold) {
    stage.send(slip_record(&stage.topics, &stage.writers, &hold.queue, &hold.slip, &trace()).unwrap()).await;
}

async fn no_dead_letter(stage: &Stage) {
    let letters = read_topic(&stage.bus.brokers, &stage.topics.dead_letters()).await.unwrap();
    assert!(letters.is_empty(), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_that_comes_late_is_found_and_until_then_its_jobs_rest() {
    let mut late = Stage::new(&ONE_STEP.replace("flow: one", "flow: late")).await;
    late.topics = Stage::new(ONE_STEP).await.topics;
    let running = late.work("a", workers_of_one_step());
    late.submit(json!({})).await;
    let (hold, _) = missing(&late).await;
    let what = &hold.slip.search.as_ref().unwrap().missing;
    assert!(what.starts_with("flow late@") && what.ends_with("is not known at this worker"), "{what}");
    late.publish(&late.definition).await;
    release(&late, &hold).await;
    assert_eq!(late.ends().await[0].status, JobStatus::Succeeded);
    running.stop().await;
    late.tokens().await;
    no_dead_letter(&late).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_a_flow_that_this_worker_cannot_read_rest_and_others_go_on() {
    let stage = Stage::new(ONE_STEP).await;
    let document = FlowDocument {
        flow: "later".to_owned(),
        version: "0123456789ab".to_owned(),
        revision: 1,
        document: json!({ "flow": "later", "steps": [{ "id": "one", "native": "nothing", "teleport": true }] }),
    };
    stage.send(flow_record(&stage.topics, &document, &trace())).await;
    let running = stage.work("a", workers_of_one_step());
    let (slip, queue, events) = stage.accept(json!({}));
    for mut event in events {
        (event.flow, event.version) = ("later".to_owned(), "0123456789ab".to_owned());
        stage.send(events::event_record(&stage.topics, &stage.writers, &event, &trace()).unwrap()).await;
    }
    let mut later = slip;
    (later.flow, later.version) = (document.flow.clone(), document.version.clone());
    stage.send(slip_record(&stage.topics, &stage.writers, &queue, &later, &trace()).unwrap()).await;
    let (hold, _) = missing(&stage).await;
    let what = &hold.slip.search.as_ref().unwrap().missing;
    assert!(what.contains("cannot read the document") && what.contains("teleport"), "{what}");
    let Slip { search, attempt_uncertain, .. } = hold.slip.clone();
    assert_eq!(hold.slip, Slip { hop: later.hop + 1, search, attempt_uncertain, ..later }, "nothing else changes");
    running.stop().await;
    no_dead_letter(&stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_of_a_flow_that_was_retired_is_forgotten() {
    let stage = Stage::new(ONE_STEP).await;
    let (flow, version) = (stage.definition.name().to_owned(), stage.definition.version().to_owned());
    stage.send(events::flow_tombstone(&stage.topics, &flow, &version)).await;
    let running = stage.work("a", workers_of_one_step());
    stage.submit(json!({})).await;
    let (hold, _) = missing(&stage).await;
    let what = &hold.slip.search.as_ref().unwrap().missing;
    assert_eq!(*what, format!("flow {flow}@{version} is not known at this worker"));
    stage.publish(&stage.definition).await;
    release(&stage, &hold).await;
    assert_eq!(stage.ends().await[0].status, JobStatus::Succeeded);
    running.stop().await;
    stage.tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_native_step_that_nobody_has_rests_with_its_token() {
    let stage = Stage::new(ONE_STEP).await;
    let without = stage.work("a", Workers::builder().build());
    stage.submit(json!({})).await;
    let (hold, _) = missing(&stage).await;
    without.stop().await;
    let with = stage.work("a", workers_of_one_step());
    release(&stage, &hold).await;
    assert_eq!(stage.ends().await[0].status, JobStatus::Succeeded);
    with.stop().await;
    stage.tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_a_secret_lets_the_job_rest_for_one_that_has_it() {
    let text = r#"
flow: two
key: "k"
steps:
  - { id: one, native: nothing, with: { of: "{{ secrets.TOKEN }} {{ env.PLACE }}" } }
"#;
    let mut stage = Stage::new(text).await;
    let without = stage.work("a", workers_of_one_step());
    stage.submit(json!({})).await;
    let (hold, _) = missing(&stage).await;
    assert!(hold.slip.search.as_ref().unwrap().missing.starts_with("`secrets.TOKEN`"), "{hold:?}");
    without.stop().await;
    let settings = BTreeMap::from([("MEANWHILE_SECRET_TOKEN", "t"), ("PLACE", "p")]);
    stage.env = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let with = stage.work("a", workers_of_one_step());
    release(&stage, &hold).await;
    assert_eq!(stage.ends().await[0].status, JobStatus::Succeeded);
    with.stop().await;
    stage.tokens().await;
    no_dead_letter(&stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slip_that_requires_a_later_version_rests_byte_for_byte() {
    let stage = Stage::new(ONE_STEP).await;
    let (slip, queue, _) = stage.accept(json!({}));
    let later = Slip { requires: vec!["goto".to_owned()], ..slip.clone() };
    let record = slip_record(&stage.topics, &stage.writers, &queue, &later, &trace()).unwrap();
    stage.send(record.clone()).await;
    let running = stage.work("a", workers_of_one_step());
    let Wait::Unread(Unread { record: resting, rest, .. }) = wait(&stage).await else { panic!("unread") };
    running.stop().await;
    assert_eq!(resting, Record { headers: resting.headers.clone(), ..record.clone() });
    assert!(resting.headers.starts_with(&record.headers), "{resting:?}");
    assert!(matches!(rest, UnreadRest::Until(5_000..=10_000)), "{rest:?}");
    no_dead_letter(&stage).await;
}
