use events::trace::TraceId;
use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use store::acceptances::accept_batch;
use store::history::Entry;
use store::jobs::{ObservedEvent, PastBounds, get, past, project};
use store::{Pool, Role};

use crate::database::{Database, acceptance, event, job};

fn seen(cursor: i64, job: JobId, kind: EventKind, status: JobStatus, hop: u32) -> ObservedEvent {
    ObservedEvent { partition: 1, cursor, trace_id: Some(TraceId::new(77)), event: event(job, kind, status, hop) }
}

async fn apply(pool: &Pool, events: &[ObservedEvent]) {
    let mut tx = pool.begin().await.unwrap();
    project(&mut tx, events).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_job_is_what_its_events_say() {
    let database = Database::fresh().await;
    let (orchestrator, ingest) = (database.pool(Role::Orchestrator), database.pool(Role::Ingest));
    let (one, other) = (job(), job());
    let events = [
        seen(3, one, EventKind::JobAccepted, JobStatus::Accepted, 0),
        seen(4, other, EventKind::JobAccepted, JobStatus::Accepted, 0),
        seen(7, one, EventKind::StepSucceeded, JobStatus::Running, 1),
        seen(9, one, EventKind::JobSucceeded, JobStatus::Succeeded, 3),
    ];
    apply(&orchestrator, &events[..3]).await;
    apply(&orchestrator, &events[3..]).await;
    apply(&orchestrator, &[]).await;
    assert_eq!(database.count("orchestrator.jobs").await, 2);

    let projection = get(&ingest, "acme", one).await.unwrap().unwrap().projection.unwrap();
    assert_eq!((projection.summary.status, projection.summary.cursor), (JobStatus::Succeeded, 9));
    assert_eq!(projection.summary.updated_at_ms, 1_700_000_000_003);
    assert_eq!(projection.summary.trace_id, Some(TraceId::new(77)));
    let expected: Vec<Entry> = [&events[0], &events[2], &events[3]]
        .map(|seen| Entry { cursor: seen.cursor, event: seen.event.clone() })
        .into();
    assert_eq!(projection.history, expected);
    assert_eq!(get(&ingest, "other", one).await.unwrap(), None);
}

#[tokio::test]
async fn a_job_never_goes_back() {
    let database = Database::fresh().await;
    let orchestrator = database.pool(Role::Orchestrator);
    let one = job();
    let events = [
        seen(3, one, EventKind::JobAccepted, JobStatus::Accepted, 0),
        seen(7, one, EventKind::StepSucceeded, JobStatus::Running, 1),
        seen(9, one, EventKind::JobSucceeded, JobStatus::Succeeded, 3),
    ];
    apply(&orchestrator, &events).await;
    let pool = database.pool(Role::Ingest);
    let before = get(&pool, "acme", one).await.unwrap();
    for late in [&events[..], &events[..1], &events[1..2]] {
        apply(&orchestrator, late).await;
        assert_eq!(get(&pool, "acme", one).await.unwrap(), before);
    }
    // An overlapping batch adds only new events.
    let more = seen(12, one, EventKind::JobSucceeded, JobStatus::Succeeded, 4);
    apply(&orchestrator, &[events[2].clone(), more.clone()]).await;
    let cursors = |stored: store::jobs::StoredJob| {
        stored.projection.unwrap().history.iter().map(|entry| entry.cursor).collect::<Vec<_>>()
    };
    assert_eq!(cursors(get(&pool, "acme", one).await.unwrap().unwrap()), [3, 7, 9, 12]);
}

#[tokio::test]
async fn a_final_status_is_the_last_one_whatever_comes_later() {
    let database = Database::fresh().await;
    let (orchestrator, ingest) = (database.pool(Role::Orchestrator), database.pool(Role::Ingest));
    let (one, other) = (job(), job());
    let end = |job| seen(7, job, EventKind::JobSucceeded, JobStatus::Succeeded, 1);
    let late = |job| seen(9, job, EventKind::StepRetrying, JobStatus::Waiting, 1);
    apply(&orchestrator, &[end(one)]).await;
    apply(&orchestrator, &[late(one)]).await;
    apply(&orchestrator, &[end(other), late(other)]).await;
    for job in [one, other] {
        let projection = get(&ingest, "acme", job).await.unwrap().unwrap().projection.unwrap();
        assert_eq!((projection.summary.status, projection.summary.cursor), (JobStatus::Succeeded, 9));
        assert_eq!(projection.history.len(), 2);
    }
}

#[tokio::test]
async fn a_row_takes_only_so_much_history_and_the_rest_lies_beside_it() {
    let database = Database::fresh().await;
    let (orchestrator, ingest) = (database.pool(Role::Orchestrator), database.pool(Role::Ingest));
    let one = job();
    let events: Vec<_> =
        (0..300).map(|number| seen(number, one, EventKind::StepRetrying, JobStatus::Waiting, 1)).collect();
    for batch in events.chunks(2) {
        apply(&orchestrator, batch).await;
    }
    // Again, and with something new: a batch may overlap.
    let more = seen(300, one, EventKind::JobSucceeded, JobStatus::Succeeded, 2);
    apply(&orchestrator, &events[290..]).await;
    apply(&orchestrator, &[&events[280..], std::slice::from_ref(&more)].concat()).await;
    let in_the_row = database.count("orchestrator.jobs where octet_length(history) < 5000").await;
    assert_eq!(in_the_row, 1);
    assert!(database.count("orchestrator.job_events").await > 100);
    let projection = get(&ingest, "acme", one).await.unwrap().unwrap().projection.unwrap();
    let expected: Vec<Entry> =
        events.iter().chain([&more]).map(|seen| Entry { cursor: seen.cursor, event: seen.event.clone() }).collect();
    assert_eq!(projection.history, expected);
}

/// The cursors of one page of a job's past, and whether it is the last one.
async fn page(pool: &Pool, job: JobId, after: i64, events: usize, bytes: usize) -> (Vec<i64>, bool) {
    let past = past(pool, "acme", job, after, PastBounds { events, bytes }).await.unwrap().unwrap();
    (past.events.iter().map(|entry| entry.cursor).collect(), past.is_last)
}

#[tokio::test]
async fn a_long_past_is_read_by_pages_bounded_in_events_and_in_bytes_and_nothing_else_of_it_is_read() {
    let database = Database::fresh().await;
    let (orchestrator, ingest) = (database.pool(Role::Orchestrator), database.pool(Role::Ingest));
    let one = job();
    let events: Vec<_> =
        (0..300).map(|number| seen(number, one, EventKind::StepRetrying, JobStatus::Waiting, 1)).collect();
    for batch in events.chunks(2) {
        apply(&orchestrator, batch).await;
    }
    assert!(database.count("orchestrator.job_events").await > 100);
    for (count, bytes) in [(7, usize::MAX), (1_000, 2_000), (1, 1), (1_000, usize::MAX)] {
        let (mut after, mut seen, mut pages) = (-1, Vec::new(), 0);
        loop {
            let (cursors, is_last) = page(&ingest, one, after, count, bytes).await;
            assert!(!cursors.is_empty() && cursors.len() <= count.max(1), "{cursors:?}");
            after = *cursors.last().unwrap();
            seen.extend(cursors);
            pages += 1;
            if is_last {
                break;
            }
        }
        assert_eq!(seen, (0..300).collect::<Vec<_>>(), "{count} {bytes}");
        assert_eq!(pages == 1, count == 1_000 && bytes == usize::MAX, "{pages} pages");
    }
    assert_eq!(page(&ingest, one, 299, 10, 1_000).await, (Vec::new(), true));
    let first = page(&ingest, one, 200, 1_000, 2_000).await.0;
    assert!(first.len() < 30 && first.first() == Some(&201), "no more bytes than that: {first:?}");

    // Neither what lies before a page is read, nor what lies behind it.
    database.run("update orchestrator.jobs set history = 'unreadable'").await;
    database.run("update orchestrator.job_events set lines = 'unreadable' where cursor < 200 or cursor > 250").await;
    assert_eq!(page(&ingest, one, 200, 10, usize::MAX).await, ((201..211).collect(), false));
    assert!(past(&ingest, "acme", one, 245, PastBounds { events: 10, bytes: 1 << 20 }).await.is_err());
    assert_eq!(past(&ingest, "other", one, 200, PastBounds { events: 10, bytes: 1 << 20 }).await.unwrap(), None);
}

#[tokio::test]
async fn a_row_of_before_is_read_and_goes_on() {
    let database = Database::fresh().await;
    let (orchestrator, ingest) = (database.pool(Role::Orchestrator), database.pool(Role::Ingest));
    let one = job();
    let events: Vec<_> =
        (0..60).map(|number| seen(number, one, EventKind::StepRetrying, JobStatus::Waiting, 1)).collect();
    apply(&orchestrator, &events[..50]).await;
    database.run("update orchestrator.jobs set history_cursor = null").await;
    let cursors = async || {
        let stored = get(&ingest, "acme", one).await.unwrap().unwrap().projection.unwrap();
        stored.history.iter().map(|entry| entry.cursor).collect::<Vec<_>>()
    };
    assert_eq!(cursors().await, (0..50).collect::<Vec<_>>());
    assert_eq!(page(&ingest, one, 47, 100, 1 << 20).await, (vec![48, 49], true));
    apply(&orchestrator, &events[50..]).await;
    assert_eq!(cursors().await, (0..60).collect::<Vec<_>>());
    assert_eq!(page(&ingest, one, 47, 100, 1 << 20).await, ((48..60).collect(), true));
}

#[tokio::test]
async fn acceptance_and_projection_come_in_one_answer() {
    let database = Database::fresh().await;
    let (orchestrator, ingest) = (database.pool(Role::Orchestrator), database.pool(Role::Ingest));
    let request = acceptance("a");
    accept_batch(&ingest, std::slice::from_ref(&request)).await.unwrap();
    let id = request.acceptance.job;
    apply(&orchestrator, &[seen(3, id, EventKind::JobAccepted, JobStatus::Accepted, 0)]).await;
    let stored = get(&ingest, "acme", id).await.unwrap().unwrap();
    assert_eq!(stored.acceptance, Some(request.acceptance));
    assert_eq!(stored.projection.unwrap().summary.job, id);
    assert_eq!(get(&ingest, "acme", job()).await.unwrap(), None);
}

/// The word that the job stands still at this cursor.
fn stuck(cursor: i64, job: JobId, at: i64) -> ObservedEvent {
    let last = event(job, EventKind::StepSucceeded, JobStatus::Running, 5);
    ObservedEvent {
        event: last.stuck(JobStatus::Running, at, 1_700_000_009_000),
        ..seen(cursor, job, EventKind::JobStuck, JobStatus::Running, 5)
    }
}

#[tokio::test]
async fn a_job_is_stuck_from_the_word_that_says_so_to_its_next_event_and_never_if_it_has_gone_on() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let row = async |job: JobId| {
        let sql = format!(
            "select concat_ws(' ', status, cursor, extract(epoch from updated_at) * 1000 - 1700000000000,
                stuck_since is not null)
             from orchestrator.jobs where job = '{}'",
            job.uuid()
        );
        let row: String =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut database.superuser().await).await.unwrap();
        row.replace(".000000", "")
    };
    let (one, other, ended) = (job(), job(), job());
    for job in [one, other, ended] {
        apply(&pool, &[seen(3, job, EventKind::StepRetrying, JobStatus::Waiting, 1)]).await;
    }
    apply(&pool, &[stuck(5, one, 3)]).await;
    assert_eq!(row(one).await, "waiting 5 1 t", "the word changes nothing else");
    assert_eq!(store::watched::count_stuck(&pool).await.unwrap(), 1);
    apply(&pool, &[seen(7, one, EventKind::StepSucceeded, JobStatus::Running, 2)]).await;
    assert_eq!(row(one).await, "running 7 2 f");
    apply(&pool, &[stuck(8, one, 3)]).await;
    assert_eq!(row(one).await, "running 8 2 f", "it has gone on since then");

    let on = seen(4, other, EventKind::StepSucceeded, JobStatus::Running, 2);
    apply(&pool, &[on.clone(), stuck(5, other, 3)]).await;
    assert_eq!(row(other).await, "running 5 2 f", "it has gone on in the same batch");
    apply(&pool, &[stuck(6, other, 5), ObservedEvent { cursor: 7, ..on }]).await;
    assert_eq!(row(other).await, "running 7 2 f");

    apply(&pool, &[seen(4, ended, EventKind::JobFailed, JobStatus::Failed, 2)]).await;
    apply(&pool, &[stuck(5, ended, 4)]).await;
    assert_eq!(row(ended).await, "failed 5 2 f");
}
