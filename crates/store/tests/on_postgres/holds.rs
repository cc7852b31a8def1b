use std::collections::BTreeSet;
use std::time::Duration;

use flow::id::{JobId, TokenId};
use flow::slip::HoldReason;
use store::holds::{NewHold, Released, ReleasedToken, count_by_reason, insert, parked_slip, take_resting};
use store::lanes::release_due;
use store::{Pool, Role};

use crate::database::{Database, job, record};

fn hold(job: JobId, hop: u32, release_after_ms: Option<u64>, value: &str) -> NewHold {
    let reason = if release_after_ms.is_some() { HoldReason::Backoff } else { HoldReason::Attention };
    let token = TokenId { job, branch: String::new(), hop };
    NewHold { release_after_ms, ..NewHold::new(token, reason, record(value)) }
}

async fn put(pool: &Pool, holds: &[NewHold]) {
    let mut tx = pool.begin().await.unwrap();
    insert(&mut tx, holds).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_hold_is_released_at_its_time_and_not_before() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    assert_eq!(release_due(&pool, 10).await.unwrap(), Released { holds: 0, next_due_in_ms: None });
    put(&pool, &[hold(job(), 1, Some(3_600_000), "later"), hold(job(), 1, Some(0), "now"), hold(job(), 1, None, "-")])
        .await;
    let released = release_due(&pool, 10).await.unwrap();
    assert_eq!(released.holds, 1);
    let next_ms = released.next_due_in_ms.unwrap();
    assert!((3_500_000..=3_600_000).contains(&next_ms), "{next_ms}");
    assert_eq!(database.outbox_values().await, ["now"]);
    assert_eq!(count_by_reason(&pool).await.unwrap(), [(HoldReason::Backoff, 1), (HoldReason::Attention, 1)]);
}

#[tokio::test]
async fn a_hold_is_due_when_it_said_it_would_be() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    put(&pool, &[hold(job(), 1, Some(50), "soon")]).await;
    let first = release_due(&pool, 10).await.unwrap();
    assert!(first.holds == 1 || first.next_due_in_ms.unwrap() <= 50, "{first:?}");
    let released = async || (first.holds == 1 || release_due(&pool, 10).await.unwrap().holds == 1).then_some(());
    test_kit::eventually(Duration::from_secs(10), "the hold is released", released).await;
}

#[tokio::test]
async fn a_hold_that_comes_twice_rests_once() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let one = job();
    put(&pool, &[hold(one, 1, Some(0), "first")]).await;
    put(&pool, &[hold(one, 1, Some(0), "again"), hold(one, 2, Some(0), "next hop")]).await;
    release_due(&pool, 10).await.unwrap();
    assert_eq!(database.outbox_values().await, ["first", "next hop"]);
}

#[tokio::test]
async fn who_releases_less_than_is_due_is_called_again_at_once() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    put(&pool, &(0..3).map(|hop| hold(job(), hop, Some(0), "x")).collect::<Vec<_>>()).await;
    assert_eq!(release_due(&pool, 2).await.unwrap(), Released { holds: 2, next_due_in_ms: Some(0) });
    assert_eq!(release_due(&pool, 2).await.unwrap(), Released { holds: 1, next_due_in_ms: None });
}

#[tokio::test]
async fn two_who_release_at_once_send_each_hold_exactly_once() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let holds: Vec<_> = (0..2_000).map(|index| hold(job(), 1, Some(0), &format!("hold {index}"))).collect();
    put(&pool, &holds).await;
    let releasers: Vec<_> = (0..4)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut sent = 0;
                loop {
                    let released = release_due(&pool, 17).await.unwrap();
                    sent += released.holds;
                    if released.holds == 0 {
                        return sent;
                    }
                }
            })
        })
        .collect();
    let mut sent = 0;
    for releaser in releasers {
        sent += releaser.await.unwrap();
    }
    assert_eq!(sent, 2_000);
    let values = database.outbox_values().await;
    assert_eq!(values.len(), 2_000);
    assert_eq!(values.iter().collect::<BTreeSet<_>>().len(), 2_000, "no hold was sent twice");
    assert_eq!(database.count("orchestrator.holds").await, 0);
}

#[tokio::test]
async fn a_token_at_rest_is_taken_once_however_often_it_is_called() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let (parked, waiting, looking, running) = (job(), job(), job(), job());
    let of = |reason, hold| NewHold { reason, ..hold };
    let holds = [
        hold(parked, 4, None, "parked"),
        hold(waiting, 2, Some(60_000), "waiting"),
        of(HoldReason::MissingStep, hold(looking, 7, Some(60_000), "looking")),
        of(HoldReason::Running, hold(running, 1, None, "running")),
    ];
    put(&pool, &holds).await;
    let call = async |job, hop| {
        let mut tx = pool.begin().await.unwrap();
        let word = TokenId { job, branch: String::new(), hop };
        let taken = take_resting(&mut tx, &[word.clone(), word]).await.unwrap();
        tx.commit().await.unwrap();
        taken
    };
    assert_eq!(call(parked, 3).await, [], "an earlier parking of the job");
    assert_eq!(call(waiting, 1).await, [], "a late word must not cut the back-off of a later attempt short");
    assert_eq!(call(looking, 8).await, []);
    assert_eq!(call(running, 1).await, [], "its call is under way");
    let taken = |job, hop, reason, value| {
        let token = TokenId { job, branch: String::new(), hop };
        [ReleasedToken { token, reason, record: record(value), steps_total: None }]
    };
    let at = |hop| TokenId { job: parked, branch: String::new(), hop };
    assert_eq!(parked_slip(&pool, &at(4)).await.unwrap().as_deref(), Some(&b"parked"[..]));
    assert_eq!(parked_slip(&pool, &at(3)).await.unwrap(), None, "another rest");
    let waiting_token = TokenId { job: waiting, branch: String::new(), hop: 2 };
    assert_eq!(parked_slip(&pool, &waiting_token).await.unwrap(), None, "it waits for a time");
    assert_eq!(call(parked, 4).await, taken(parked, 4, HoldReason::Attention, "parked"));
    assert_eq!(call(waiting, 2).await, taken(waiting, 2, HoldReason::Backoff, "waiting"));
    assert_eq!(call(looking, 4).await, taken(looking, 7, HoldReason::MissingStep, "looking"), "it looked again since");
    for (job, hop) in [(parked, 4), (waiting, 2), (looking, 4)] {
        assert_eq!(call(job, hop).await, []);
    }
    assert_eq!(database.count("orchestrator.holds").await, 1);
}

#[tokio::test]
async fn a_token_that_was_taken_rests_again_when_the_transaction_is_not_committed() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let parked = job();
    put(&pool, &[hold(parked, 4, None, "parked")]).await;
    let mut tx = pool.begin().await.unwrap();
    let taken = take_resting(&mut tx, &[TokenId { job: parked, branch: String::new(), hop: 4 }]).await.unwrap();
    assert_eq!(taken.len(), 1);
    drop(tx);
    assert_eq!(database.count("orchestrator.holds").await, 1);
}
