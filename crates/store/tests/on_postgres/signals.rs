use std::time::Duration;

use flow::event::{EventKind, JobStatus};
use flow::id::{JobId, TokenId};
use flow::slip::HoldReason;
use store::holds::{NewHold, insert as insert_holds};
use store::jobs::{ObservedEvent, project};
use store::signals::{KnownSignals, NewSignal, insert, look, retire, take_signalled};
use store::{Pool, Role};

use crate::database::{Database, event, job, record};

fn hold(job: JobId, hop: u32, signal: &str) -> NewHold {
    let token = TokenId { job, branch: String::new(), hop };
    let value = format!("{signal} {hop}");
    NewHold { signal: Some(signal.to_owned()), ..NewHold::new(token, HoldReason::Signal, record(&value)) }
}

fn signal(job: JobId, name: &str, id: &str) -> NewSignal {
    NewSignal { job, name: name.to_owned(), id: id.to_owned(), payload: Some(id.as_bytes().to_vec()) }
}

/// One batch: what came in, and what was taken for these jobs, as the record's value and the payload.
async fn batch(pool: &Pool, holds: &[NewHold], signals: &[NewSignal], jobs: &[JobId]) -> Vec<(String, String)> {
    let mut tx = pool.begin().await.unwrap();
    insert_holds(&mut tx, holds).await.unwrap();
    insert(&mut tx, signals).await.unwrap();
    let taken = take_signalled(&mut tx, jobs).await.unwrap();
    tx.commit().await.unwrap();
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap()).unwrap();
    taken.into_iter().map(|taken| (text(taken.record.value), text(taken.payload))).collect()
}

#[tokio::test]
async fn a_hold_and_its_signal_meet_whichever_comes_first_and_each_is_used_once() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let (one, other) = (job(), job());
    let met = |pair: (&str, &str)| vec![(pair.0.to_owned(), pair.1.to_owned())];
    assert_eq!(batch(&pool, &[hold(one, 1, "yes")], &[], &[one]).await, []);
    assert_eq!(batch(&pool, &[], &[signal(one, "no", "a"), signal(other, "yes", "b")], &[one, other]).await, []);
    assert_eq!(batch(&pool, &[], &[signal(one, "yes", "c")], &[one]).await, met(("yes 1", "c")));
    assert_eq!(batch(&pool, &[], &[signal(one, "yes", "d")], &[one]).await, [], "the hold has gone");
    assert_eq!(batch(&pool, &[hold(other, 4, "yes")], &[], &[other]).await, met(("yes 4", "b")));
    assert_eq!(batch(&pool, &[hold(one, 5, "yes")], &[], &[one]).await, met(("yes 5", "d")));
    assert_eq!(batch(&pool, &[hold(one, 6, "yes")], &[], &[one]).await, [], "c and d were used");
}

#[tokio::test]
async fn signals_of_one_name_are_used_one_each_in_their_order_and_a_repetition_is_none() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let one = job();
    let came = ["c", "a", "b", "a"].map(|id| signal(one, "yes", id));
    assert_eq!(batch(&pool, &[], &came, &[one]).await, []);
    let mut used = Vec::new();
    for hop in 1..=4 {
        used.extend(batch(&pool, &[hold(one, hop, "yes")], &[signal(one, "yes", "c")], &[one]).await);
    }
    let used: Vec<_> = used.iter().map(|(_, payload)| payload.as_str()).collect();
    assert_eq!(used, ["c", "a", "b"], "one that was used is not taken in again");
    // Two holds of one job that wait at once: one signal each.
    let two = job();
    let branch = |branch: &str| {
        let hold = hold(two, 1, "yes");
        NewHold { token: TokenId { branch: branch.to_owned(), ..hold.token.clone() }, ..hold }
    };
    let came = [signal(two, "yes", "1"), signal(two, "yes", "2")];
    assert_eq!(batch(&pool, &[branch("x"), branch("y")], &came, &[two]).await.len(), 2);
}

#[tokio::test]
async fn what_is_known_of_a_signal_is_told_before_it_is_sent() {
    let database = Database::fresh().await;
    let (pool, ingest) = (database.pool(Role::Orchestrator), database.pool(Role::Ingest));
    let one = job();
    batch(&pool, &[], &[signal(one, "yes", "a"), signal(one, "no", "b")], &[one]).await;
    let known = look(&ingest, one, "yes", "a", 10).await.unwrap();
    assert_eq!(known, KnownSignals { same: Some(Some(b"a".to_vec())), unused: 2 });
    assert_eq!(look(&ingest, one, "yes", "b", 1).await.unwrap(), KnownSignals { same: None, unused: 1 });
    let bare = NewSignal { payload: None, ..signal(one, "yes", "c") };
    batch(&pool, &[hold(one, 1, "yes")], &[bare], &[]).await;
    assert_eq!(look(&ingest, one, "yes", "c", 10).await.unwrap().same, Some(None));
}

#[tokio::test]
async fn old_signals_go_with_their_jobs() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let (running, gone) = (job(), job());
    store::jobs::ensure_partitions(&pool, 1).await.unwrap();
    let event = event(running, EventKind::StepSucceeded, JobStatus::Running, 1);
    let mut tx = pool.begin().await.unwrap();
    project(&mut tx, &[ObservedEvent { partition: 0, cursor: 1, trace_id: None, event }]).await.unwrap();
    tx.commit().await.unwrap();
    batch(&pool, &[], &[signal(running, "yes", "a"), signal(gone, "yes", "b")], &[]).await;
    assert_eq!(retire(&pool, Duration::from_secs(3_600)).await.unwrap(), 0, "they are young");
    assert_eq!(retire(&pool, Duration::ZERO).await.unwrap(), 1);
    assert_eq!(batch(&pool, &[hold(running, 1, "yes")], &[], &[running]).await.len(), 1);
}
