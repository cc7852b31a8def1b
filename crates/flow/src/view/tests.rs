use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::decide::{self, Decision, Effect, NewJob, Next, Outcome, StepError};
use crate::id::JobId;
use crate::slip::Slip;

const NOW_MS: i64 = 1_000;

fn definition() -> Definition {
    let text = r"
flow: t
steps:
  - { id: a, native: f, compensate: { native: g } }
  - { id: b, native: f, retry: { attempts: 2, backoff: 1h..2h } }
";
    Definition::parse_yaml("t.yaml", text, &mut |_| Err(String::new())).unwrap()
}

pub(super) fn new_job() -> NewJob {
    NewJob {
        job: JobId::new(Uuid::from_u128(7)),
        tenant: "default".to_owned(),
        key: "k".to_owned(),
        input: json!({}),
        correlation_id: "c".to_owned(),
        priority: 1,
        retry_of: None,
    }
}

fn failed(retryable: bool) -> Outcome {
    let error = StepError { code: "step-failed".to_owned(), message: "no".to_owned(), status: Some(400) };
    Outcome::Failed { error, retryable, effect: Effect::Refused, retry_after_ms: Some(5_000) }
}

/// A job under way: its definition, the last decision, its view and all events so far.
struct Run {
    definition: Definition,
    decision: Decision,
    events: Vec<JobEvent>,
    view: JobView,
}

impl Run {
    fn start() -> Self {
        let definition = definition();
        let decision = decide::start(&definition, new_job(), NOW_MS);
        let view = JobView::from_event(0, &decision.events[0]);
        Self { definition, events: decision.events.clone(), decision, view }
    }

    fn slip(&self) -> Slip {
        match &self.decision.next {
            Next::Step { slip, .. } | Next::RetryNow { slip, .. } => slip.clone(),
            Next::Hold(hold) => hold.slip.clone(),
            Next::End => panic!("ended"),
        }
    }

    fn step(&mut self, outcome: Outcome) -> &JobView {
        let now_ms = self.view.updated_at_ms + 100;
        self.decision = decide::advance(&self.definition, &self.slip(), outcome, now_ms);
        for event in self.decision.events.clone() {
            assert!(self.view.apply(i64::try_from(self.events.len()).unwrap(), &event));
            self.events.push(event);
        }
        &self.view
    }
}

fn ok() -> Outcome {
    Outcome::done(json!(1))
}

#[test]
fn a_job_that_succeeds_is_seen_to_progress() {
    let mut run = Run::start();
    assert_eq!((run.view.status, run.view.progress().percent), (JobStatus::Accepted, 0));
    let view = run.step(ok());
    assert_eq!((view.status, view.progress()), (JobStatus::Running, Progress { done: 1, total: 2, percent: 50 }));
    assert_eq!((view.steps[0].started_at_ms, view.steps[0].ended_at_ms), (Some(1_000), Some(1_100)));
    let view = run.step(ok());
    assert_eq!((view.status, view.progress().percent), (JobStatus::Succeeded, 100));
    assert_eq!(view.result, Some(Value::Null));
    let all: Vec<_> = run.view.steps_of(&run.definition).into_iter().map(|step| (step.id, step.status)).collect();
    assert_eq!(all, [("a".to_owned(), StepStatus::Succeeded), ("b".to_owned(), StepStatus::Succeeded)]);
}

#[test]
fn steps_that_a_job_has_jumped_over_were_not_needed() {
    let mut run = Run::start();
    let mut over = run.decision.events[0].clone();
    (over.kind, over.status, over.hop, over.index) = (EventKind::JobSucceeded, JobStatus::Succeeded, 9, 9);
    assert!(run.view.apply(9, &over));
    assert_eq!(run.view.progress(), Progress { done: 2, total: 2, percent: 100 });
    assert!(run.view.steps_of(&run.definition).iter().all(|step| step.status == StepStatus::Skipped));
}

#[test]
fn a_held_attempt_says_when_the_next_one_comes_and_is_over_when_the_job_goes_back() {
    let mut run = Run::start();
    run.step(ok());
    let view = run.step(failed(true));
    assert_eq!(
        (view.status, view.steps[1].status, view.steps[1].attempts),
        (JobStatus::Waiting, StepStatus::Retrying, 1)
    );
    assert!(view.steps[1].next_attempt_at_ms.unwrap() >= 6_200);
    let view = run.step(Outcome::Cancelled);
    assert_eq!(
        (view.status, view.steps[1].status, view.steps[1].next_attempt_at_ms),
        (JobStatus::Compensating, StepStatus::Failed, None)
    );
    let view = run.step(ok());
    assert_eq!((view.status, view.steps[0].status), (JobStatus::Cancelled, StepStatus::Compensated));
    assert_eq!(view.compensation, Some(Compensation { undone: vec!["a".to_owned()], stuck: None }));
    assert_eq!(view.error.as_ref().map(|error| error.code.as_str()), Some("cancelled"));
}

#[test]
fn a_parked_undo_names_the_step_that_is_stuck() {
    let mut run = Run::start();
    run.step(ok());
    run.step(failed(false));
    let view = run.step(failed(false));
    assert_eq!(
        (view.status, view.compensation.as_ref().unwrap().stuck.as_deref()),
        (JobStatus::NeedsAttention, Some("a"))
    );
    let view = run.step(ok());
    assert_eq!((view.status, view.compensation.as_ref().unwrap().stuck.as_deref()), (JobStatus::Failed, None));
    assert_eq!(view.error.as_ref().map(|error| (error.step.as_str(), error.status)), Some(("b", Some(400))));
}

#[test]
fn a_parked_job_names_the_token_that_rests_until_it_goes_on() {
    let mut run = Run::start();
    run.step(ok());
    run.step(failed(false));
    assert_eq!(run.view.parked, []);
    run.step(failed(false));
    let Next::Hold(hold) = &run.decision.next else { panic!("{:?}", run.decision) };
    assert_eq!(run.view.parked, [hold.slip.token()]);
    let resumed = decide::resumed(&hold.slip, 2, NOW_MS);
    let cursor = run.view.cursor + 1;
    run.view.apply(cursor, &resumed);
    assert_eq!((run.view.status, run.view.parked.as_slice()), (JobStatus::Compensating, &[][..]));
}

#[test]
fn a_waiting_job_names_the_token_that_rests_until_its_next_attempt() {
    let mut run = Run::start();
    run.step(failed(true));
    let Next::Hold(hold) = &run.decision.next else { panic!("{:?}", run.decision) };
    let token = hold.slip.token();
    assert_eq!((run.view.status, run.view.waiting.as_slice()), (JobStatus::Waiting, &[token][..]));
    run.step(ok());
    assert_eq!(run.view.waiting, []);
}

#[test]
fn late_and_repeated_events_change_nothing() {
    let mut run = Run::start();
    run.step(ok());
    run.step(failed(false));
    run.step(ok());
    let end = run.view.clone();
    for (cursor, event) in run.events.iter().enumerate() {
        assert!(!run.view.apply(i64::try_from(cursor).unwrap(), event));
    }
    assert_eq!(run.view, end);
    let beyond = i64::try_from(run.events.len()).unwrap() + 5;
    run.view.apply(beyond, &run.events[0].clone());
    assert_eq!(run.view.status, JobStatus::Failed, "nothing follows a final state");
}

#[test]
fn the_acceptance_is_shown_before_kafka_has_it() {
    let mut run = Run::start();
    let mut view = JobView::from_event(-1, &run.events[0]);
    assert_eq!((view.status, view.cursor), (JobStatus::Accepted, -1));
    run.step(ok());
    for (cursor, event) in run.events.iter().enumerate() {
        assert!(view.apply(i64::try_from(cursor).unwrap(), event));
    }
    assert_eq!(view, run.view);
}

#[test]
fn a_job_is_stuck_until_its_next_event_and_is_not_if_it_has_gone_on_since() {
    let mut run = Run::start();
    let last = run.events.last().unwrap().clone();
    let stuck = |at: i64| JobEvent::stuck(last.clone(), JobStatus::Accepted, at, NOW_MS + 900_000);
    let before = run.view.clone();
    assert!(run.view.apply(3, &stuck(0)));
    let expected = JobView { cursor: 3, stuck_since_ms: Some(NOW_MS + 900_000), ..before.clone() };
    assert_eq!(run.view, expected, "nothing else changes");
    assert!(!run.view.apply(3, &stuck(3)), "a repetition");
    assert!(run.view.apply(4, &last));
    assert_eq!(run.view.stuck_since_ms, None, "an event shows that it goes on");
    assert!(run.view.apply(5, &stuck(3)));
    assert_eq!((run.view.stuck_since_ms, run.view.updated_at_ms), (None, before.updated_at_ms), "it has gone on");
}

/// A job of these steps, at the end of what its first decision says.
fn run_of(steps: &str) -> Run {
    let text = format!("flow: t\nsteps:\n{steps}");
    let definition = Definition::parse_yaml("t.yaml", &text, &mut |_| Err(String::new())).unwrap();
    let decision = decide::start(&definition, new_job(), NOW_MS);
    let view = JobView::from_event(0, &decision.events[0]);
    Run { definition, events: decision.events.clone(), decision, view }
}

#[test]
fn a_step_that_only_rested_has_not_failed_and_one_that_was_under_way_says_why() {
    let rests = || Outcome::Rests(decide::Rest { release_after_ms: None, signal: Some("go".to_owned()) });
    let mut run = run_of("  - { id: approve, wait: { signal: go } }\n");
    assert_eq!(run.step(rests()).steps[0].status, StepStatus::Waiting);
    let view = run.step(Outcome::Cancelled);
    let step = &view.steps[0];
    assert_eq!((view.status, step.status, &step.error), (JobStatus::Cancelled, StepStatus::Pending, &None));
    assert_eq!((&step.waiting_for, step.next_attempt_at_ms), (&None, None));

    let poll = r#"poll: { url: "http://a/1", until: "{{ true }}" }"#;
    let mut run = run_of(&format!("  - {{ id: ship, http: {{ method: POST, url: \"http://a\" }}, {poll} }}\n"));
    let accepted = Outcome::Accepted { response: json!({}), retry_after_ms: None, host: Some("a".to_owned()) };
    assert_eq!(run.step(accepted).steps[0].status, StepStatus::Waiting);
    let view = run.step(Outcome::Cancelled);
    assert_eq!(view.steps[0].status, StepStatus::Failed, "it was called");
    assert_eq!(view.steps[0].error.as_ref().unwrap()["code"], "cancelled");
}

#[test]
fn a_step_that_was_undone_shows_why_it_failed_and_not_what_its_undo_found() {
    let mut run = run_of("  - { id: a, native: f, retry: { attempts: 1 }, compensate: { native: g } }\n");
    let error = StepError { code: "timed-out".to_owned(), message: "no answer".to_owned(), status: None };
    let unknown = Outcome::Failed { error, retryable: true, effect: Effect::Unknown, retry_after_ms: None };
    let code = |error: &Option<Value>| error.as_ref().map(|error| error["code"].as_str().unwrap().to_owned());
    run.step(unknown);
    let view = run.step(Outcome::NothingToUndo { status: Some(404) });
    assert_eq!(code(&view.steps[0].error).as_deref(), Some("timed-out"));
    assert_eq!(code(&view.steps[0].undo_error).as_deref(), Some("nothing-to-undo"), "while it is undone once more");
    let step = run.step(ok()).steps[0].clone();
    assert_eq!((step.status, code(&step.error).as_deref()), (StepStatus::Compensated, Some("timed-out")));
    assert_eq!(step.undo_error, None);
}
