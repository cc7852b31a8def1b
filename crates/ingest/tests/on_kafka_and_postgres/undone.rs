//! A job that is parked on its way back: somebody has undone by hand what its service did not undo, and says so.

use events::wait::Wait;
use events::{decode_wait, slip_record};
use flow::decide::{Said, Verdict};
use flow::event::{EventKind, JobStatus};
use flow::slip::{HoldReason, Phase, Slip};
use store::Role;
use store::holds::{NewHold, insert};
use test_kit::{TEST_TRACE, sample_slip};

use crate::retry::job_that;
use crate::stage::{Answer, Stage};

/// Does the orchestrator's work: the token rests at a step, in this direction.
async fn rest(stage: &Stage, job: &str, phase: Phase) {
    let slip = Slip { phase, attempt_uncertain: true, ..sample_slip(job.parse().unwrap(), 4) };
    let ground = &stage.ground;
    let record = slip_record(&ground.topics, &ground.writers, "default", &slip, &TEST_TRACE).unwrap();
    let hold = NewHold::new(slip.token(), HoldReason::Attention, record);
    let mut tx = ground.pool(Role::Orchestrator).begin().await.unwrap();
    insert(&mut tx, &[hold]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn say(stage: &Stage, job: &str, body: &str) -> Answer {
    stage.ingest.api.post(&format!("/v1/jobs/{job}/retry"), &[], body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_was_undone_by_hand_is_said_to_be_with_a_reason_where_the_job_is_parked_on_its_way_back() {
    let stage = Stage::new().await;
    let back = job_that(&stage, EventKind::JobParked, JobStatus::NeedsAttention).await;
    rest(&stage, &back, Phase::Undo).await;
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
    rest(&stage, &forward, Phase::Forward).await;
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
