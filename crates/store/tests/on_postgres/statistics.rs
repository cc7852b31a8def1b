//! How long jobs take and how they end is counted with the projection, each event once.

use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::JobId;
use flow::slip::HoldReason;
use store::jobs::{ObservedEvent, project};
use store::statistics::{BySteps, forget, latest, since};
use store::{Pool, Role};

use crate::database::{Database, event, job};

/// Of Postgres' clock, as the events of a running system are.
async fn now_ms(pool: &Pool) -> i64 {
    store::watched::now_ms(pool).await.unwrap()
}

struct Told {
    pool: Pool,
    cursor: i64,
    began_ms: i64,
}

impl Told {
    fn of(&mut self, job: JobId, kind: EventKind, step: Option<&str>, at_ms: i64) -> ObservedEvent {
        self.cursor += 1;
        let status = match kind {
            EventKind::JobSucceeded => JobStatus::Succeeded,
            EventKind::JobFailed => JobStatus::Failed,
            _ => JobStatus::Running,
        };
        let mut event = JobEvent {
            step: step.map(str::to_owned),
            at_ms: self.began_ms + at_ms,
            ..event(job, kind, status, u32::from(kind != EventKind::JobAccepted))
        };
        event.facts.accepted_at_ms = self.began_ms;
        ObservedEvent { partition: 3, cursor: self.cursor, trace_id: None, event }
    }

    async fn apply(&self, events: &[ObservedEvent]) {
        let mut tx = self.pool.begin().await.unwrap();
        project(&mut tx, events).await.unwrap();
        tx.commit().await.unwrap();
    }
}

async fn told(database: &Database) -> Told {
    let pool = database.pool(Role::Orchestrator);
    let now_ms = now_ms(&pool).await;
    // At the begin of a minute, so that what takes seconds is within it.
    let began_ms = now_ms - now_ms.rem_euclid(60_000) - 10 * 60_000;
    Told { pool, cursor: 0, began_ms }
}

async fn read(database: &Database) -> BySteps {
    since(&database.pool(Role::Ingest), "acme", "order", 0).await.unwrap()
}

/// As exact as the bins.
#[track_caller]
fn is_about(found: Option<f64>, wanted: f64) {
    let found = found.expect("a duration is known");
    assert!((found - wanted).abs() <= wanted / 8.0, "{found}, not {wanted}");
}

#[tokio::test]
async fn a_step_takes_the_time_from_the_end_of_the_one_before_however_its_events_are_batched() {
    let database = Database::fresh().await;
    let mut told = told(&database).await;
    let (one, other) = (job(), job());
    let story = |told: &mut Told, job| {
        [
            told.of(job, EventKind::JobAccepted, None, 0),
            told.of(job, EventKind::StepSucceeded, Some("reserve"), 1_000),
            told.of(job, EventKind::StepRetrying, Some("charge"), 2_000),
            told.of(job, EventKind::StepSucceeded, Some("charge"), 5_000),
            told.of(job, EventKind::StepSkipped, Some("pack"), 5_000),
            told.of(job, EventKind::JobSucceeded, None, 5_000),
        ]
    };
    let whole = story(&mut told, one);
    told.apply(&whole).await;
    for event in story(&mut told, other) {
        told.apply(&[event]).await;
    }
    // Read again, as after a reset of the offsets: nothing counts twice.
    told.apply(&whole).await;

    let steps = read(&database).await;
    let (jobs, reserve, charge, pack) = (&steps[""], &steps["reserve"], &steps["charge"], &steps["pack"]);
    assert_eq!((jobs.accepted, jobs.succeeded, jobs.failed, jobs.durations.count()), (2, 2, 0, 2));
    is_about(jobs.durations.mean_ms(), 5_000.0);
    is_about(reserve.durations.quantile_ms(0.99), 1_000.0);
    is_about(charge.durations.quantile_ms(0.01), 4_000.0);
    assert_eq!((charge.succeeded, charge.durations.count()), (2, 2));
    assert_eq!((pack.succeeded, pack.skipped, pack.durations.count()), (0, 2, 0));
    // Two rows a step would be two minutes, or two shards.
    assert_eq!(database.count("orchestrator.statistics").await, 4);
}

#[tokio::test]
async fn a_late_start_and_a_time_in_which_a_job_was_parked_are_nobodys_duration() {
    let database = Database::fresh().await;
    let mut told = told(&database).await;
    let one = job();
    let accepted = told.of(one, EventKind::JobAccepted, None, 0);
    let mut rests = told.of(one, EventKind::StepWaiting, Some("reserve"), 0);
    (rests.event.hop, rests.event.reason) = (0, Some(HoldReason::Timer));
    rests.event.next_attempt_after_ms = Some(100_000);
    told.apply(&[accepted, rests]).await;
    for event in [
        told.of(one, EventKind::StepSucceeded, Some("reserve"), 102_000),
        told.of(one, EventKind::JobParked, Some("charge"), 103_000),
        told.of(one, EventKind::JobResumed, None, 203_000),
        told.of(one, EventKind::StepSucceeded, Some("charge"), 204_000),
        told.of(one, EventKind::JobSucceeded, None, 204_000),
    ] {
        told.apply(&[event]).await;
    }
    let steps = read(&database).await;
    is_about(steps["reserve"].durations.mean_ms(), 2_000.0);
    is_about(steps["charge"].durations.mean_ms(), 1_000.0);
    is_about(steps[""].durations.mean_ms(), 104_000.0);
}

#[tokio::test]
async fn the_latest_are_of_as_few_minutes_as_say_enough_and_what_is_old_goes() {
    let database = Database::fresh().await;
    let mut told = told(&database).await;
    // One a minute: the durations of the earlier ones differ.
    for minute in 0..8_i64 {
        let (job, at_ms) = (job(), minute * 60_000);
        let mut accepted = told.of(job, EventKind::JobAccepted, None, at_ms);
        let length_ms = if minute < 4 { 30_000 } else { 100 };
        let mut end = told.of(job, EventKind::JobSucceeded, None, at_ms + length_ms);
        for event in [&mut accepted, &mut end] {
            event.event.facts.accepted_at_ms = told.began_ms + at_ms;
        }
        told.apply(&[accepted, end]).await;
    }
    let ingest = database.pool(Role::Ingest);
    let few = latest(&ingest, ("acme", "order"), &[String::new()], (60, 3)).await.unwrap();
    assert_eq!(few[""].durations.count(), 3);
    is_about(few[""].durations.quantile_ms(0.99), 100.0);
    let bounded = latest(&ingest, ("acme", "order"), &[String::new()], (5, 1_000)).await.unwrap();
    assert!(bounded[""].durations.count() <= 5, "{bounded:?}");
    assert!(latest(&ingest, ("acme", "order"), &["none".to_owned()], (60, 3)).await.unwrap().is_empty());
    assert!(latest(&ingest, ("other", "order"), &[String::new()], (60, 3)).await.unwrap().is_empty());

    // An event that comes when its time is over is not counted at all.
    let day_ms = 24 * 3_600_000;
    let before = database.count("orchestrator.statistics").await;
    let late = told.of(job(), EventKind::JobFailed, None, -day_ms);
    told.apply(&[late]).await;
    assert_eq!(database.count("orchestrator.statistics").await, before);
    database
        .run("update orchestrator.statistics set minute = minute - interval '24 hours' where durations[80] is null")
        .await;
    forget(&told.pool).await.unwrap();
    let kept = read(&database).await;
    assert!(kept[""].succeeded < 8 && kept[""].succeeded > 0, "{kept:?}");
}
