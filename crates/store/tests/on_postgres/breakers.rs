use std::time::Instant;

use flow::id::TokenId;
use flow::slip::HoldReason;
use store::breakers::{Phase, lock, lock_due, save, take_held};
use store::holds::{NewHold, insert};
use store::{Pool, Role, outbox};

use crate::database::{Database, job, record};

const PAYMENT: &str = "payment:8080";

fn held(number: u64) -> NewHold {
    let token = TokenId { job: job(), branch: String::new(), hop: 1 };
    let downstream = Some(PAYMENT.to_owned());
    NewHold { downstream, ..NewHold::new(token, HoldReason::Breaker, record(&number.to_string())) }
}

async fn hold(pool: &Pool, holds: &[NewHold]) {
    let mut tx = pool.begin().await.unwrap();
    insert(&mut tx, holds).await.unwrap();
    tx.commit().await.unwrap();
}

/// Lets so many pass, as the orchestrator does. Returns their values.
async fn pass(pool: &Pool, holds_max: u32, from_us: &mut Option<i64>) -> Vec<String> {
    let mut tx = pool.begin().await.unwrap();
    let taken = take_held(&mut tx, PAYMENT, holds_max, *from_us).await.unwrap();
    *from_us = taken.last_held_at_us.or(*from_us);
    outbox::append(&mut tx, &taken.records).await.unwrap();
    tx.commit().await.unwrap();
    taken.records.into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn holds_pass_in_the_order_in_which_they_came_and_each_once() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    for number in 0..6 {
        hold(&pool, &[held(number)]).await;
    }
    let others = [HoldReason::Limit, HoldReason::Backoff].map(|reason| NewHold { reason, ..held(99) });
    hold(&pool, &others).await;
    let mut from_us = None;
    assert_eq!(pass(&pool, 2, &mut from_us).await, ["0", "1"]);
    assert_eq!(pass(&pool, 9, &mut from_us).await, ["2", "3", "4", "5"]);
    assert!(pass(&pool, 9, &mut from_us).await.is_empty() && pass(&pool, 9, &mut None).await.is_empty());
    assert_eq!(database.count("orchestrator.holds").await, 2);
}

#[tokio::test]
async fn a_breaker_that_is_locked_is_nobody_elses_and_what_is_saved_is_read_back() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let mut tx = pool.begin().await.unwrap();
    let [mut breaker] = lock(&mut tx, &[PAYMENT]).await.unwrap().try_into().unwrap();
    assert_eq!((breaker.phase.as_str(), breaker.epoch, breaker.due_in_ms), ("closed", 0, None));
    breaker.phase = Phase::Paused;
    (breaker.epoch, breaker.due_in_ms, breaker.pause_ms, breaker.openings) = (4, Some(0), 5_000, 2);
    (breaker.forced, breaker.release_per_s, breaker.released_to_us) = (true, 12.5, Some(1_700_000_000_123_456));
    (breaker.reason, breaker.ordered_by) = ("why".to_owned(), Some("ann".to_owned()));
    save(&mut tx, &breaker).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    assert_eq!(lock_due(&mut tx).await.unwrap(), Some(breaker.clone()));
    let mut other = pool.begin().await.unwrap();
    assert_eq!(lock_due(&mut other).await.unwrap(), None, "another one has it");
    breaker.due_in_ms = None;
    save(&mut tx, &breaker).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(lock_due(&mut other).await.unwrap(), None, "it is not due any more");
}

/// Lets all of so many holds pass, and returns how many entries of the index were read for that.
async fn entries_read(database: &Database, holds: u64, at_once: u32) -> (u64, i64) {
    let pool = database.pool(Role::Orchestrator);
    for batch in 0..holds / 1_000 {
        let holds: Vec<NewHold> = (0..1_000).map(|number| held(batch * 1_000 + number)).collect();
        hold(&pool, &holds).await;
    }
    database.run("analyze orchestrator.holds").await;
    let (mut passed, mut from_us, since) = (0, None, Instant::now());
    loop {
        let now = pass(&pool, at_once, &mut from_us).await.len() as u64;
        passed += now;
        if now == 0 {
            break;
        }
    }
    println!("{passed} holds passed in {:?}", since.elapsed());
    pool.close().await;
    // The statistics of a connection are there once it has ended.
    let sql = "(select from pg_stat_user_indexes, generate_series(1, idx_tup_read)
                where indexrelname = 'holds_by_downstream') as entry";
    let mut read = 0;
    for _ in 0..100 {
        let now = database.count(sql).await;
        if now >= i64::try_from(holds).unwrap() && now == read {
            break;
        }
        read = now;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    (passed, read)
}

#[tokio::test]
async fn holds_that_have_passed_are_not_walked_over_again() {
    let database = Database::fresh().await;
    let (passed, read) = entries_read(&database, 10_000, 100).await;
    assert_eq!(passed, 10_000);
    // Of those that came at the same time, ten times as many as pass at once: each is met some five times.
    assert!((10_000..80_000).contains(&read), "{read} entries were read for 10,000 holds");
}

#[tokio::test]
#[ignore = "a figure for docs/performance.md"]
async fn a_hundred_thousand_holds_pass() {
    let (passed, read) = entries_read(&Database::fresh().await, 100_000, 1_000).await;
    println!("{passed} holds, {read} entries of the index read");
}
