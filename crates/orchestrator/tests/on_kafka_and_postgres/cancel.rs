//! A job that somebody wants cancelled: what rests on its way forward is sent on, whichever comes first, and the cancel
//! is taken back once the job has ended.

use events::cancel::Cancel;
use events::wait::{RunningCall, Wait};
use events::{header, wait_record};
use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use flow::slip::{Hold, HoldReason, Phase, Slip};
use test_kit::{Ground, TEST_TRACE, sample_event, sample_job, sample_slip};

use crate::stage::{start, until, until_taken_in};

async fn send(ground: &Ground, wait: Wait) {
    let record = wait_record(&ground.topics, &ground.writers, &wait, &TEST_TRACE).unwrap();
    ground.send(&record).await;
}

fn at_rest(job: JobId, reason: HoldReason, phase: Phase) -> Hold {
    let slip = Slip { phase, ..sample_slip(job, 4) };
    let release_after_ms = (reason != HoldReason::Attention).then_some(3_600_000);
    let signal = (reason == HoldReason::Signal).then(|| "approval".to_owned());
    Hold { slip, queue: "default".to_owned(), reason, release_after_ms, signal, limit: None }
}

async fn rest(ground: &Ground, job: JobId, reason: HoldReason, phase: Phase) {
    send(ground, Wait::Hold(at_rest(job, reason, phase))).await;
}

async fn cancel(ground: &Ground, job: JobId) {
    let (tenant, requested_by, id) = ("default".to_owned(), "ann".to_owned(), "1".to_owned());
    let reason = Some("changed my mind".to_owned());
    let cancel = Cancel { job, tenant, requested_by, reason, at_ms: 1_000, id, requires: Vec::new() };
    send(ground, Wait::Signal((&cancel).into())).await;
}

async fn tell(ground: &Ground, job: JobId, kind: EventKind, status: JobStatus, hop: u32) {
    ground.tell(&sample_event(job, kind, status, hop)).await;
}

/// The jobs whose slips are in the outbox. Each says that a cancel has sent it on.
fn sent_on(ground: &Ground) -> Vec<String> {
    let records = ground.outbox(&ground.topics.steps("default"));
    assert!(records.iter().all(|record| record.header(header::RELEASED_BY) == Some(b"cancel")), "{records:?}");
    let job = |record: &events::Record| String::from_utf8(record.header(header::JOB_ID).unwrap().to_vec()).unwrap();
    let mut jobs: Vec<String> = records.iter().map(job).collect();
    jobs.sort();
    jobs
}

fn named(jobs: &[JobId]) -> Vec<String> {
    let mut names: Vec<String> = jobs.iter().map(ToString::to_string).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rests_on_its_way_forward_is_sent_on_once_whichever_comes_first() {
    const ENDED: [HoldReason; 5] =
        [HoldReason::Backoff, HoldReason::Attention, HoldReason::MissingStep, HoldReason::Timer, HoldReason::Signal];
    let ground = Ground::new().await;
    let jobs: Vec<JobId> = std::iter::repeat_with(sample_job).take(2 * ENDED.len()).collect();
    let (before, after) = jobs.split_at(ENDED.len());
    let other = sample_job();
    for (job, reason) in before.iter().zip(ENDED) {
        rest(&ground, *job, reason, Phase::Forward).await;
    }
    rest(&ground, other, HoldReason::Attention, Phase::Forward).await;
    for job in jobs.iter().chain(before) {
        cancel(&ground, *job).await;
    }
    let running = start(&ground);
    until(&ground, "select count(*) from orchestrator.cancels where ended_at is null", "10").await;
    until(&ground, "select count(*) from orchestrator.holds", "1").await;
    assert_eq!(sent_on(&ground), named(before));
    for (job, reason) in after.iter().zip(ENDED) {
        rest(&ground, *job, reason, Phase::Forward).await;
    }
    until_taken_in(&ground, &ground.topics.waits(), 26).await;
    assert_eq!(sent_on(&ground), named(&jobs));
    assert_eq!(ground.sql("select job from orchestrator.holds"), other.to_string(), "nobody has cancelled it");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_on_its_way_back_and_a_call_under_way_are_left_as_they_are() {
    let ground = Ground::new().await;
    let [waits, parked, calls] = [sample_job(), sample_job(), sample_job()];
    rest(&ground, waits, HoldReason::Backoff, Phase::Undo).await;
    rest(&ground, parked, HoldReason::Attention, Phase::Undo).await;
    let hold = at_rest(calls, HoldReason::Running, Phase::Forward);
    let call = RunningCall { hold, worker: "w/1".to_owned(), attempt: 1, lease_ms: 3_600_000 };
    send(&ground, Wait::Running(call)).await;
    for job in [waits, parked, calls] {
        cancel(&ground, job).await;
    }
    let running = start(&ground);
    until_taken_in(&ground, &ground.topics.waits(), 6).await;
    assert_eq!(ground.sql("select count(*) from orchestrator.holds"), "3");
    assert_eq!(ground.sql("select count(*) from outbox.messages"), "0");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_missed_the_end_of_its_job_is_taken_back_soon() {
    let ground = Ground::new().await;
    let (ended, other) = (sample_job(), sample_job());
    let running = start(&ground);
    tell(&ground, ended, EventKind::JobAccepted, JobStatus::Accepted, 0).await;
    tell(&ground, ended, EventKind::JobSucceeded, JobStatus::Succeeded, 1).await;
    until_taken_in(&ground, &ground.topics.events(), 2).await;
    // As two transactions leave it that did not see each other.
    ground.sql(&format!(
        "insert into orchestrator.cancels (job, tenant, requested_by, requested_at)
         values ('{ended}', 'default', 'ann', now())"
    ));
    cancel(&ground, other).await;
    until(&ground, "select job from orchestrator.cancels where ended_at is null", &other.to_string()).await;
    assert_eq!(ground.outbox(&ground.topics.cancels()).len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_is_taken_back_once_its_job_has_ended_and_stays_for_the_status() {
    let ground = Ground::new().await;
    let [ends_later, ended_before, goes_on] = [sample_job(), sample_job(), sample_job()];
    let running = start(&ground);
    tell(&ground, ended_before, EventKind::JobAccepted, JobStatus::Accepted, 0).await;
    tell(&ground, ended_before, EventKind::JobSucceeded, JobStatus::Succeeded, 1).await;
    tell(&ground, goes_on, EventKind::JobAccepted, JobStatus::Accepted, 0).await;
    until_taken_in(&ground, &ground.topics.events(), 3).await;
    for job in [ends_later, ended_before, goes_on] {
        cancel(&ground, job).await;
    }
    until(&ground, "select count(*) from orchestrator.cancels", "3").await;
    tell(&ground, ends_later, EventKind::JobCancelled, JobStatus::Cancelled, 0).await;
    until(&ground, "select count(*) from orchestrator.cancels where ended_at is null", "1").await;
    let taken_back = ground.outbox(&ground.topics.cancels());
    let key = |record: &events::Record| String::from_utf8(record.key.clone().unwrap()).unwrap();
    let mut keys: Vec<String> = taken_back.iter().map(key).collect();
    keys.sort();
    assert_eq!(keys, named(&[ends_later, ended_before]));
    assert!(taken_back.iter().all(|record| record.value.is_none()));
    // A repetition that comes late is taken back at once.
    cancel(&ground, ends_later).await;
    until_taken_in(&ground, &ground.topics.waits(), 4).await;
    assert_eq!(ground.sql("select count(*) from orchestrator.cancels where ended_at is null"), "1");
    let pool = ground.pool(store::Role::Ingest);
    let stored = store::jobs::get(&pool, "default", ends_later).await.unwrap().unwrap();
    pool.close().await;
    let shown = stored.cancel.unwrap();
    assert_eq!(
        (shown.requested_by.as_str(), shown.reason.as_deref(), shown.at_ms),
        ("ann", Some("changed my mind"), 1_000)
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_whose_job_has_ended_unnoticed_is_taken_back_at_the_next_start() {
    let ground = Ground::new().await;
    let job = sample_job();
    let running = start(&ground);
    tell(&ground, job, EventKind::JobFailed, JobStatus::Failed, 0).await;
    until(&ground, "select status from orchestrator.jobs", "failed").await;
    running.stop().await;
    // As two processes leave it that did not see each other's transaction.
    let row = format!("('{job}', 'default', 'ann', now())");
    ground.sql(&format!("insert into orchestrator.cancels (job, tenant, requested_by, requested_at) values {row}"));
    let running = start(&ground);
    until(&ground, "select count(*) from orchestrator.cancels where ended_at is not null", "1").await;
    assert_eq!(ground.outbox(&ground.topics.cancels()).len(), 1);
    running.stop().await;
}
