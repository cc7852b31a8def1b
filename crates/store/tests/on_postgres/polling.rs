//! The outbox as a relay reads it that polls.

use events::Record;
use events::position::LastRow;
use store::outbox::append;
use store::polling::{Reader, horizon, place};
use store::reader::{self, Way};
use store::{Pool, Role, slot};

use crate::database::{Database, record};

const ROWS_MAX: u32 = 100;
const BYTES_MAX: u64 = 1_000_000;

async fn commit(pool: &Pool, values: &[&str]) {
    let mut tx = pool.begin().await.unwrap();
    let records: Vec<Record> = values.iter().map(|value| record(value)).collect();
    append(&mut tx, &records).await.unwrap();
    tx.commit().await.unwrap();
}

/// The values after that row, the last row, and whether there are more now, or later.
async fn read(reader: &mut Reader, after: LastRow, rows_max: u32, bytes_max: u64) -> (Vec<String>, LastRow, [bool; 2]) {
    let page = reader.page(after, rows_max, bytes_max).await.unwrap();
    let values = page.rows.iter().map(|row| String::from_utf8(row.record.value.clone().unwrap()).unwrap());
    (values.collect(), page.rows.last().map_or(after, place), [page.has_more, page.has_waiting])
}

#[tokio::test]
async fn rows_of_open_transactions_and_all_behind_them_wait_and_none_is_passed_over() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let mut reader = Reader::connect(&database.pool(Role::Relay), 0).await.unwrap();
    commit(&pool, &["a", "b"]).await;
    let mut open = pool.begin().await.unwrap();
    append(&mut open, &[record("c")]).await.unwrap();
    commit(&pool, &["e"]).await;
    // The cluster is shared: other tests' transactions may be open for a moment.
    let first = async |reader: &mut Reader| {
        let (values, last, left) = read(reader, LastRow::default(), ROWS_MAX, BYTES_MAX).await;
        (values == ["a", "b"]).then_some((last, left))
    };
    let first = test_kit::eventually(crate::WITHIN, "a and b", async || first(&mut reader).await).await;
    assert_eq!(first.1, [false, true]);
    append(&mut open, &[record("d")]).await.unwrap();
    open.commit().await.unwrap();
    let rest = async |reader: &mut Reader| {
        let (values, _, left) = read(reader, first.0, ROWS_MAX, BYTES_MAX).await;
        (values == ["c", "d", "e"] && left == [false, false]).then_some(())
    };
    test_kit::eventually(crate::WITHIN, "c, d and e, in this order", async || rest(&mut reader).await).await;
}

#[tokio::test]
async fn a_page_is_bounded_by_rows_and_by_bytes_and_has_one_row_at_least() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let mut reader = Reader::connect(&database.pool(Role::Relay), 0).await.unwrap();
    let large = "x".repeat(10_000);
    commit(&pool, &["a", &large, "b", &large, "c"]).await;
    let all_there = async || {
        let (values, ..) = read(&mut reader, LastRow::default(), ROWS_MAX, BYTES_MAX).await;
        (values.len() == 5).then_some(())
    };
    test_kit::eventually(crate::WITHIN, "all rows", all_there).await;
    for (rows_max, bytes_max, lengths) in [(2, BYTES_MAX, vec![2, 2, 1]), (9, 5_000, vec![2, 2, 1]), (9, 1, vec![1; 5])]
    {
        let (mut last, mut seen) = (LastRow::default(), Vec::new());
        loop {
            let (values, place, [has_more, _]) = read(&mut reader, last, rows_max, bytes_max).await;
            seen.push(values.len());
            last = place;
            if !has_more {
                break;
            }
        }
        assert_eq!(seen, lengths, "{rows_max} rows, {bytes_max} bytes");
    }
}

#[tokio::test]
async fn one_reader_has_the_lock_until_its_connection_ends() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Relay);
    let mut first = Reader::connect(&pool, 0).await.unwrap();
    let mut second = Reader::connect(&pool, 0).await.unwrap();
    assert!(first.lock("a_outbox").await.unwrap());
    assert!(!second.lock("a_outbox").await.unwrap());
    assert!(second.lock("b_outbox").await.unwrap());
    first.close().await;
    let taken = async || second.lock("a_outbox").await.unwrap().then_some(());
    test_kit::eventually(crate::WITHIN, "the lock is free", taken).await;
    // Silent for too long.
    let mut silent = Reader::connect(&pool, 1).await.unwrap();
    let ended = async || silent.stay().await.is_err().then_some(());
    test_kit::eventually(crate::WITHIN, "the silent one is ended", ended).await;
}

#[tokio::test]
async fn the_choice_is_kept_and_what_is_confirmed_never_goes_back_but_by_a_recovery() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Relay);
    assert_eq!(reader::chosen(&pool).await.unwrap(), None);
    for way in [Way::Polling, Way::Logical, Way::Polling] {
        reader::choose(&pool, way).await.unwrap();
        assert_eq!(reader::chosen(&pool).await.unwrap(), Some(way));
    }
    let history = Reader::connect(&pool, 0).await.unwrap().history().await.unwrap();
    let at = |txid, seq| LastRow { txid, seq, began_micros: 7 };
    let other = store::relayed::History { timeline: history.timeline + 1, ..history };
    for (last, history, there) in [
        (at(9, 5), history, at(9, 5)),
        (at(9, 4), history, at(9, 5)),
        (at(8, 6), history, at(9, 5)),
        (at(10, 1), other, at(9, 5)),
        (at(10, 1), history, at(10, 1)),
    ] {
        reader::confirm(&pool, last, history).await.unwrap();
        assert_eq!(reader::confirmed(&pool).await.unwrap(), there, "{last:?}");
    }
    reader::settle(&pool, at(3, 0)).await.unwrap();
    assert_eq!(reader::confirmed(&pool).await.unwrap(), at(3, 0));
}

#[tokio::test]
async fn the_process_of_the_oldest_open_transaction_is_known() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Relay);
    let mut open = database.pool(Role::Ingest).begin().await.unwrap();
    append(&mut open, &[record("a")]).await.unwrap();
    // The cluster is shared: others may be older for a moment.
    let known = async || {
        let horizon = horizon(&pool).await.unwrap();
        (horizon.oldest < horizon.next && horizon.process.is_some()).then_some(())
    };
    test_kit::eventually(crate::WITHIN, "a process", known).await;
    open.rollback().await.unwrap();
}

#[tokio::test]
async fn only_a_slot_of_ours_that_nobody_uses_is_dropped() {
    let database = Database::fresh().await;
    let (pool, name) = (database.pool(Role::Relay), format!("{}_outbox", test_kit::prefix()));
    assert!(!slot::drop_unused(&pool, &name).await.unwrap());
    assert!(slot::create(&pool, &name).await.unwrap());
    let elsewhere = Database::fresh().await.pool(Role::Relay);
    assert!(!slot::drop_unused(&elsewhere, &name).await.unwrap());
    assert!(slot::drop_unused(&pool, &name).await.unwrap());
}
