use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use store::outbox::{append, ensure_partitions, oldest_age_ms};
use store::relayed::{Delivered, Dropped, History, Watermark, drop_relayed, watermark};
use store::{Pool, Role};

use crate::database::{Database, record};

async fn append_one(pool: &Pool, value: &str) {
    let mut tx = pool.begin().await.unwrap();
    append(&mut tx, &[record(value)]).await.unwrap();
    tx.commit().await.unwrap();
}

/// A watermark above everything that was committed. Other tests' transactions on the same cluster hold it down
/// meanwhile.
async fn settled_watermark(database: &Database, relay: &Pool) -> Watermark {
    let newest: i64 = sqlx::query_scalar("select max(txid)::text::bigint from outbox.messages")
        .fetch_one(&mut database.superuser().await)
        .await
        .unwrap();
    let above = async || watermark(relay).await.ok().filter(|mark| mark.txid_below > newest.unsigned_abs());
    test_kit::eventually(Duration::from_secs(60), "the watermark rises", above).await
}

/// Delivered up to this place in the watermark's own history.
fn upto(mark: &Watermark, lsn: u64) -> Delivered {
    Delivered { history: mark.history, lsn }
}

/// Puts a partition of its own behind the rows of an hour long over, since created_at is Postgres' clock's: the default
/// of the column is replaced by that hour.
async fn work_in_hour(database: &Database, hours_ago: i64) {
    let statements = format!(
        "alter table outbox.messages alter created_at
            set default to_timestamp((extract(epoch from now())::bigint / 3600 - {hours_ago}) * 3600);
         do $$ declare hour bigint := extract(epoch from now())::bigint / 3600 - {hours_ago}; begin
            execute format('create table outbox.messages_p%s partition of outbox.messages
                for values from (to_timestamp(%s)) to (to_timestamp(%s))', hour, hour * 3600, (hour + 1) * 3600);
            execute format('alter table outbox.messages_p%s owner to meanwhile_relay', hour);
         end $$"
    );
    database.run(&statements).await;
}

#[tokio::test]
async fn records_keep_their_order_within_and_across_appends() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let values: Vec<String> = (0..300).map(|index| format!("{index:03}")).collect();
    let mut tx = pool.begin().await.unwrap();
    for chunk in values.chunks(100) {
        append(&mut tx, &chunk.iter().map(|value| record(value)).collect::<Vec<_>>()).await.unwrap();
    }
    append(&mut tx, &[]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(database.outbox_values().await, values);
}

#[tokio::test]
async fn what_is_null_stays_null() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Notifier);
    let mut tx = pool.begin().await.unwrap();
    append(&mut tx, &[events::record::Record { key: None, value: None, ..record("") }, record("")]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(database.count("outbox.messages where key is null and value is null").await, 1);
    assert_eq!(database.count("outbox.messages where key = 'key' and value = ''").await, 1);
}

#[tokio::test]
async fn hours_have_their_partitions_made_ahead_by_the_relay() {
    let database = Database::fresh().await;
    let relay = database.pool(Role::Relay);
    assert_eq!(ensure_partitions(&relay, 3).await.unwrap(), 4);
    assert_eq!(ensure_partitions(&relay, 3).await.unwrap(), 0);
    assert_eq!(ensure_partitions(&relay, 4).await.unwrap(), 1);
    append_one(&database.pool(Role::Ingest), "a").await;
    assert_eq!(database.count("outbox.messages_default").await, 0);
    assert_eq!(database.count("outbox.messages").await, 1);
}

#[tokio::test]
async fn two_relays_may_make_partitions_at_once() {
    let database = Database::fresh().await;
    let (one, other) = (database.pool(Role::Relay), database.pool(Role::Relay));
    let (made_by_one, made_by_other) = tokio::join!(ensure_partitions(&one, 8), ensure_partitions(&other, 8));
    assert_eq!(made_by_one.unwrap() + made_by_other.unwrap(), 9);
}

#[tokio::test]
async fn a_partition_goes_only_when_its_hour_is_over_and_everything_in_it_is_delivered() {
    let database = Database::fresh().await;
    let (relay, ingest) = (database.pool(Role::Relay), database.pool(Role::Ingest));
    ensure_partitions(&relay, 0).await.unwrap();
    append_one(&ingest, "this hour").await;
    work_in_hour(&database, 5).await;
    append_one(&ingest, "five hours ago").await;

    let mark = settled_watermark(&database, &relay).await;
    assert_eq!(
        drop_relayed(&relay, &mark, upto(&mark, mark.lsn - 1), 0).await.unwrap().partitions,
        [""; 0],
        "not delivered yet"
    );
    assert_eq!(
        drop_relayed(&relay, &mark, upto(&mark, mark.lsn), 6 * 3_600_000).await.unwrap().partitions,
        [""; 0],
        "to be kept"
    );

    append_one(&ingest, "after the watermark").await;
    assert_eq!(
        drop_relayed(&relay, &mark, upto(&mark, mark.lsn), 0).await.unwrap().partitions,
        [""; 0],
        "a row above the mark"
    );

    let mark = settled_watermark(&database, &relay).await;
    let dropped = drop_relayed(&relay, &mark, upto(&mark, mark.lsn), 0).await.unwrap();
    assert_eq!((dropped.partitions.len(), dropped.busy), (1, 0));
    assert_eq!(database.outbox_values().await, ["this hour"]);
}

#[tokio::test]
async fn what_was_delivered_before_a_promotion_drops_nothing_after_it() {
    let database = Database::fresh().await;
    let (relay, ingest) = (database.pool(Role::Relay), database.pool(Role::Ingest));
    append_one(&ingest, "this hour, no partition").await;
    work_in_hour(&database, 5).await;
    append_one(&ingest, "five hours ago").await;
    let mark = settled_watermark(&database, &relay).await;

    // A relay that has delivered more of the old primary's log than the new one has.
    let promoted = |history: History| History { timeline: history.timeline + 1, ..history };
    let elsewhere = |history: History| History { system_identifier: history.system_identifier ^ 1, ..history };
    for other in [promoted(mark.history), elsewhere(mark.history)] {
        let delivered = Delivered { history: other, lsn: u64::MAX };
        assert_eq!(drop_relayed(&relay, &mark, delivered, 0).await.unwrap(), Dropped::default());
        // The watermark is of that other history, too: the connection leads to another server by now.
        let mark = Watermark { history: other, ..mark };
        assert_eq!(drop_relayed(&relay, &mark, delivered, 0).await.unwrap(), Dropped::default());
    }
    let dropped = drop_relayed(&relay, &mark, upto(&mark, mark.lsn), 0).await.unwrap();
    assert_eq!((dropped.partitions.len(), dropped.default_rows), (1, 1));
}

#[tokio::test]
async fn a_transaction_that_still_writes_keeps_its_partition() {
    let database = Database::fresh().await;
    let (relay, ingest) = (database.pool(Role::Relay), database.pool(Role::Ingest));
    work_in_hour(&database, 5).await;
    let mut writing = ingest.begin().await.unwrap();
    append(&mut writing, &[record("slow")]).await.unwrap();
    append_one(&ingest, "quick").await;

    // The slow one is open: the watermark stays below it, and the quick one above the watermark.
    let mark = watermark(&relay).await.unwrap();
    let dropped = drop_relayed(&relay, &mark, upto(&mark, u64::MAX), 0).await.unwrap();
    assert_eq!((dropped.partitions.len(), dropped.busy), (0, 0));

    writing.commit().await.unwrap();
    let mark = settled_watermark(&database, &relay).await;
    let mut late = ingest.begin().await.unwrap();
    append(&mut late, &[record("late")]).await.unwrap();
    // Nothing above the mark is visible, but a writer holds the partition: locking it takes too long.
    let dropped = drop_relayed(&relay, &mark, upto(&mark, u64::MAX), 0).await.unwrap();
    assert_eq!((dropped.partitions.len(), dropped.busy), (0, 1));
    late.commit().await.unwrap();
    let dropped = drop_relayed(&relay, &mark, upto(&mark, u64::MAX), 0).await.unwrap();
    assert_eq!((dropped.partitions.len(), dropped.busy), (0, 0), "now it is visible");
    assert_eq!(database.outbox_values().await.len(), 3);
}

#[tokio::test]
async fn a_row_that_is_committed_while_the_drop_waits_for_its_lock_is_seen() {
    let database = Database::fresh().await;
    let (relay, ingest) = (database.pool(Role::Relay), database.pool(Role::Ingest));
    work_in_hour(&database, 5).await;
    append_one(&ingest, "delivered").await;
    // The drop gives up soon, so on a busy machine it takes more than one try to commit in between.
    for _ in 0..50 {
        let mark = settled_watermark(&database, &relay).await;
        let mut late = ingest.begin().await.unwrap();
        append(&mut late, &[record("late")]).await.unwrap();
        let dropping = tokio::spawn({
            let relay = relay.clone();
            async move { drop_relayed(&relay, &mark, upto(&mark, u64::MAX), 0).await.unwrap() }
        });
        let waits = async || {
            let waiting = "pg_locks where not granted and relation = 'outbox.messages'::regclass";
            (dropping.is_finished() || database.count(waiting).await > 0).then_some(())
        };
        test_kit::eventually(Duration::from_secs(60), "the drop waits for its lock", waits).await;
        late.commit().await.unwrap();
        let dropped = dropping.await.unwrap();
        assert_eq!(dropped.partitions, [""; 0], "the row that came late is not delivered");
        if dropped.busy == 0 {
            return;
        }
    }
    panic!("the drop never got its lock");
}

#[tokio::test]
async fn rows_of_the_default_partition_go_one_by_one() {
    let database = Database::fresh().await;
    let (relay, ingest) = (database.pool(Role::Relay), database.pool(Role::Ingest));
    append_one(&ingest, "delivered").await;
    let mark = settled_watermark(&database, &relay).await;
    append_one(&ingest, "not delivered").await;
    assert_eq!(drop_relayed(&relay, &mark, upto(&mark, 0), 0).await.unwrap().default_rows, 0);
    assert_eq!(
        drop_relayed(&relay, &mark, upto(&mark, mark.lsn), 3_600_000).await.unwrap().default_rows,
        0,
        "to be kept"
    );
    assert_eq!(drop_relayed(&relay, &mark, upto(&mark, mark.lsn), 0).await.unwrap().default_rows, 1);
    assert_eq!(database.outbox_values().await, ["not delivered"]);
}

/// Fills the default partition as it is after hours in which no relay made partitions.
async fn strand(database: &Database, rows: u32) {
    let statement = format!(
        "insert into outbox.messages (created_at, topic, value, headers)
         select now() - ({rows} - number) * interval '10 milliseconds', 't', repeat('x', 300)::bytea, ''
         from generate_series(1, {rows}) as number"
    );
    database.run(&statement).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_made_under_load_however_many_rows_the_default_partition_holds() {
    let database = Database::fresh().await;
    let relay = database.pool(Role::Relay);
    strand(&database, 300_000).await;
    let writing = Arc::new(AtomicBool::new(true));
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (ingest, writing) = (database.pool(Role::Ingest), Arc::clone(&writing));
        writers.spawn(async move {
            let mut written = 0;
            while writing.load(Ordering::Relaxed) {
                let mut tx = ingest.begin().await.unwrap();
                append(&mut tx, &[record("meanwhile")]).await.unwrap();
                tx.commit().await.unwrap();
                written += 1;
            }
            written
        });
    }
    assert_eq!(ensure_partitions(&relay, 3).await.unwrap(), 4, "this hour's, too");
    assert_eq!(ensure_partitions(&relay, 3).await.unwrap(), 0);
    writing.store(false, Ordering::Relaxed);
    let written: i64 = writers.join_all().await.iter().sum();
    assert_eq!(database.count("outbox.messages_default").await, 0);
    let aside: String = sqlx::query_scalar("select relname from pg_class where relname ~ '^messages_aside_[0-9]+$'")
        .fetch_one(&mut database.superuser().await)
        .await
        .unwrap();
    let both = database.count("outbox.messages").await + database.count(&format!("outbox.{aside}")).await;
    assert_eq!(both, 300_000 + written);
    assert!(oldest_age_ms(&relay, 0).await.unwrap().unwrap() > 2_900_000, "the rows set aside wait, too");

    let mark = settled_watermark(&database, &relay).await;
    let dropped = drop_relayed(&relay, &mark, upto(&mark, mark.lsn), 3_600_000).await.unwrap();
    assert_eq!(dropped, Dropped::default(), "to be kept");
    let dropped = drop_relayed(&relay, &mark, upto(&mark, mark.lsn), 0).await.unwrap();
    assert_eq!(dropped.partitions, [format!("outbox.{aside}")]);
}

#[tokio::test]
async fn rows_that_were_set_aside_stay_until_they_are_delivered() {
    let database = Database::fresh().await;
    let (relay, ingest) = (database.pool(Role::Relay), database.pool(Role::Ingest));
    append_one(&ingest, "before").await;
    let mark = settled_watermark(&database, &relay).await;
    append_one(&ingest, "not delivered").await;
    assert_eq!(ensure_partitions(&relay, 1).await.unwrap(), 2);
    let dropped = drop_relayed(&relay, &mark, upto(&mark, mark.lsn), 0).await.unwrap();
    assert_eq!(dropped, Dropped::default());
    // And once more, at another time.
    append_one(&ingest, "after").await;
    database.run("alter table outbox.messages alter created_at set default now() - interval '9 hours'").await;
    strand_now(&database).await;
    assert_eq!(ensure_partitions(&relay, 1).await.unwrap(), 0);
    let mark = settled_watermark(&database, &relay).await;
    let dropped = drop_relayed(&relay, &mark, upto(&mark, mark.lsn), 0).await.unwrap();
    assert_eq!((dropped.partitions.len(), dropped.default_rows), (2, 0));
    assert_eq!(database.outbox_values().await, ["after"]);
}

/// More than is deleted row by row, and no partition is missing.
async fn strand_now(database: &Database) {
    let statement = "insert into outbox.messages (topic, value, headers)
        select 't', repeat('x', 300)::bytea, '' from generate_series(1, 20000)";
    database.run(statement).await;
}

#[tokio::test]
async fn the_age_is_that_of_the_oldest_row_from_a_transaction_on() {
    let database = Database::fresh().await;
    let (relay, ingest) = (database.pool(Role::Relay), database.pool(Role::Ingest));
    assert_eq!(oldest_age_ms(&relay, 0).await.unwrap(), None);
    work_in_hour(&database, 5).await;
    append_one(&ingest, "old").await;
    let mark = settled_watermark(&database, &relay).await;
    assert!(oldest_age_ms(&relay, 0).await.unwrap().unwrap() >= 4 * 3_600_000);
    assert_eq!(oldest_age_ms(&relay, mark.txid_below).await.unwrap(), None);
}
