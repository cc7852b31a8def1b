//! Lists of jobs.

use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use store::acceptances::{Acceptance, NewAcceptance, accept_batch};
use store::jobs::{JobChoice, ObservedEvent, list, project};
use store::{Pool, Role};
use uuid::Uuid;

use crate::database::{Database, acceptance, event};

const BEGIN_MS: i64 = 1_700_000_000_000;
/// More than there are in these tests.
const MANY: u32 = 1_000;

/// The id of the job with that number, accepted in that second.
fn id(number: u32) -> JobId {
    let at_ms = u128::try_from(BEGIN_MS).unwrap() + u128::from(number) * 1_000;
    JobId::new(Uuid::from_u128((at_ms << 80) | (7 << 76) | (2 << 62) | u128::from(number)))
}

fn number(job: JobId) -> u32 {
    u32::try_from((job.created_at_ms() - BEGIN_MS) / 1_000).unwrap()
}

fn job(number: u32, change: impl FnOnce(&mut Acceptance)) -> NewAcceptance {
    let mut request = acceptance("x");
    request.acceptance.facts.job = id(number);
    request.acceptance.facts.accepted_at_ms = id(number).created_at_ms();
    change(&mut request.acceptance);
    request
}

async fn seen(pool: &Pool, number: u32, kind: EventKind, status: JobStatus) {
    let event = ObservedEvent {
        partition: 0,
        cursor: i64::from(number) + 1,
        trace_id: None,
        event: event(id(number), kind, status, 1),
    };
    let mut tx = pool.begin().await.unwrap();
    project(&mut tx, &[event]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn listed(pool: &Pool, choice: &JobChoice) -> Vec<u32> {
    let page = list(pool, "acme", choice, None, MANY, MANY).await.unwrap();
    assert_eq!(page.after, None);
    page.jobs.iter().map(|job| number(job.facts.job)).collect()
}

#[tokio::test]
async fn jobs_are_listed_newest_first_by_what_is_chosen() {
    let database = Database::fresh().await;
    let (ingest, orchestrator) = (database.pool(Role::Ingest), database.pool(Role::Orchestrator));
    let long = "é".repeat(20_000);
    let batch = [
        job(0, |job| job.facts.flow = "refund".to_owned()),
        job(1, |job| job.facts.key = "customer-2".to_owned()),
        job(2, |job| job.facts.key = id(2).to_string()),
        job(3, |job| job.facts.correlation_id = long.clone()),
        job(4, |job| job.facts.tenant = "other".to_owned()),
        job(5, |_| {}),
    ];
    accept_batch(&ingest, &batch).await.unwrap();
    seen(&orchestrator, 0, EventKind::JobSucceeded, JobStatus::Succeeded).await;
    seen(&orchestrator, 1, EventKind::StepRetrying, JobStatus::Waiting).await;

    let all = JobChoice::default;
    assert_eq!(listed(&ingest, &all()).await, [5, 3, 2, 1, 0], "before any event, too, and no other tenant's");
    assert_eq!(listed(&ingest, &JobChoice { flow: Some("refund".to_owned()), ..all() }).await, [0]);
    let key = |key: &str| JobChoice { key: Some(key.to_owned()), ..all() };
    assert_eq!(listed(&ingest, &key("customer-1")).await, [5, 3, 0]);
    assert_eq!(listed(&ingest, &key("customer-2")).await, [1]);
    assert_eq!(listed(&ingest, &JobChoice { flow: Some("refund".to_owned()), ..key("customer-1") }).await, [0]);
    let by_correlation = JobChoice { correlation_id: Some(long), ..all() };
    assert_eq!(listed(&ingest, &by_correlation).await, [3]);
    assert_eq!(listed(&ingest, &JobChoice { key: Some("customer-2".to_owned()), ..by_correlation }).await, [0; 0]);
    let status = |statuses: &[JobStatus]| JobChoice { statuses: Some(statuses.to_vec()), ..all() };
    assert_eq!(listed(&ingest, &status(&[JobStatus::Accepted])).await, [5, 3, 2]);
    assert_eq!(listed(&ingest, &status(&[JobStatus::Waiting, JobStatus::Succeeded])).await, [1, 0]);
    let second = |number: i64| Some(BEGIN_MS + number * 1_000);
    assert_eq!(listed(&ingest, &JobChoice { since_ms: second(2), ..all() }).await, [5, 3, 2]);
    assert_eq!(listed(&ingest, &JobChoice { since_ms: second(1), until_ms: second(3), ..all() }).await, [2, 1]);
}

#[tokio::test]
async fn a_listed_job_tells_where_it_stands_by_its_last_event_of_a_step() {
    let database = Database::fresh().await;
    let (ingest, orchestrator) = (database.pool(Role::Ingest), database.pool(Role::Orchestrator));
    accept_batch(&ingest, &[job(0, |_| {}), job(1, |_| {})]).await.unwrap();
    seen(&orchestrator, 0, EventKind::StepRetrying, JobStatus::Waiting).await;
    // More than the row takes: the last ones lie beside it.
    database.run("update orchestrator.jobs set history = convert_to(repeat(E'\\n', 5000), 'UTF8')").await;
    let mut next = event(id(0), EventKind::StepSucceeded, JobStatus::Running, 2);
    next.step = Some("charge".to_owned());
    let more = ObservedEvent { partition: 0, cursor: 9, trace_id: None, event: next.clone() };
    let mut tx = orchestrator.begin().await.unwrap();
    project(&mut tx, &[more]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(database.count("orchestrator.job_events").await, 1);

    let page = list(&ingest, "acme", &JobChoice::default(), None, MANY, MANY).await.unwrap();
    let (new, old) = (&page.jobs[0], &page.jobs[1]);
    assert_eq!((new.status, &new.last, new.updated_at_ms), (JobStatus::Accepted, &None, new.facts.accepted_at_ms));
    let last = old.last.as_ref().unwrap();
    assert_eq!((last.step.as_deref(), last.kind), (Some("charge"), EventKind::StepSucceeded));
    assert_eq!((old.status, old.updated_at_ms), (JobStatus::Running, next.at_ms));
}

#[tokio::test]
async fn page_by_page_each_is_listed_once_and_few_are_looked_at_for_one_page() {
    let database = Database::fresh().await;
    let (ingest, orchestrator) = (database.pool(Role::Ingest), database.pool(Role::Orchestrator));
    let batch: Vec<_> = (0..25).map(|number| job(number, |_| {})).collect();
    accept_batch(&ingest, &batch).await.unwrap();
    for number in [0, 7, 8, 24] {
        seen(&orchestrator, number, EventKind::JobFailed, JobStatus::Failed).await;
    }
    let read = async |choice: &JobChoice, jobs_max: u32, looked_max: u32| {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = list(&ingest, "acme", choice, after, jobs_max, looked_max).await.unwrap();
            pages.push(page.jobs.iter().map(|job| number(job.facts.job)).collect::<Vec<_>>());
            // What is accepted meanwhile comes before all that is to be listed.
            accept_batch(&ingest, &[job(100 + u32::try_from(pages.len()).unwrap(), |_| {})]).await.unwrap();
            after = page.after;
            if after.is_none() {
                break pages;
            }
        }
    };
    let failed = JobChoice { statuses: Some(vec![JobStatus::Failed]), until_ms: None, ..JobChoice::default() };
    assert_eq!(read(&failed, 2, MANY).await, [vec![24, 8], vec![7, 0], vec![]]);
    let old = JobChoice { until_ms: Some(BEGIN_MS + 25_000), ..failed };
    assert_eq!(read(&old, 10, 10).await, [vec![24], vec![8, 7], vec![0]], "ten, ten and five are looked at");
    let keyed = JobChoice { key: Some("customer-1".to_owned()), ..old };
    assert_eq!(read(&keyed, 10, 10).await, [vec![24], vec![8, 7], vec![0]]);
}
