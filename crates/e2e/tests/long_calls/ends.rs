//! Long calls end in every way in which short ones do.

use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use flow::slip::{HoldReason, Phase};
use serde_json::json;
use test_kit::Tokens;

use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

/// How often a step of this job was under way for long, and in which phase.
fn under_way(tokens: &Tokens, job: JobId) -> Vec<Phase> {
    let running = tokens.holds.iter().filter(|hold| hold.slip.job == job && hold.reason == HoldReason::Running);
    running.map(|hold| hold.slip.phase).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_call_is_followed_timed_out_or_undone_as_a_short_one_is() {
    let _turn = beside_others().await;
    let mut stage = Stage::start_with(|builder| builder).await;
    let followed = stage.submit("followed", "a", "takes-900").await;
    let brief = stage.submit("brief", "a", "held").await;
    let undone = stage.submit("undone", "a", "takes-900").await;
    let ends = stage.system.wait_until_ended([followed, brief, undone], PATIENCE).await.unwrap();
    assert_eq!(
        [followed, brief, undone].map(|job| ends[&job].status),
        [JobStatus::Succeeded, JobStatus::Failed, JobStatus::Failed]
    );
    assert_eq!(stage.status(followed).await["result"], json!({ "took": 900 }));
    let error = &stage.status(brief).await["error"];
    assert_eq!((&error["step"], &error["attempts"]), (&json!("call"), &json!(2)), "{error}");
    assert_eq!(stage.status(undone).await["compensation"]["undone"], json!(["done"]));
    let (tokens, called) = stage.finish().await;
    assert_eq!(under_way(&tokens, followed), [Phase::Forward, Phase::Forward]);
    assert!(under_way(&tokens, brief).starts_with(&[Phase::Forward]));
    assert_eq!(under_way(&tokens, undone).last(), Some(&Phase::Undo));
    let calls = called.calls_of(brief);
    assert!(calls.len() == 2 && calls.iter().all(|call| call.cut), "both attempts ran out of time: {calls:?}");
    let told = tokens.events.iter().filter(|event| event.kind == EventKind::StepRunning && event.job == followed);
    assert_eq!(told.map(|event| event.step.as_deref().unwrap()).collect::<Vec<_>>(), ["first", "second"]);
}
