//! Once more: a parked job's token is named to the orchestrator, a finished job starts anew.

use events::wait::Wait;
use events::{decode_slip, decode_wait, slip_record};
use flow::decide::{Said, Verdict};
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::TokenId;
use flow::slip::{HoldReason, Slip};
use serde_json::json;
use store::Role;
use store::holds::{NewHold, insert};
use store::jobs::{ObservedEvent, project};
use test_kit::{TEST_TRACE, eventually, sample_slip};

use crate::stage::{Answer, INPUT, PATIENCE, PREFIX, Stage, accepted_event};

/// A job that has come to this, as the events tell it.
pub(crate) async fn job_that(stage: &Stage, kind: EventKind, status: JobStatus) -> String {
    job_that_was_asked_with(stage, &[], kind, status).await
}

/// The same, submitted with these headers.
pub(crate) async fn job_that_was_asked_with(
    stage: &Stage,
    headers: &[(&str, &str)],
    kind: EventKind,
    status: JobStatus,
) -> String {
    let headers = [&[("x-correlation-id", "order 17")], headers].concat();
    let job = stage.ingest.api.order(&headers, INPUT).await.job();
    let accepted = accepted_event(&stage.ground, &job).await;
    stage.ground.tell(&accepted).await;
    stage.ground.tell(&JobEvent { kind, status, hop: 3, ..accepted }).await;
    eventually(PATIENCE, status.as_str(), async || {
        let answer = stage.ingest.api.get(&format!("/v1/jobs/{job}")).await;
        (answer.json["status"] == status.as_str()).then_some(())
    })
    .await;
    job
}

/// Does the orchestrator's work: the token of this slip rests until an operator decides.
pub(crate) async fn rest(stage: &Stage, slip: Slip) {
    let ground = &stage.ground;
    let record = slip_record(&ground.topics, &ground.writers, "default", &slip, &TEST_TRACE).unwrap();
    let hold = NewHold::new(slip.token(), HoldReason::Attention, record);
    let mut tx = ground.pool(Role::Orchestrator).begin().await.unwrap();
    insert(&mut tx, &[NewHold { step: Some(slip.step), ..hold }]).await.unwrap();
    tx.commit().await.unwrap();
}

/// The slip of a job at a step of which it is unknown how it has ended, or known.
pub(crate) fn slip(job: &str, hop: u32, attempt_uncertain: bool) -> Slip {
    Slip { attempt_uncertain, ..sample_slip(job.parse().unwrap(), hop) }
}

/// A job of a flow whose only step must not be repeated, parked so often, at last with a token at hop 4.
async fn parked_in_doubt(stage: &Stage, times: usize, attempt_uncertain: bool) -> String {
    let answer = eventually(PATIENCE, "the flow is known", async || {
        let answer = stage.ingest.api.post("/v1/flows/paying/jobs", &[], "{}").await;
        (answer.status == 202).then_some(answer)
    })
    .await;
    let job = answer.job();
    let accepted = accepted_event(&stage.ground, &job).await;
    stage.ground.tell(&accepted).await;
    for _ in 0..times {
        for (kind, status) in
            [(EventKind::JobResumed, JobStatus::Running), (EventKind::JobParked, JobStatus::NeedsAttention)]
        {
            let step = Some("pay".to_owned());
            stage.ground.tell(&JobEvent { kind, status, hop: 3, step, ..accepted.clone() }).await;
        }
    }
    project_parked(stage, &accepted).await;
    rest(stage, Slip { step: "pay".to_owned(), ..slip(&job, 4, attempt_uncertain) }).await;
    eventually(PATIENCE, "the job is parked", async || {
        let answer = stage.ingest.api.get(&format!("/v1/jobs/{job}")).await;
        (answer.json["status"] == "needs_attention").then_some(())
    })
    .await;
    let events = || async { stage.ingest.api.get(&format!("/v1/jobs/{job}/events")).await.json["events"].clone() };
    eventually(PATIENCE, "all events are read", async || {
        (events().await.as_array().unwrap().len() == 1 + 2 * times).then_some(())
    })
    .await;
    job
}

/// Does the orchestrator's work: the job is among those that the bulk redrive looks through.
async fn project_parked(stage: &Stage, accepted: &JobEvent) {
    let kind = EventKind::JobParked;
    let event = JobEvent { kind, status: JobStatus::NeedsAttention, hop: 3, ..accepted.clone() };
    let mut tx = stage.ground.pool(Role::Orchestrator).begin().await.unwrap();
    project(&mut tx, &[ObservedEvent { partition: 0, cursor: 1, trace_id: None, event }]).await.unwrap();
    tx.commit().await.unwrap();
}

const PAYING: &str = "flow: paying\nsteps: [{ id: pay, native: pay, idempotent: false }]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_sent_on_without_those_in_doubt_and_those_that_come_back() {
    let stage = Stage::new().await;
    stage.ground.apply(PAYING).await;
    let sure = parked_in_doubt(&stage, 1, false).await;
    let doubtful = parked_in_doubt(&stage, 1, true).await;
    let looping = parked_in_doubt(&stage, 6, false).await;
    let order = async |body: &str| {
        let answer = stage.ingest.api.post("/v1/dead-letters:redrive", &[], body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let left = answer.json["left"].as_array().unwrap().iter();
        let mut left: Vec<(String, String)> = left
            .map(|one| (one["id"].as_str().unwrap().to_owned(), one["reason"].as_str().unwrap().to_owned()))
            .collect();
        left.sort_unstable();
        (answer.json["redriven"].as_u64().unwrap(), left)
    };
    for body in [r#"{"class":"parked","dry_run":true}"#, r#"{"class":"parked"}"#] {
        let (redriven, left) = order(body).await;
        let [(first, doubt), (second, limit)] = left.as_slice() else { panic!("{left:?}") };
        assert_eq!((redriven, first, second), (1, &doubtful, &looping));
        assert!(doubt.contains("`pay`") && doubt.contains("--succeeded"), "{doubt}");
        assert!(limit.contains("5 times"), "{limit}");
    }
    let sent = resumed(&stage).await;
    assert_eq!(sent, [sure]);
    assert_eq!(order(r#"{"class":"parked","force":true}"#).await, (3, vec![]));
    stage.ingest.stop().await;
}

/// The jobs that the orchestrator was told to send on.
async fn resumed(stage: &Stage) -> Vec<String> {
    let mut jobs = vec![];
    for record in stage.ground.outbox(&stage.ground.topics.waits()) {
        let wait = stage.ground.reader.read(record.value.as_deref(), decode_wait).await.unwrap();
        let Wait::Signal(signal) = wait else { panic!("{wait:?}") };
        jobs.push(signal.as_resume().unwrap().unwrap().token.job.to_string());
    }
    jobs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_with_a_key_sends_a_job_on_once_and_counts_for_the_state_that_was_seen() {
    let stage = Stage::new().await;
    let job = job_that(&stage, EventKind::JobParked, JobStatus::NeedsAttention).await;
    let path = format!("/v1/jobs/{job}");
    let etag = stage.ingest.api.get(&path).await.header("etag").to_owned();
    let key = ("idempotency-key", "\"once\"");
    let stale = retry(&stage, &job, &[("if-match", "\"0\"")]).await;
    assert_eq!((stale.status, stale.problem()), (412, "precondition-failed"), "{}", stale.text);
    assert!(stale.json["detail"].as_str().unwrap().contains(&etag), "{}", stale.text);
    for seen in ["\"0\", *", etag.as_str()] {
        assert_eq!(retry(&stage, &job, &[("if-match", seen)]).await.status, 202, "{seen}");
    }
    assert_eq!(retry(&stage, &job, &[key, ("if-match", &etag)]).await.header("idempotent-replayed"), "");
    assert_eq!(resumed(&stage).await.len(), 3);
    // It is parked again: another state, and the repetition makes no second call.
    let accepted = accepted_event(&stage.ground, &job).await;
    for (kind, status) in
        [(EventKind::JobResumed, JobStatus::Running), (EventKind::JobParked, JobStatus::NeedsAttention)]
    {
        stage.ground.tell(&JobEvent { kind, status, hop: 5, ..accepted.clone() }).await;
    }
    eventually(PATIENCE, "parked again", async || {
        let answer = stage.ingest.api.get(&path).await;
        (answer.json["status"] == "needs_attention" && answer.header("etag") != etag).then_some(())
    })
    .await;
    let again = retry(&stage, &job, &[key, ("if-match", &etag)]).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"), "{}", again.text);
    assert_eq!(resumed(&stage).await.len(), 3);
    let post = async |headers: &[(&str, &str)]| {
        stage.ingest.api.post(&format!("{path}/retry"), headers, r#"{"outcome":"failed"}"#).await
    };
    let other = post(&[key]).await;
    assert_eq!((other.status, other.problem()), (422, "idempotency-key-reused"), "{}", other.text);
    let late = post(&[("if-match", &etag)]).await;
    assert_eq!((late.status, late.problem()), (412, "precondition-failed"), "{}", late.text);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_on_a_step_that_is_being_called_once_more_comes_too_late() {
    let stage = Stage::new().await;
    let job = job_that(&stage, EventKind::JobParked, JobStatus::NeedsAttention).await;
    rest(&stage, slip(&job, 4, true)).await;
    assert_eq!(retry(&stage, &job, &[]).await.status, 202);
    // Taken out by the orchestrator, of which no event tells yet.
    stage.ground.sql("delete from orchestrator.holds");
    let late = rule(&stage, &job, r#"{"outcome":"failed"}"#).await;
    assert_eq!((late.status, late.problem(), late.header("retry-after")), (409, "outcome-known", ""), "{}", late.text);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_says_for_what_and_which_command_helps() {
    let stage = Stage::new().await;
    for (reason, signal, downstream, words, remedy) in [
        (HoldReason::Signal, Some("approval"), None, "for the signal `approval`", "meanwhile jobs signal"),
        (HoldReason::Timer, None, None, "for a time", "meanwhile jobs cancel"),
        (HoldReason::Breaker, None, Some("erp"), "for the breaker of `erp`", "meanwhile breakers close erp"),
        (HoldReason::Limit, None, Some("erp"), "limits of `erp`", "meanwhile jobs cancel"),
    ] {
        let job = stage.ingest.api.order(&[], INPUT).await.job();
        let accepted = accepted_event(&stage.ground, &job).await;
        stage.ground.tell(&accepted).await;
        let waits = JobEvent {
            kind: EventKind::StepWaiting,
            status: JobStatus::Waiting,
            hop: 1,
            step: Some("reserve".to_owned()),
            reason: Some(reason),
            signal: signal.map(str::to_owned),
            data: downstream.map(|downstream| json!({ "downstream": downstream })),
            next_attempt_after_ms: Some(60_000),
            ..accepted
        };
        stage.ground.tell(&waits).await;
        eventually(PATIENCE, "the job waits", async || {
            let answer = stage.ingest.api.get(&format!("/v1/jobs/{job}")).await;
            (answer.json["status"] == "waiting").then_some(())
        })
        .await;
        let answer = retry(&stage, &job, &[]).await;
        assert_eq!((answer.status, answer.problem()), (409, "still-running"), "{}", answer.text);
        assert!(answer.json["detail"].as_str().unwrap().contains(words), "{}", answer.text);
        assert!(answer.json["remediation"].as_str().unwrap().contains(remedy), "{}", answer.text);
    }
    stage.ingest.stop().await;
}

async fn rule(stage: &Stage, job: &str, body: &str) -> Answer {
    stage.ingest.api.post(&format!("/v1/jobs/{job}/retry"), &[], body).await
}

async fn retry(stage: &Stage, job: &str, headers: &[(&str, &str)]) -> Answer {
    stage.ingest.api.post(&format!("/v1/jobs/{job}/retry"), headers, "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_jobs_token_is_named_by_its_hop_however_often_it_is_asked_for() {
    let stage = Stage::new().await;
    let job = job_that(&stage, EventKind::JobParked, JobStatus::NeedsAttention).await;
    for _ in 0..2 {
        let answer = retry(&stage, &job, &[]).await;
        assert_eq!((answer.job(), answer.header("location")), (job.clone(), &*format!("{PREFIX}/v1/jobs/{job}")));
        assert_eq!((&answer.json["status"], answer.header("retry-after")), (&json!("needs_attention"), "1"));
    }
    let waits = stage.ground.outbox(&stage.ground.topics.waits());
    assert_eq!((waits.len(), stage.jobs_stored()), (2, 1));
    for record in &waits {
        assert_eq!(record.key.as_deref(), Some(job.as_bytes()));
        let wait = stage.ground.reader.read(record.value.as_deref(), decode_wait).await.unwrap();
        let Wait::Signal(signal) = wait else { panic!("{wait:?}") };
        let TokenId { job: named, branch, hop } = signal.as_resume().unwrap().unwrap().token;
        assert_eq!((named.to_string(), branch.as_str(), hop), (job.clone(), "", 4), "what rests is one move further");
    }
    assert_eq!(waits[0].header("meanwhile-message-id"), waits[1].header("meanwhile-message-id"));
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_jobs_token_is_named_too_forward_and_on_the_way_back() {
    let stage = Stage::new().await;
    for status in [JobStatus::Waiting, JobStatus::Compensating] {
        let job = job_that(&stage, EventKind::StepRetrying, status).await;
        let answer = retry(&stage, &job, &[]).await;
        assert_eq!((answer.status, &answer.json["status"]), (202, &json!(status.as_str())), "{}", answer.text);
        let waits = stage.ground.outbox(&stage.ground.topics.waits());
        let wait = stage.ground.reader.read(waits.last().unwrap().value.as_deref(), decode_wait).await.unwrap();
        let Wait::Signal(signal) = wait else { panic!("{wait:?}") };
        let token = signal.as_resume().unwrap().unwrap().token;
        assert_eq!((token.job.to_string(), token.hop), (job, 4));
    }
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_job_starts_anew_as_another_one_and_with_a_key_once() {
    let stage = Stage::new().await;
    for (kind, status) in [
        (EventKind::JobFailed, JobStatus::Failed),
        (EventKind::JobSucceeded, JobStatus::Succeeded),
        (EventKind::JobCancelled, JobStatus::Cancelled),
    ] {
        let first = job_that(&stage, kind, status).await;
        let answer = retry(&stage, &first, &[]).await;
        let anew = answer.job();
        assert_ne!(anew, first);
        assert_eq!(
            (answer.header("location"), &answer.json["retry_of"]),
            (&*format!("{PREFIX}/v1/jobs/{anew}"), &json!(first))
        );
        let status = stage.ingest.api.get(&format!("/v1/jobs/{anew}")).await.json;
        assert_eq!((&status["status"], &status["retry_of"]), (&json!("accepted"), &json!(first)));
        assert_eq!(status["correlation_id"], "order 17", "found by the first one's, unless told otherwise");
        assert_ne!(retry(&stage, &first, &[("x-correlation-id", "again")]).await.json["correlation_id"], "order 17");
        let records = stage.ground.outbox(&stage.ground.topics.steps("default"));
        let of_anew = records.iter().find(|record| record.header("meanwhile-job-id") == Some(anew.as_bytes()));
        let slip = stage.ground.reader.read(of_anew.unwrap().value.as_deref(), decode_slip).await.unwrap();
        assert_eq!((slip.key.as_str(), slip.hop, slip.step.as_str()), ("c-1", 1, "reserve"));
        assert_eq!(
            (slip.input.clone(), slip.retry_of.unwrap().to_string()),
            (json!({ "customer_id": "c-1", "qty": 2 }), first)
        );
    }
    let first = job_that(&stage, EventKind::JobFailed, JobStatus::Failed).await;
    let key = [("idempotency-key", "\"once\"")];
    let answers = [retry(&stage, &first, &key).await, retry(&stage, &first, &key).await];
    assert_eq!(answers[0].job(), answers[1].job());
    let replayed = answers.iter().map(|answer| answer.header("idempotent-replayed")).collect::<Vec<_>>();
    assert_eq!((replayed, &answers[1].json["retry_of"]), (vec!["", "true"], &json!(first)));
    let submitted = stage.ingest.api.order(&key, INPUT).await;
    assert_ne!(submitted.job(), answers[0].job(), "a key for starting anew is none for submitting");
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_under_way_one_that_nobody_knows_and_one_whose_input_is_gone_are_told_apart() {
    let stage = Stage::new().await;
    let accepted = stage.ingest.api.order(&[], INPUT).await.job();
    let running = job_that(&stage, EventKind::StepSucceeded, JobStatus::Running).await;
    let undone = job_that(&stage, EventKind::JobCompensating, JobStatus::Compensating).await;
    for (job, word) in [(accepted, "accepted"), (running, "running"), (undone, "compensating")] {
        let answer = retry(&stage, &job, &[]).await;
        assert_eq!((answer.status, answer.problem()), (409, "still-running"), "{}", answer.text);
        assert!(answer.json["detail"].as_str().unwrap().contains(word), "{}", answer.text);
        assert_eq!(answer.json["job"], job);
    }
    for unknown in ["0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d", "17"] {
        let answer = retry(&stage, unknown, &[]).await;
        assert_eq!((answer.status, answer.problem()), (404, "unknown-job"), "{}", answer.text);
    }
    let ended = job_that(&stage, EventKind::JobFailed, JobStatus::Failed).await;
    stage.ground.sql(&format!("delete from ingest.acceptances where job = '{ended}'"));
    let answer = retry(&stage, &ended, &[]).await;
    assert_eq!((answer.status, answer.problem()), (410, "gone"), "{}", answer.text);
    assert_eq!(stage.ground.outbox(&stage.ground.topics.waits()).len(), 0);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_says_how_a_step_of_unknown_outcome_has_ended() {
    let stage = Stage::new().await;
    let job = job_that(&stage, EventKind::JobParked, JobStatus::NeedsAttention).await;
    let done = r#"{"outcome":"succeeded","output":{"id":"C-1"}}"#;
    let early = rule(&stage, &job, done).await;
    assert_eq!((early.status, early.problem()), (503, "not-ready"), "its token is on its way: {}", early.text);
    rest(&stage, slip(&job, 4, true)).await;
    for (wrong, why) in [
        (r#"{"outcome":"done"}"#, "`outcome`"),
        (r#"{"output":1}"#, "`outcome` is missing"),
        (r#"{"outcome":"failed","output":1}"#, "has an `output`"),
        (r#"{"outcome":"failed","step":"charge"}"#, "`step`"),
        ("[]", "no object"),
    ] {
        let answer = rule(&stage, &job, wrong).await;
        assert_eq!((answer.status, answer.problem()), (400, "bad-request"), "{wrong}");
        assert!(answer.json["detail"].as_str().unwrap().contains(why), "{}", answer.text);
    }
    let large = format!(r#"{{"outcome":"succeeded","output":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(rule(&stage, &job, &large).await.problem(), "payload-too-large");
    assert_eq!(stage.ground.outbox(&stage.ground.topics.waits()).len(), 0);
    for body in [done, done, r#"{"outcome":"failed"}"#, r#"{"outcome":"succeeded"}"#] {
        let answer = rule(&stage, &job, body).await;
        assert_eq!((answer.job(), &answer.json["status"]), (job.clone(), &json!("needs_attention")), "{body}");
    }
    let mut said = vec![];
    for record in stage.ground.outbox(&stage.ground.topics.waits()) {
        let wait = stage.ground.reader.read(record.value.as_deref(), decode_wait).await.unwrap();
        let Wait::Signal(signal) = wait else { panic!("{wait:?}") };
        let resume = signal.as_resume().unwrap().unwrap();
        assert_eq!((resume.token.job.to_string(), resume.token.hop), (job.clone(), 4));
        let Verdict { said: word, by } = resume.verdict.unwrap();
        assert_eq!(by, "default");
        said.push(word);
    }
    let [first, last] = [json!({ "id": "C-1" }), json!(null)].map(Said::Succeeded);
    assert_eq!(said, [first.clone(), first, Said::Failed, last]);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_outcome_is_known_or_nothing_is_parked_a_callers_word_on_it_is_refused() {
    let stage = Stage::new().await;
    let known = job_that(&stage, EventKind::JobParked, JobStatus::NeedsAttention).await;
    rest(&stage, slip(&known, 4, false)).await;
    let waiting = job_that(&stage, EventKind::StepRetrying, JobStatus::Waiting).await;
    let ended = job_that(&stage, EventKind::JobFailed, JobStatus::Failed).await;
    for (job, why) in [(known, "it is known"), (waiting, "waiting"), (ended, "failed")] {
        let answer = rule(&stage, &job, r#"{"outcome":"failed"}"#).await;
        assert_eq!((answer.status, answer.problem()), (409, "outcome-known"), "{}", answer.text);
        assert!(answer.json["detail"].as_str().unwrap().contains(why), "{}", answer.text);
    }
    assert_eq!(stage.ground.outbox(&stage.ground.topics.waits()).len(), 0);
    assert_eq!(stage.jobs_stored(), 3, "nothing starts anew");
    stage.ingest.stop().await;
}
