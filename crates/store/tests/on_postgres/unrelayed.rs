use store::unrelayed::{Snapshot, guard};
use store::{Pool, Role, outbox};

use crate::database::{Database, record};

async fn append(pool: &Pool, values: &[&str]) {
    let mut tx = pool.begin().await.unwrap();
    let records: Vec<_> = values.iter().map(|value| record(value)).collect();
    outbox::append(&mut tx, &records).await.unwrap();
    tx.commit().await.unwrap();
}

/// All rows, page by page: their transactions' counts, and their values.
async fn read(outbox: &mut Snapshot) -> (Vec<u64>, Vec<String>) {
    let (mut counts, mut txids, mut after) = (vec![], vec![], None);
    loop {
        let page = outbox.written_after(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.origin);
        counts.extend(page.iter().map(|written| written.rows));
        txids.extend(page.iter().map(|written| written.origin.txid));
    }
    let (mut values, mut after) = (vec![], None);
    loop {
        let page = outbox.rows_after(&txids, after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.origin, last.seq));
        values.extend(page.into_iter().map(|row| String::from_utf8(row.record.value.unwrap()).unwrap()));
    }
    (counts, values)
}

#[tokio::test]
async fn the_outbox_is_read_in_order_with_what_was_set_aside() {
    let database = Database::fresh().await;
    let (ingest, relay) = (database.pool(Role::Ingest), database.pool(Role::Relay));
    append(&ingest, &["a", "b", "c"]).await;
    append(&ingest, &["d"]).await;
    // The hour is in the default partition, which is set aside for it.
    outbox::ensure_partitions(&relay, 1).await.unwrap();
    assert_eq!(database.count("outbox.messages").await, 0);
    append(&ingest, &["e", "f"]).await;

    let mut outbox = Snapshot::take(&relay, None).await.unwrap();
    append(&ingest, &["later"]).await;
    let expected = ["a", "b", "c", "d", "e", "f"].map(str::to_owned).to_vec();
    assert_eq!(read(&mut outbox).await, (vec![3, 1, 2], expected));
    let hours = outbox.hours().await.unwrap();
    let begin_ms = hours.begin_ms().unwrap();
    assert!(hours.keep(begin_ms) && hours.keep(begin_ms + 3 * 3_600_000) && !hours.keep(begin_ms - 1));
}

#[tokio::test]
async fn under_a_guard_no_table_of_the_outbox_goes() {
    let database = Database::fresh().await;
    let (ingest, relay) = (database.pool(Role::Ingest), database.pool(Role::Relay));
    append(&ingest, &["a"]).await;
    let kept = guard(&relay).await.unwrap();
    let made = outbox::ensure_partitions(&relay, 0).await;
    assert_eq!((made.unwrap_or(0), database.count("outbox.messages").await), (0, 1));
    drop(kept);
    outbox::ensure_partitions(&relay, 0).await.unwrap();
    assert_eq!(database.count("outbox.messages").await, 0);
}
