use super::*;
use events::headers::Headers;

fn event(job: u128, offset: i64, kind: EventKind) -> Inbound {
    let headers = Headers::from([(header::CE_TYPE, Some(kind.as_str()))]);
    let key = Some(id(job).to_string().into_bytes());
    Inbound { offset, key, value: Some(vec![1, 2]), headers, ..Inbound::default() }
}

fn id(job: u128) -> JobId {
    JobId::new(uuid::Uuid::from_u128(job))
}

fn cursors(recent: &RecentJobs, job: u128) -> Option<Vec<i64>> {
    Some(recent.look(id(job)).job?.events.iter().map(|(cursor, _)| *cursor).collect())
}

fn forgotten(recent: &RecentJobs, job: u128) -> Option<i64> {
    recent.look(id(job)).forgotten
}

#[test]
fn repeated_events_are_kept_once_and_a_job_is_complete_from_its_acceptance_on() {
    let recent = RecentJobs::new(2, BYTES_MAX);
    for (offset, kind) in [(3, EventKind::JobAccepted), (5, EventKind::StepSucceeded), (3, EventKind::JobAccepted)] {
        recent.saw(event(1, offset, kind));
    }
    assert_eq!(cursors(&recent, 1), Some(vec![3, 5]));
    assert!(recent.look(id(1)).job.unwrap().complete);
    recent.saw(event(2, 9, EventKind::StepSucceeded));
    assert!(!recent.look(id(2)).job.unwrap().complete);
    recent.saw(Inbound { key: Some(b"noise".to_vec()), ..event(2, 10, EventKind::StepSucceeded) });
    assert_eq!(cursors(&recent, 2), Some(vec![9]));
}

#[test]
fn of_the_oldest_job_the_cursor_remains() {
    let recent = RecentJobs::new(1, BYTES_MAX);
    recent.saw(event(1, 3, EventKind::JobAccepted));
    recent.saw(event(1, 4, EventKind::StepSucceeded));
    recent.saw(event(2, 5, EventKind::JobAccepted));
    assert_eq!((forgotten(&recent, 1), forgotten(&recent, 2)), (Some(4), None));
    assert_eq!((cursors(&recent, 1), cursors(&recent, 2)), (None, Some(vec![5])));
}

#[test]
fn of_a_job_with_very_many_events_the_latest_are_kept() {
    let recent = RecentJobs::new(1, BYTES_MAX);
    for offset in 0..=EVENTS_MAX as i64 {
        let kind = if offset == 0 { EventKind::JobAccepted } else { EventKind::StepRetrying };
        recent.saw(event(1, offset, kind));
    }
    let known = recent.look(id(1)).job.unwrap();
    assert!(!known.complete && known.events.len() == EVENTS_MAX / 2 + 1);
    assert_eq!(known.events.last().unwrap().0, EVENTS_MAX as i64);
    assert_eq!(forgotten(&recent, 1), Some(known.events[0].0 - 1), "an answer must have the others from elsewhere");
}

#[test]
fn events_below_the_begin_and_those_of_jobs_that_are_not_even_remembered_are_not_known() {
    let recent = RecentJobs::new(1, BYTES_MAX);
    recent.begun_at(HashMap::from([(0, 7), (1, 3)]));
    for number in 0..=FORGOTTEN_FACTOR as u128 + 1 {
        recent.saw(event(number, 10 + number as i64, EventKind::JobAccepted));
    }
    // One job is there, a few are remembered by their cursors, the first one is not.
    assert_eq!((forgotten(&recent, 0), forgotten(&recent, 1)), (None, Some(11)));
    assert_eq!(*recent.look(id(0)).floors, HashMap::from([(0, 11), (1, 3)]));
    recent.begun_at(HashMap::from([(0, 8), (2, 5)]));
    assert_eq!(*recent.look(id(0)).floors, HashMap::from([(0, 11), (1, 3), (2, 5)]));
}

fn large(job: u128, offset: i64, bytes: usize) -> Inbound {
    Inbound { value: Some(vec![1; bytes - EVENT_BYTES]), ..event(job, offset, EventKind::JobAccepted) }
}

#[test]
fn the_oldest_jobs_are_forgotten_before_the_bytes_exceed_their_budget() {
    let recent = RecentJobs::new(1_000, 10_000);
    for number in 0..100 {
        recent.saw(large(number, number as i64, 1_000));
        assert!(recent.seen.lock().bytes <= 10_000);
    }
    assert_eq!(recent.seen.lock().jobs.len(), 10);
    assert_eq!((cursors(&recent, 99), cursors(&recent, 89), forgotten(&recent, 89)), (Some(vec![99]), None, Some(89)));
    // An event of a job that is known counts, too.
    recent.saw(large(99, 200, 9_000));
    let seen = recent.seen.lock();
    assert_eq!((seen.jobs.len(), seen.bytes), (1, 10_000));
}

#[test]
fn of_a_job_with_large_events_the_latest_are_kept() {
    let recent = RecentJobs::new(1, BYTES_MAX);
    for offset in 0..20 {
        recent.saw(large(1, offset, JOB_BYTES_MAX / 4));
        assert!(recent.look(id(1)).job.unwrap().bytes <= JOB_BYTES_MAX);
    }
    let known = recent.look(id(1)).job.unwrap();
    assert!(!known.complete && known.events.last().unwrap().0 == 19);
    assert_eq!(recent.seen.lock().bytes, known.bytes);
}

#[tokio::test]
async fn a_job_that_is_waited_for_is_kept_beside_the_others_and_its_events_wake() {
    let recent = RecentJobs::new(1, BYTES_MAX);
    let (mut one, other) = (recent.wait(id(1), 2).unwrap(), recent.wait(id(1), 2).unwrap());
    assert!(recent.wait(id(2), 2).is_none(), "there is no room for a third");
    recent.saw(event(1, 3, EventKind::JobAccepted));
    one.changed().await;
    recent.saw(event(2, 4, EventKind::JobAccepted));
    recent.saw(event(3, 5, EventKind::JobAccepted));
    assert_eq!((cursors(&recent, 1), cursors(&recent, 2), cursors(&recent, 3)), (Some(vec![3]), None, Some(vec![5])));
    recent.saw(event(1, 6, EventKind::JobSucceeded));
    // It came before this was called, and is not missed.
    one.ended().await;
    drop(one);
    recent.saw(event(4, 7, EventKind::JobAccepted));
    assert_eq!(cursors(&recent, 1), Some(vec![3, 6]), "another one waits");
    drop(other);
    recent.saw(event(5, 8, EventKind::JobAccepted));
    assert_eq!((cursors(&recent, 1), forgotten(&recent, 1)), (None, Some(6)), "nobody waits any more");
    assert!(recent.wait(id(2), 1).is_some(), "the places are free");
}

#[test]
fn jobs_that_are_waited_for_keep_within_the_bytes_too() {
    let recent = RecentJobs::new(1, 10_000);
    let waiting: Vec<_> = (0..20).map(|number| recent.wait(id(number), 100).unwrap()).collect();
    for number in 0..20 {
        recent.saw(large(number, number as i64, 1_000));
        assert!(recent.seen.lock().bytes <= 10_000);
    }
    assert_eq!(recent.seen.lock().jobs.len(), 10);
    assert_eq!(cursors(&recent, 19), Some(vec![19]));
    drop(waiting);
    recent.saw(large(30, 30, 1_000));
    assert_eq!(cursors(&recent, 30), Some(vec![30]));
    assert_eq!(recent.seen.lock().jobs.len(), 1);
}
