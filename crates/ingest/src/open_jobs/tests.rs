use super::*;
use events::headers::Headers;

const ORDER: Of<'static> = ("acme", "order");

fn open_jobs() -> Arc<OpenJobs> {
    Arc::new(OpenJobs::new(FlowLimits::parse(&["order jobs=3".to_owned()]).unwrap()))
}

fn job(number: u128) -> JobId {
    JobId::new(uuid::Uuid::from_u128(number))
}

fn record(kind: &EventKind, flow: &str, (partition, offset): (i32, i64)) -> Inbound {
    let source = format!("/meanwhile/flows/{flow}");
    let headers = Headers::from([(header::CE_TYPE, Some(kind.as_str())), (header::CE_SOURCE, Some(&source))]);
    let value = Some(b"event".to_vec());
    Inbound { topic: "events".to_owned(), partition, offset, value, headers, ..Inbound::default() }
}

/// Counts an event as if it had come and been read.
fn apply(open_jobs: &OpenJobs, offset: i64, number: u128, kind: EventKind) {
    let one = News { partition: 0, offset, value: Box::default() };
    let begun = HashMap::from([(0, 10)]);
    open_jobs.apply(&one, &begun, ((ORDER.0.to_owned(), ORDER.1.to_owned()), job(number), &kind));
}

fn admit(open_jobs: &Arc<OpenJobs>, number: u128) -> Option<Admission> {
    open_jobs.admit(ORDER, &[job(number)], [Some(3), None]).ok()
}

#[test]
fn a_job_counts_from_its_admission_to_its_end_and_once() {
    let open_jobs = open_jobs();
    for number in 1..=3 {
        let mut admission = admit(&open_jobs, number).unwrap();
        admission.learn(job(number), Ok(&Accepted::New));
    }
    assert!(admit(&open_jobs, 4).is_none());
    assert!(open_jobs.admit(("other", "order"), &[job(4)], [Some(3), None]).is_ok(), "each tenant by itself");
    apply(&open_jobs, 10, 1, EventKind::JobAccepted);
    apply(&open_jobs, 11, 2, EventKind::JobAccepted);
    assert_eq!(open_jobs.count(ORDER, Breadth::Flow), 3);
    apply(&open_jobs, 12, 1, EventKind::JobSucceeded);
    assert_eq!(open_jobs.count(ORDER, Breadth::Flow), 2);
    // Those of other processes count, too.
    apply(&open_jobs, 13, 9, EventKind::JobAccepted);
    assert!(admit(&open_jobs, 4).is_none());
    for (offset, number, kind) in [(14, 9, EventKind::JobFailed), (15, 2, EventKind::JobCancelled)] {
        apply(&open_jobs, offset, number, kind);
    }
    assert_eq!(open_jobs.count(ORDER, Breadth::Flow), 1, "the third has been told by no event yet");
}

#[test]
fn what_was_not_stored_counts_no_more_and_what_may_have_been_for_a_while() {
    let open_jobs = open_jobs();
    drop(admit(&open_jobs, 1).unwrap());
    let replayed = Accepted::Replayed { job: job(7), same_fingerprint: true };
    for (number, outcome) in [(2, Ok(&replayed)), (3, Err(&accept::Error::KeyInUse))] {
        admit(&open_jobs, number).unwrap().learn(job(number), outcome);
    }
    assert_eq!(open_jobs.count(ORDER, Breadth::Flow), 0);
    admit(&open_jobs, 4).unwrap().learn(job(4), Err(&accept::Error::TooSlow));
    assert_eq!(open_jobs.count(ORDER, Breadth::Flow), 1);
    assert!(open_jobs.admit(ORDER, &[job(5), job(6), job(7)], [Some(3), None]).is_err(), "all or none");
    let mut state = open_jobs.state.lock();
    let count = state.counts.values_mut().next().unwrap();
    count.admitted.values_mut().for_each(|one| one.at -= UNKNOWN_FOR);
    drop(state);
    assert!(open_jobs.admit(ORDER, &[job(5), job(6), job(7)], [Some(3), None]).is_ok());
}

#[test]
fn events_that_a_count_holds_are_not_counted_twice() {
    let open_jobs = open_jobs();
    admit(&open_jobs, 1).unwrap().learn(job(1), Ok(&Accepted::New));
    open_jobs.begin(&HashMap::from([((ORDER.0.to_owned(), ORDER.1.to_owned()), 2)]));
    // The count goes up to 10: this one is in it.
    apply(&open_jobs, 9, 1, EventKind::JobAccepted);
    assert_eq!(open_jobs.count(ORDER, Breadth::Flow), 2);
    apply(&open_jobs, 10, 2, EventKind::JobAccepted);
    assert_eq!(open_jobs.count(ORDER, Breadth::Flow), 3);
}

#[test]
fn only_news_of_flows_with_a_limit_wait_to_be_counted_each_once() {
    let open_jobs = open_jobs();
    let mut news = open_jobs.to_count.lock().take().unwrap();
    open_jobs.saw(&record(&EventKind::StepSucceeded, "order", (0, 1)));
    open_jobs.saw(&record(&EventKind::JobAccepted, "other", (0, 2)));
    open_jobs.saw(&record(&EventKind::JobAccepted, "order", (0, 3)));
    open_jobs.saw(&record(&EventKind::JobAccepted, "order", (0, 3)));
    open_jobs.saw(&record(&EventKind::JobFailed, "order", (0, 4)));
    let offsets: Vec<i64> = std::iter::from_fn(|| news.try_recv().ok()).map(|one| one.offset).collect();
    assert_eq!(offsets, [3, 4]);
}

#[test]
fn a_count_has_to_hold_what_did_not_come_and_what_was_lost() {
    let open_jobs = open_jobs();
    let covers = |offsets: &[(i32, i64)]| open_jobs.covers(&offsets.iter().copied().collect());
    open_jobs.begun_at([(0, 5), (1, 0)].into_iter());
    assert!(!covers(&[(0, 4), (1, 9)]) && !covers(&[(1, 9)]) && covers(&[(0, 5)]));
    open_jobs.saw(&record(&EventKind::JobAccepted, "order", (0, 7)));
    for offset in 0..=i64::try_from(NEWS_MAX).unwrap() {
        open_jobs.saw(&record(&EventKind::JobAccepted, "order", (1, offset)));
    }
    assert!(open_jobs.state.lock().has_lost);
    let last = i64::try_from(NEWS_MAX).unwrap();
    let mut news = open_jobs.to_count.lock().take().unwrap();
    open_jobs.give_up(&mut news);
    assert!(!open_jobs.state.lock().has_lost && news.try_recv().is_err());
    // Those that waited were not counted either.
    assert!(!covers(&[(0, 8), (1, last)]) && !covers(&[(0, 7), (1, last + 1)]) && covers(&[(0, 8), (1, last + 1)]));
}

#[test]
fn jobs_of_all_flows_of_a_tenant_count_together() {
    let open_jobs = Arc::new(OpenJobs::new(FlowLimits::parse(&["** jobs=3".to_owned()]).unwrap()));
    let admit = |of, number: u128| {
        let mut admission = open_jobs.admit(of, &[job(number)], [Some(2), Some(3)])?;
        admission.learn(job(number), Ok(&Accepted::New));
        Ok(())
    };
    assert_eq!([admit(ORDER, 1), admit(ORDER, 2), admit(ORDER, 3)], [Ok(()), Ok(()), Err(Breadth::Flow)]);
    assert_eq!([admit(("acme", "b"), 4), admit(("acme", "c"), 5)], [Ok(()), Err(Breadth::Together)]);
    assert_eq!(admit(("other", "c"), 6), Ok(()));
    apply(&open_jobs, 10, 1, EventKind::JobAccepted);
    apply(&open_jobs, 11, 1, EventKind::JobSucceeded);
    assert_eq!((open_jobs.count(("acme", "c"), Breadth::Together), admit(("acme", "c"), 7)), (2, Ok(())));
}
