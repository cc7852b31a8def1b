//! Jobs that stand still: announced once, and only while nothing is late by itself.

use bus::admin::Admin;
use events::wait::Wait;
use events::{decode_event, slip_record, wait_record};
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::JobId;
use flow::slip::{Hold, HoldReason};
use test_kit::{Ground, TEST_TRACE, eventually, sample_event, sample_job, sample_slip};

use crate::stage::{PATIENCE, Running, start_with, stored, until, until_taken_in};

const ECHOES: &str = "select count(*) from outbox.messages where topic like '%.cancels'";
const STUCK: &str =
    "select coalesce(string_agg(job::text, ','), '') from orchestrator.jobs where stuck_since is not null";

fn start(ground: &Ground) -> Running {
    start_with(ground, |config| config.stuck_after_ms = 1_000)
}

/// Does the relay's part for one topic, from the record with this number on. Returns how many there are.
async fn relay(ground: &Ground, topic: &str, from: usize) -> usize {
    let records = ground.outbox(topic);
    for record in &records[from..] {
        ground.send(record).await;
    }
    records.len()
}

/// Relays echoes until this many more were sent, and heard: so many looks were taken.
async fn looks(ground: &Ground, relayed: &mut usize, more: usize) {
    let enough = *relayed + more;
    eventually(PATIENCE, "echoes are sent and heard", async || {
        *relayed = relay(ground, &ground.topics.cancels(), *relayed).await;
        (*relayed >= enough).then_some(())
    })
    .await;
    until(ground, "select echo_heard_at is not null from orchestrator.watch", "t").await;
}

/// Waits until there are so many announcements, and does the relay's part. Returns the last one.
async fn announced(ground: &Ground, relayed: &mut usize, count: usize) -> JobEvent {
    let topic = ground.topics.events();
    eventually(PATIENCE, "a job is announced", async || {
        *relayed = relay(ground, &ground.topics.cancels(), *relayed).await;
        (ground.outbox(&topic).len() >= count).then_some(())
    })
    .await;
    let records = ground.outbox(&topic);
    assert_eq!(records.len(), count, "announced once");
    ground.send(&records[count - 1]).await;
    ground.reader.read(records[count - 1].value.as_deref(), decode_event).await.unwrap()
}

async fn tell(ground: &Ground, job: JobId, kind: EventKind, status: JobStatus, hop: u32) {
    ground.tell(&sample_event(job, kind, status, hop)).await;
}

async fn under_way(ground: &Ground) -> JobId {
    let job = sample_job();
    tell(ground, job, EventKind::JobAccepted, JobStatus::Accepted, 0).await;
    tell(ground, job, EventKind::StepSucceeded, JobStatus::Running, 1).await;
    job
}

async fn rest(ground: &Ground, job: JobId, reason: HoldReason) {
    let slip = sample_slip(job, 2);
    let hold = Hold { slip, queue: "default".to_owned(), reason, release_after_ms: None, signal: None, limit: None };
    let record = wait_record(&ground.topics, &ground.writers, &Wait::Hold(hold), &TEST_TRACE).unwrap();
    ground.send(&record).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_token_is_nowhere_is_announced_once_and_its_next_event_takes_that_back() {
    let ground = Ground::new().await;
    let all = [start(&ground), start(&ground)];
    let (lost, parked, done) = (under_way(&ground).await, under_way(&ground).await, under_way(&ground).await);
    rest(&ground, parked, HoldReason::Attention).await;
    tell(&ground, done, EventKind::JobSucceeded, JobStatus::Succeeded, 2).await;
    // Nobody relays: its slip may be in the outbox.
    eventually(PATIENCE, "an echo is sent anew", async || {
        (ground.sql(ECHOES).parse::<usize>().unwrap() >= 3).then_some(())
    })
    .await;
    assert_eq!(ground.outbox(&ground.topics.events()), []);

    let (_, cursor, _) = stored(&ground, lost).await;
    let mut relayed = 0;
    let event = announced(&ground, &mut relayed, 1).await;
    assert_eq!((event.job, event.kind, event.status), (lost, EventKind::JobStuck, JobStatus::Running));
    assert_eq!((event.stuck_at(), event.hop), (Some(cursor), 1), "of its last event");
    until(&ground, STUCK, &lost.to_string()).await;
    let (status, _, kinds) = stored(&ground, lost).await;
    assert_eq!((status.as_str(), kinds.last().map(String::as_str)), ("running", Some("job.stuck")));

    tell(&ground, lost, EventKind::StepSucceeded, JobStatus::Running, 2).await;
    until(&ground, STUCK, "").await;
    assert_eq!(announced(&ground, &mut relayed, 2).await.hop, 2, "it stands still once more");
    until(&ground, STUCK, &lost.to_string()).await;
    tell(&ground, lost, EventKind::JobFailed, JobStatus::Failed, 3).await;
    until(&ground, STUCK, "").await;
    until(&ground, "select string_agg(job::text, ',') from orchestrator.watched", &parked.to_string()).await;
    for running in all {
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_slip_of_that_time_waits_in_a_queue_no_job_is_stuck() {
    let ground = Ground::new().await;
    let waiting = sample_job();
    let slip = sample_slip(waiting, 1);
    let slip = slip_record(&ground.topics, &ground.writers, "default", &slip, &TEST_TRACE).unwrap();
    let (partition, offset) = ground.send(&slip).await;
    tell(&ground, waiting, EventKind::JobAccepted, JobStatus::Accepted, 0).await;
    let running = start(&ground);
    let mut relayed = 0;
    looks(&ground, &mut relayed, 6).await;
    assert_eq!(ground.outbox(&ground.topics.events()), [], "its turn has not come");
    // A worker takes it, and it goes nowhere.
    let place = bus::TopicPartition::new(ground.topics.steps("default"), partition);
    Admin::new(&ground.bus).unwrap().delete_records(&[(place, offset + 1)]).await.unwrap();
    assert_eq!(announced(&ground, &mut relayed, 1).await.job, waiting);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_acceptance_comes_late_is_found_and_one_that_comes_to_rest_meanwhile_is_not_announced() {
    let ground = Ground::new().await;
    let running = start(&ground);
    let other = under_way(&ground).await;
    until(&ground, "select string_agg(job::text, ',') from orchestrator.watched", &other.to_string()).await;
    tell(&ground, other, EventKind::JobFailed, JobStatus::Failed, 2).await;
    // Its id is older than what was walked over.
    let late: JobId = format!("018f0000{}", &other.to_string()[8..]).parse().unwrap();
    tell(&ground, late, EventKind::JobAccepted, JobStatus::Accepted, 0).await;
    let mut relayed = 0;
    until(&ground, "select job from orchestrator.watched where since is not null", &late.to_string()).await;
    rest(&ground, late, HoldReason::Attention).await;
    until_taken_in(&ground, &ground.topics.waits(), 1).await;
    until(&ground, "select job from orchestrator.watched where since is null", &late.to_string()).await;
    ground.sql(&format!("delete from orchestrator.holds where job = '{late}'"));
    assert_eq!(announced(&ground, &mut relayed, 1).await.job, late);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_comes_to_rest_and_goes_on_has_moved_though_no_event_tells_so() {
    let ground = Ground::new().await;
    // Long enough for nothing to be announced.
    let running = start_with(&ground, |config| config.stuck_after_ms = 60_000);
    let job = under_way(&ground).await;
    until(&ground, "select status from orchestrator.jobs", "running").await;
    let stood = "insert into orchestrator.watched (job, due_at, cursor, since) \
                 select job, now() + interval '1 hour', cursor, now() - interval '30 seconds' from orchestrator.jobs";
    ground.sql(stood);
    let slip = sample_slip(job, 2);
    let (queue, reason) = ("default".to_owned(), HoldReason::Backoff);
    let hold = Hold { slip, queue, reason, release_after_ms: Some(0), signal: None, limit: None };
    let record = wait_record(&ground.topics, &ground.writers, &Wait::Hold(hold), &TEST_TRACE).unwrap();
    ground.send(&record).await;
    until_taken_in(&ground, &ground.topics.waits(), 1).await;
    until(&ground, "select count(*) from orchestrator.holds", "0").await;
    assert_eq!(ground.outbox(&ground.topics.steps("default")).len(), 1, "it is on its way again");
    assert_eq!(ground.sql("select since is null from orchestrator.watched"), "t");
    running.stop().await;
}
