//! What only relays that poll the table have to get right.

use events::headers::Headers;
use std::collections::BTreeMap;

use bus::Producer;
use events::Record;
use events::position::{LastRow, Position};
use store::outbox;
use store::reader::Way;
use store::{Pool, Role};
use test_kit::{Postgres, PostgresOptions, psql};

use crate::stage::{Stage, WITHIN};

async fn stage() -> Stage {
    Stage::by(Way::Polling).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_transaction_that_commits_late_are_not_passed_over() {
    let stage = stage().await;
    let mut relay = stage.start();
    stage.commit(0..2).await;
    relay.relayed(2).await;
    let mut early = stage.pool.begin().await.unwrap();
    outbox::append(&mut early, &[stage.record(2, 3), stage.record(3, 3)]).await.unwrap();
    // Committed before those, with a later id: without the bound it would be read, and those would be behind.
    stage.commit(4..6).await;
    relay.says("horizon", false, "rows wait for transaction").await;
    assert_eq!(stage.position().await.relayed, 2);
    early.commit().await.unwrap();
    relay.relayed(6).await;
    relay.says("horizon", true, "").await;
    stage.assert_once_in_order(6).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_named_with_what_ends_it() {
    let stage = stage().await;
    let relay = stage.start();
    let mut open = stage.pool.begin().await.unwrap();
    outbox::append(&mut open, &[stage.record(9, 3)]).await.unwrap();
    stage.commit(0..3).await;
    let said = relay.says("horizon", false, "pg_terminate_backend").await;
    assert!(!relay.readiness.is_ready());
    let (_, end) = said.split_once("end it: ").unwrap();
    let mut relay = relay;
    psql(&stage.database_url, end).unwrap();
    relay.relayed(3).await;
    relay.says("horizon", true, "").await;
    stage.assert_once_in_order(3).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_rows_are_heard_of_also_after_the_listening_connection_was_lost() {
    let mut stage = stage().await;
    // It looks by itself after an hour only.
    stage.config.status_interval_ms = 3_600_000;
    stage.config.wal_sender_timeout_ms = 0;
    let mut relay = stage.start();
    let listening = "from pg_stat_activity where datname = current_database() and query ilike 'listen %'";
    let mut rows = 0;
    for round in 0..3 {
        let listens = async || {
            let count = psql(&stage.database_url, &format!("select count(*) {listening}")).unwrap();
            (count == "1").then_some(())
        };
        test_kit::eventually(WITHIN, "the relay listens", listens).await;
        stage.commit(rows..rows + 3).await;
        rows += 3;
        relay.relayed(rows).await;
        if round < 2 {
            psql(&stage.database_url, &format!("select pg_terminate_backend(pid) {listening}")).unwrap();
        }
    }
    stage.assert_once_in_order(rows).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_notified_where_relays_read_the_log() {
    let stage = Stage::apart(&test_kit::kafka().await, Way::Logical).await;
    assert!(!outbox::announce(&stage.pool).await);
    stage.choose(Way::Polling).await;
    let other = Pool::open(&store::Settings::new(&stage.database_url), Role::Orchestrator).unwrap();
    assert!(outbox::announce(&other).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_set_aside_are_delivered_in_their_turn() {
    let stage = stage().await;
    // Nobody has made partitions yet, so these lie in the default one.
    stage.commit(0..10).await;
    let aside = "alter table outbox.messages detach partition outbox.messages_default;
        alter table outbox.messages_default rename to messages_aside_1;
        create table outbox.messages_default (like outbox.messages including all);
        alter table outbox.messages_default owner to meanwhile_relay;
        alter table outbox.messages attach partition outbox.messages_default default";
    psql(&stage.database_url, aside).unwrap();
    stage.commit(10..20).await;
    let mut relay = stage.start();
    relay.relayed(20).await;
    stage.assert_once_in_order(20).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_of_reading_is_changed_and_changed_back_under_load_with_a_transaction_open_across() {
    let stage = Stage::apart(&test_kit::kafka().await, Way::Logical).await;
    let mut relay = stage.start();
    stage.commit(0..5).await;
    relay.relayed(5).await;
    let mut rows = 5;
    for way in [Way::Polling, Way::Logical, Way::Polling] {
        // Open across the change, with an id below those that are delivered before it.
        let mut open = stage.pool.begin().await.unwrap();
        outbox::append(&mut open, &[stage.record(rows, 1)]).await.unwrap();
        stage.commit_records(&[record(&stage, rows + 1), record(&stage, rows + 2)]).await;
        if way == Way::Polling {
            relay.relayed(rows + 2).await;
        }
        if way == Way::Logical {
            // What is made beside an open transaction waits for it; so does this slot.
            open.commit().await.unwrap();
            store::slot::create(&stage.pool, &stage.slot()).await.unwrap();
            stage.choose(way).await;
        } else {
            stage.choose(way).await;
            relay.says("slot", false, "another way").await;
            open.commit().await.unwrap();
        }
        stage.commit_records(&[record(&stage, rows + 3)]).await;
        rows += 4;
        relay.relayed(rows).await;
        // It may have gone in the old way still: the choice is looked at from time to time.
        while stage.position().await.last_row.is_some() != (way == Way::Polling) {
            stage.commit_records(&[record(&stage, rows)]).await;
            rows += 1;
            relay.relayed(rows).await;
        }
    }
    let mut seen = BTreeMap::<u64, u64>::new();
    for record in stage.read(&stage.topics.steps(crate::stage::QUEUE)).await {
        *seen.entry(crate::stage::number(&record)).or_default() += 1;
    }
    assert_eq!(seen, (0..rows).map(|number| (number, 1)).collect());
    let slots = async || {
        let slots = format!("select count(*) from pg_replication_slots where slot_name = '{}'", stage.slot());
        (psql(&stage.database_url, &slots).unwrap() == "0").then_some(())
    };
    test_kit::eventually(WITHIN, "the slot is dropped, since it would keep log", slots).await;
    relay.stop().await;
}

/// A key of its own: the order across the change is that of transaction ids.
fn record(stage: &Stage, number: u64) -> Record {
    Record { key: Some(format!("alone {number}").into_bytes()), ..stage.record(number, 1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_does_not_fit_the_outbox_is_refused() {
    let stage = stage().await;
    let mut relay = stage.start();
    stage.commit(0..3).await;
    relay.relayed(3).await;
    let confirmed =
        async || (psql(&stage.database_url, "select txid > '0' from outbox.reader").unwrap() == "t").then_some(());
    test_kit::eventually(WITHIN, "the database knows what is on Kafka", confirmed).await;
    relay.stop().await;
    let ours = stage.position().await;
    let last = ours.last_row.unwrap();
    let at = |last_row: LastRow| Position { last_row: Some(last_row), ..ours };
    for (position, said) in [
        (Position { system_identifier: 1, ..ours }, "of database system 1,"),
        (Position { timeline: 9, ..ours }, "of timeline 9,"),
        // Restored, and gone on: other rows have the ids.
        (at(LastRow { began_micros: last.began_micros + 1, ..last }), "restored from a backup"),
        (at(LastRow { txid: last.txid + 1_000_000, ..last }), "restored from a backup"),
        (at(LastRow { txid: last.txid + 1, seq: 0, began_micros: 0 }), "restored from a backup"),
        (at(LastRow { txid: last.txid - 1, ..last }), "Kafka was restored from a backup, or the position was moved"),
    ] {
        put(&stage, position).await;
        let relay = stage.start();
        let message = relay.says("position", false, said).await;
        assert!(message.contains("run `meanwhile relay recover`"), "{message}");
        assert!(relay.delivered.borrow().is_none());
        relay.stop().await;
    }
    put(&stage, ours).await;
    stage.commit(3..6).await;
    let mut relay = stage.start();
    relay.relayed(6).await;
    stage.assert_once_in_order(6).await;
    relay.stop().await;
}

async fn put(stage: &Stage, position: Position) {
    let (key, value) = (Some(stage.slot().into_bytes()), Some(position.to_json()));
    let record = Record { topic: stage.topics.relay(), key, value, headers: Headers::default() };
    Producer::new(&stage.kafka).unwrap().send(&record).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_logical_decoding_and_a_login_without_rights_are_enough() {
    let settings = vec![("wal_level".to_owned(), "replica".to_owned())];
    let postgres = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() }).await.unwrap();
    let url = postgres.create_database("outbox").unwrap();
    let mut stage = Stage::on_by(&test_kit::kafka().await, url, Way::Polling).await;
    psql(&stage.database_url, "create role plain login in role meanwhile_relay").unwrap();
    stage.database_url = stage.database_url.replace("postgres://postgres@", "postgres://plain@");
    let mut relay = stage.start();
    stage.commit(0..10).await;
    relay.relayed(10).await;
    assert!(relay.readiness.is_ready());
    stage.assert_once_in_order(10).await;
    relay.stop().await;
}
