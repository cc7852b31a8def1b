use store::offsets::{OffsetAdvance, TopicPartition, advance, positions};
use store::{Error, Pool, Role};

use crate::database::Database;

fn to(partition: i32, expected: Option<i64>, next: i64) -> OffsetAdvance {
    OffsetAdvance { topic: "t.events".to_owned(), partition, expected, next }
}

async fn stored(pool: &Pool) -> Vec<Option<i64>> {
    let partitions: Vec<_> =
        (0..3).map(|partition| TopicPartition { topic: "t.events".to_owned(), partition }).collect();
    positions(pool, &partitions).await.unwrap()
}

#[tokio::test]
async fn positions_move_only_from_where_they_are_expected_all_or_none() {
    let database = Database::fresh().await;
    for role in [Role::Ingest, Role::Orchestrator, Role::Notifier] {
        let pool = database.pool(role);
        assert_eq!(stored(&pool).await, [None, None, None]);
        let mut tx = pool.begin().await.unwrap();
        advance(&mut tx, &[to(2, None, 7), to(0, None, 0)]).await.unwrap();
        advance(&mut tx, &[to(2, Some(7), 9)]).await.unwrap();
        advance(&mut tx, &[]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(stored(&pool).await, [Some(0), None, Some(9)]);

        for refused in [to(2, Some(8), 10), to(2, None, 10), to(1, Some(0), 10)] {
            let mut tx = pool.begin().await.unwrap();
            match advance(&mut tx, &[to(0, Some(0), 5), refused.clone()]).await {
                Err(Error::Conflict { topic, partition }) => {
                    assert_eq!((topic.as_str(), partition), ("t.events", refused.partition));
                }
                other => panic!("{refused:?} gave {other:?}"),
            }
            tx.rollback().await.unwrap();
            assert_eq!(stored(&pool).await, [Some(0), None, Some(9)]);
        }
    }
}

#[tokio::test]
async fn of_two_who_hold_the_same_partition_one_is_refused() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let (mut first, mut second) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    advance(&mut first, &[to(0, None, 5)]).await.unwrap();
    let waiting = tokio::spawn(async move {
        let outcome = advance(&mut second, &[to(0, None, 6)]).await;
        drop(second);
        outcome
    });
    first.commit().await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Conflict { .. })));

    let (mut first, mut second) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    advance(&mut first, &[to(0, Some(5), 8)]).await.unwrap();
    let waiting = tokio::spawn(async move { advance(&mut second, &[to(0, Some(5), 9)]).await });
    first.commit().await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Conflict { .. })));
    assert_eq!(stored(&pool).await[0], Some(8));
}

#[tokio::test]
async fn the_relay_has_no_offsets_here() {
    let database = Database::fresh().await;
    let mut tx = database.pool(Role::Relay).begin().await.unwrap();
    assert!(advance(&mut tx, &[to(0, None, 1)]).await.is_err());
}

#[tokio::test]
async fn partitions_that_were_never_read_begin_where_they_are_told_and_others_stay() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let place = |partition| TopicPartition { topic: "t.events".to_owned(), partition };
    store::offsets::begin_at(&pool, &[(place(0), 0), (place(1), 5)]).await.unwrap();
    store::offsets::begin_at(&pool, &[(place(0), 3), (place(1), 3), (place(2), 3)]).await.unwrap();
    assert_eq!(stored(&pool).await, [Some(0), Some(5), Some(3)]);
    // A beginning at 0 is no other than none.
    let mut tx = pool.begin().await.unwrap();
    advance(&mut tx, &[to(0, None, 2), to(1, Some(5), 6)]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stored(&pool).await, [Some(2), Some(6), Some(3)]);
}
