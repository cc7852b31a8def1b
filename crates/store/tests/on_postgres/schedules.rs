use store::flows::{Applied, apply};
use store::schedules::{Known, advance, all, begin, forget};
use store::{Pool, Role};

use crate::database::Database;

async fn applied(pool: &Pool, version: &str) -> i64 {
    let mut tx = pool.begin().await.unwrap();
    let applied = apply(&mut tx, "timed", version, "{}").await.unwrap();
    tx.commit().await.unwrap();
    match applied {
        Applied::Changed { revision } | Applied::Unchanged { revision } => revision,
    }
}

fn known(revision: i64, terms: &str) -> Known {
    Known { flow: "timed".to_owned(), revision, terms: terms.to_owned() }
}

/// The outcome of a move that is committed.
async fn moved(pool: &Pool, known: &Known, span: (i64, i64)) -> bool {
    let mut tx = pool.begin().await.unwrap();
    let moved = advance(&mut tx, known, span).await.unwrap();
    tx.commit().await.unwrap();
    moved
}

async fn reached_ms(pool: &Pool) -> i64 {
    all(pool).await.unwrap().1[0].reached_ms
}

#[tokio::test]
async fn a_schedule_moves_only_from_where_it_is_expected_and_by_the_latest_version() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let first = known(applied(&pool, "v1").await, "0 6 * * * UTC");
    begin(&pool, &first).await.unwrap();
    let (now_ms, rows) = all(&pool).await.unwrap();
    let from_ms = rows[0].reached_ms;
    assert!(now_ms.abs_diff(from_ms) < 60_000, "it begins now");
    begin(&pool, &first).await.unwrap();
    assert_eq!(reached_ms(&pool).await, from_ms, "once");
    let tick_ms = 4_000_000_000_000;
    assert!(!moved(&pool, &first, (from_ms - 1, tick_ms)).await);
    assert!(moved(&pool, &first, (from_ms, tick_ms)).await);
    assert!(!moved(&pool, &first, (from_ms, tick_ms)).await, "somebody else was here");
    assert_eq!(reached_ms(&pool).await, tick_ms);

    // The same terms go on; whoever has not heard of the version does nothing.
    let second = known(applied(&pool, "v2").await, "0 6 * * * UTC");
    assert!(!moved(&pool, &first, (tick_ms, tick_ms + 1_000)).await);
    begin(&pool, &second).await.unwrap();
    begin(&pool, &first).await.unwrap();
    assert!(moved(&pool, &second, (tick_ms, tick_ms + 1_000)).await);

    let third = known(applied(&pool, "v3").await, "0 7 * * * UTC");
    begin(&pool, &third).await.unwrap();
    assert!(reached_ms(&pool).await < tick_ms, "other terms begin anew");
    forget(&pool, "timed", third.revision).await.unwrap();
    assert_eq!(all(&pool).await.unwrap().1.len(), 1, "it is of this version");
    forget(&pool, "timed", third.revision + 1).await.unwrap();
    assert_eq!(all(&pool).await.unwrap().1, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_come_to_a_tick_one_moves_the_schedule() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let known = known(applied(&pool, "v1").await, "* * * * * UTC");
    begin(&pool, &known).await.unwrap();
    let from_ms = reached_ms(&pool).await;
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (pool, known) = (pool.clone(), known.clone());
        tries.spawn(async move { moved(&pool, &known, (from_ms, 4_000_000_000_000)).await });
    }
    let winners = tries.join_all().await.into_iter().filter(|moved| *moved).count();
    assert_eq!(winners, 1);
}
