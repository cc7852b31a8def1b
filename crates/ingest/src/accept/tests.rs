use flow::facts::JobFacts;
use flow::id::JobId;
use store::acceptances::{Acceptance, Idempotency};
use tokio::task::JoinSet;

use super::*;

/// The input of a request that takes `bytes` in all.
fn request(number: u128, bytes: usize) -> NewAcceptance {
    let job = JobId::new(uuid::Uuid::from_u128(number));
    let facts = JobFacts {
        job,
        tenant: "acme".to_owned(),
        flow: "order".to_owned(),
        version: "0123456789ab".to_owned(),
        key: "k".to_owned(),
        correlation_id: "c".to_owned(),
        accepted_at_ms: 0,
        retry_of: None,
    };
    let input = vec![b'x'; bytes - REQUEST_BYTES];
    let acceptance = Acceptance { facts, input, deadline_ms: None, steps_total: 1, trace_id: None };
    NewAcceptance { acceptance, idempotency: None, records: Vec::new(), submitted_by: None, webhook: None }
}

const MIB: usize = 1024 * 1024;

fn limits() -> Limits {
    Limits { queue_requests_max: 100, queue_bytes_max: 10 * MIB, group_requests_max: 4, group_bytes_max: 3 * MIB }
}

/// Callers that wait, and how many were turned away.
async fn callers(acceptor: &Acceptor, requests: Vec<NewAcceptance>) -> (JoinSet<Result<Accepted, Error>>, usize) {
    let (mut waiting, expected) = (JoinSet::new(), requests.len());
    for request in requests {
        let acceptor = acceptor.clone();
        waiting.spawn(async move { acceptor.accept(request).await });
    }
    for _ in 0..expected {
        tokio::task::yield_now().await;
    }
    let mut refused = 0;
    while let Some(outcome) = waiting.try_join_next() {
        assert!(matches!(outcome.unwrap(), Err(Error::Full)));
        refused += 1;
    }
    (waiting, refused)
}

#[tokio::test]
async fn requests_are_turned_away_before_the_budget_of_bytes_is_spent_and_taken_again_after() {
    let (acceptor, mut groups) = Acceptor::new(limits());
    let (waiting, refused) = callers(&acceptor, (0..25).map(|number| request(number, MIB)).collect()).await;
    assert_eq!((waiting.len(), refused), (10, 15));
    assert_eq!(acceptor.used_bytes.load(Ordering::Relaxed), 10 * MIB);
    // What is being stored counts until its transaction has ended.
    let group = groups.next().await;
    assert!(matches!(acceptor.accept(request(99, MIB)).await, Err(Error::Full)));
    drop(group);
    assert_eq!(acceptor.used_bytes.load(Ordering::Relaxed), 7 * MIB);
    let (_more, refused) = callers(&acceptor, (0..5).map(|number| request(number, MIB)).collect()).await;
    assert_eq!(refused, 2);
}

#[tokio::test]
async fn a_transaction_is_bounded_by_requests_and_by_bytes_and_a_larger_request_goes_alone() {
    let (acceptor, mut groups) = Acceptor::new(limits());
    let sizes = [1, 1, 2, 1, 4, 1].map(|mib| mib * MIB);
    let large = (0..).zip(sizes).map(|(number, bytes)| request(number, bytes)).collect();
    let (_large, refused) = callers(&acceptor, large).await;
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(groups.next().await.iter().map(|request| request.room.bytes / MIB).collect::<Vec<_>>());
    }
    assert_eq!((taken, refused), (vec![vec![1, 1], vec![2, 1], vec![4], vec![1]], 0));
    let (_small, _) = callers(&acceptor, (0..6).map(|number| request(number, 2_000)).collect()).await;
    assert_eq!((groups.next().await.len(), groups.next().await.len()), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_for_a_bounded_time_and_is_forgotten_when_it_leaves_before_its_turn() {
    let (acceptor, mut groups) = Acceptor::new(limits());
    let mut keyed = request(1, MIB);
    let (scope, key) = ("order".to_owned(), "k".to_owned());
    keyed.idempotency = Some(Idempotency { scope, key, fingerprint: vec![], retention_ms: 1 });
    let began = tokio::time::Instant::now();
    assert!(matches!(acceptor.accept(keyed).await, Err(Error::TooSlow)));
    assert_eq!(began.elapsed(), ANSWER_TIMEOUT);
    let (_waiting, _) = callers(&acceptor, vec![request(2, MIB)]).await;
    let group = groups.next().await;
    assert_eq!(group.iter().map(|request| request.acceptance.acceptance.job.uuid().as_u128()).collect::<Vec<_>>(), [2]);
    assert_eq!(acceptor.used_bytes.load(Ordering::Relaxed), MIB);
    assert!(acceptor.pending_keys.lock().is_empty());
}
