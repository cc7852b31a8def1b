//! A job that is parked on its way back: somebody has undone by hand what its service did not undo, and says so.

use events::decode_wait;
use events::wait::Wait;
use flow::decide::{Said, Verdict};
use flow::event::{EventKind, JobStatus};
use flow::slip::{Phase, Slip};

use crate::retry::{job_that, rest, slip};
use crate::stage::{Answer, Stage};

async fn say(stage: &Stage, job: &str, body: &str) -> Answer {
    stage.ingest.api.post(&format!("/v1/jobs/{job}/retry"), &[], body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_was_undone_by_hand_is_said_to_be_with_a_reason_where_the_job_is_parked_on_its_way_back() {
    let stage = Stage::new().await;
    let back = job_that(&stage, EventKind::JobParked, JobStatus::NeedsAttention).await;
    rest(&stage, Slip { phase: Phase::Undo, ..slip(&back, 4, true) }).await;
    for wrong in [
        r#"{"outcome":"undone"}"#,
        r#"{"outcome":"undone","reason":" "}"#,
        r#"{"outcome":"undone","reason":7}"#,
        r#"{"outcome":"undone","reason":"x","output":1}"#,
        r#"{"outcome":"failed","reason":"x"}"#,
        r#"{"reason":"x"}"#,
    ] {
        let answer = say(&stage, &back, wrong).await;
        assert_eq!((answer.status, answer.problem()), (400, "bad-request"), "{wrong}: {}", answer.text);
    }
    let other = say(&stage, &back, r#"{"outcome":"failed"}"#).await;
    assert_eq!((other.status, other.problem()), (409, "outcome-known"), "{}", other.text);
    let by_hand = r#"{"outcome":"undone","reason":"refunded in the till"}"#;
    let forward = job_that(&stage, EventKind::JobParked, JobStatus::NeedsAttention).await;
    rest(&stage, slip(&forward, 4, true)).await;
    let refused = say(&stage, &forward, by_hand).await;
    assert_eq!((refused.status, refused.problem()), (409, "outcome-known"), "{}", refused.text);
    assert!(refused.json["detail"].as_str().unwrap().contains("not being undone"), "{}", refused.text);
    assert_eq!(stage.ground.outbox(&stage.ground.topics.waits()), []);
    assert_eq!(say(&stage, &back, by_hand).await.job(), back);
    let sent = stage.ground.outbox(&stage.ground.topics.waits());
    let wait = stage.ground.reader.read(sent[0].value.as_deref(), decode_wait).await.unwrap();
    let Wait::Signal(signal) = wait else { panic!("{wait:?}") };
    let resume = signal.as_resume().unwrap().unwrap();
    let said = Said::Undone("refunded in the till".to_owned());
    assert_eq!((resume.token.hop, resume.verdict), (4, Some(Verdict { said, by: "default".to_owned() })));
    stage.ingest.stop().await;
}
