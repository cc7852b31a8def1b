//! The ways out where the relay refuses to go on: `meanwhile relay recover`, and what heals by itself.

use events::headers::Headers;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};

use bus::{Producer, TopicPartition};
use events::position::{LastRow, Lsn, Position};
use events::{Record, header};
use relay::Relay;
use relay::recover::{Older, Options, Report};
use relay::seam::{Seam, Seams};
use service_kit::{CancellationToken, Clock, Readiness};
use store::reader::Way;
use test_kit::{Postgres, PostgresOptions, psql};

use crate::stage::{QUEUE, Stage, WITHIN, either_way, number};

either_way!(
    a_recovery_that_is_cut_off_anywhere_is_begun_again_and_repeats_nothing,
    after_a_promotion_what_the_old_primary_had_not_delivered_is_sent,
    what_kafka_knows_and_the_promoted_standby_does_not_is_said_by_job,
    after_a_restore_from_a_base_backup_nothing_is_sent_twice,
    what_was_delivered_and_deleted_from_kafka_is_not_sent_again,
);

/// What a relay says that needs a person.
const REMEDY: &str = "`meanwhile relay recover`";

async fn recover_with(stage: &Stage, options: Options, seams: Seams) -> anyhow::Result<Report> {
    let readiness = Readiness::new(Clock::system(), "recover");
    let relay = Relay::new(stage.settings(seams), readiness, Clock::system()).unwrap();
    relay.recover(options, &CancellationToken::new()).await
}

async fn recover(stage: &Stage) -> Report {
    let report = recover_with(stage, Options::default(), Seams::default()).await.unwrap();
    assert!(report.settled_at.is_some(), "{report}");
    report
}

fn drop_slot(stage: &Stage) {
    psql(&stage.database_url, &format!("select pg_drop_replication_slot('{}')", stage.slot())).unwrap();
}

/// Loses what says how far the outbox was delivered.
async fn lose(stage: &Stage, way: Way) {
    match way {
        Way::Logical => drop_slot(stage),
        Way::Polling => {
            let position = stage.position().await;
            let last = position.last_row.unwrap();
            let another = LastRow { began_micros: last.began_micros + 1, ..last };
            put(stage, &Position { last_row: Some(another), ..position }).await;
        }
    }
}

/// The dependency by which a relay refuses then.
fn refusal(way: Way) -> &'static str {
    match way {
        Way::Logical => "slot",
        Way::Polling => "position",
    }
}

/// Delivers what is committed, with a relay that leaves then.
async fn deliver(stage: &Stage, upto: u64) {
    let mut relay = stage.start();
    relay.relayed(upto).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_slot_had_not_delivered_is_sent_once_while_a_relay_waits() {
    let stage = Stage::new().await;
    stage.commit(0..20).await;
    deliver(&stage, 20).await;
    stage.commit(20..25).await;
    stage.commit(25..30).await;
    drop_slot(&stage);
    let mut relay = stage.start();
    relay.says("slot", false, REMEDY).await;

    let dry = Options { dry_run: true, ..Options::default() };
    let told = recover_with(&stage, dry, Seams::default()).await.unwrap();
    assert_eq!((told.transactions, told.rows, told.rows_there, told.rows_missing()), (3, 30, 20, 10), "{told}");
    assert!(told.reason.as_ref().unwrap().contains("is missing") && told.settled_at.is_none(), "{told}");
    relay.says("slot", false, REMEDY).await;

    let done = recover(&stage).await;
    assert_eq!((done.rows_missing(), &done.missing, done.ahead.len()), (10, &told.missing, 0), "{done}");
    stage.commit(30..40).await;
    relay.relayed(40).await;
    relay.says("slot", true, "").await;
    stage.assert_once_in_order(40).await;
    let again = recover_with(&stage, Options::default(), Seams::default()).await.unwrap();
    assert_eq!(again, Report::default(), "nothing to recover");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_stream_left_out_without_an_error_are_found_when_the_publication_is_another() {
    let stage = Stage::new().await;
    stage.commit(0..5).await;
    deliver(&stage, 5).await;
    stage.commit(5..10).await;
    // As from Postgres 18 on, which passes over rows of a time without publication.
    psql(&stage.database_url, "drop publication meanwhile_outbox").unwrap();
    let move_on = format!("select pg_replication_slot_advance('{}', pg_current_wal_lsn())", stage.slot());
    psql(&stage.database_url, &move_on).unwrap();
    let position = stage.position().await;
    let end_lsn = psql(&stage.database_url, "select pg_current_wal_lsn()").unwrap().parse().unwrap();
    put_by(&stage, &Position { end_lsn, ..position }, Some(1)).await;
    assert!(store::slot::publish(&stage.pool).await.unwrap());
    stage.commit(10..15).await;
    deliver(&stage, 15).await;
    stage.assert_once_in_order(15).await;
}

async fn what_was_delivered_and_deleted_from_kafka_is_not_sent_again(way: Way) {
    let stage = Stage::by(way).await;
    stage.commit(0..20).await;
    deliver(&stage, 20).await;
    let steps = stage.topics.steps(QUEUE);
    let ends: Vec<(TopicPartition, i64)> =
        stage.admin().end_offsets(std::slice::from_ref(&steps)).await.unwrap().into_iter().collect();
    stage.admin().delete_records(&ends).await.unwrap();
    stage.commit(20..30).await;
    lose(&stage, way).await;
    // As an operator may have done on the way.
    store::slot::create(&stage.pool, &stage.slot()).await.unwrap();
    stage.commit(30..35).await;
    let mut relay = stage.start();
    relay.says("position", false, REMEDY).await;
    let report = recover(&stage).await;
    assert_eq!((report.rows_there, report.rows_missing()), (20, 15), "{report}");
    stage.commit(35..40).await;
    relay.relayed(40).await;
    let mut numbers: Vec<u64> = stage.read(&steps).await.iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (20..40).collect::<Vec<_>>());
    relay.stop().await;
}

/// Ends the process of delivering at the `nth` pass of a seam, and at each one after it.
fn cut_from(seam: Seam, nth: u32) -> Seams {
    let passes = AtomicU32::new(0);
    Seams::new(move |passed| {
        let cut = passed == seam && passes.fetch_add(1, Ordering::Relaxed) + 1 >= nth;
        if cut { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

async fn a_recovery_that_is_cut_off_anywhere_is_begun_again_and_repeats_nothing(way: Way) {
    let mut stage = Stage::by(way).await;
    stage.config.transaction_rows_max = 4;
    stage.commit(0..10).await;
    deliver(&stage, 10).await;
    // One commit of which only a part was delivered.
    stage.commit(10..30).await;
    let partly = stage.start_with(cut_from(Seam::BeforeSend, 3));
    // A commit in the log comes at once, and so in full transactions; rows of a table come one by one.
    let two = if way == Way::Logical { 18..19 } else { 11..19 };
    let sent = async || stage.read(&stage.topics.steps(QUEUE)).await.len();
    let part = async || two.contains(&sent().await).then_some(());
    test_kit::eventually(WITHIN, "two of five transactions", part).await;
    partly.stop().await;
    let there = sent().await as u64;
    assert!(two.contains(&(there as usize)), "{there}");
    assert!(way == Way::Polling || stage.position().await.partial.is_some());
    stage.commit(30..50).await;
    lose(&stage, way).await;

    let mut rows = 50;
    for (seam, nth) in
        [(Seam::BeforeSend, 1), (Seam::BeforeCommit, 2), (Seam::AfterCommit, 2), (Seam::BeforeAcknowledge, 2)]
    {
        let cut = recover_with(&stage, Options::default(), cut_from(seam, nth)).await;
        assert!(cut.is_err(), "{seam:?}: {cut:?}");
        let relay = stage.start();
        relay.says("position", false, "was begun").await;
        relay.stop().await;
        stage.commit([rows]).await;
        rows += 1;
    }
    let report = recover(&stage).await;
    assert!(report.rows_missing() < rows - there, "{report}");
    stage.commit([rows]).await;
    deliver(&stage, rows + 1).await;
    stage.assert_once_in_order(rows + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_time_of_which_nothing_is_named_wait_for_an_answer() {
    for (older, sent) in [(Older::Delivered, 0), (Older::Missing, 3)] {
        let stage = Stage::new().await;
        stage.commit(0..3).await;
        // A version that named nothing has delivered some rows, or others.
        let identity = psql(&stage.database_url, "select system_identifier from pg_control_system()").unwrap();
        let position = Position {
            system_identifier: identity.parse().unwrap(),
            timeline: 1,
            end_lsn: Lsn(1),
            partial: None,
            last_row: None,
            relayed: 7,
            at_ms: Clock::system().now_ms(),
        };
        put(&stage, &position).await;
        let undecided = recover_with(&stage, Options::default(), Seams::default()).await.unwrap();
        assert!(undecided.is_undecided(Older::Refuse) && undecided.settled_at.is_none(), "{undecided}");
        assert!(undecided.to_string().contains("older    3 rows"), "{undecided}");
        let options = Options { older, ..Options::default() };
        let report = recover_with(&stage, options, Seams::default()).await.unwrap();
        assert_eq!((report.rows_missing(), report.settled_at.is_some()), (sent, true), "{report}");
        stage.commit(3..5).await;
        deliver(&stage, 7 + sent + 2).await;
        assert_eq!(stage.read(&stage.topics.steps(QUEUE)).await.len() as u64, sent + 2);
    }
}

async fn put(stage: &Stage, position: &Position) {
    put_by(stage, position, None).await;
}

/// The same as a relay wrote it that streamed by that publication.
async fn put_by(stage: &Stage, position: &Position, publication: Option<u32>) {
    let (key, value) = (Some(stage.slot().into_bytes()), Some(position.to_json()));
    let header = |id: u32| (header::RELAY_PUBLICATION.to_owned(), Some(id.to_string().into_bytes()));
    let headers = publication.map(header).into_iter().collect();
    let record = Record { topic: stage.topics.relay(), key, value, headers };
    Producer::new(&stage.kafka).unwrap().send(&record).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_its_position_is_refused_even_when_its_log_has_come_so_far() {
    // A log that no other test writes to: it would come so far by itself.
    let stage = Stage::apart(&test_kit::kafka().await, Way::Logical).await;
    stage.commit(0..3).await;
    deliver(&stage, 3).await;
    let position = stage.position().await;
    put(&stage, &Position { end_lsn: Lsn(position.end_lsn.0 + 1_000_000), ..position }).await;
    stage.commit(3..6).await;
    let relay = stage.start();
    relay.says("position", false, "restored from a backup").await;
    relay.stop().await;
    psql(&stage.database_url, "select pg_logical_emit_message(false, 'x', repeat('x', 2000000))").unwrap();
    let relay = stage.start();
    relay.says("position", false, "restored from a backup").await;
    relay.stop().await;
    assert_eq!(recover(&stage).await.rows_missing(), 3);
    stage.commit(6..8).await;
    deliver(&stage, 8).await;
    stage.assert_once_in_order(8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_made_again_by_hand_is_enough() {
    let stage = Stage::new().await;
    let mut relay = stage.start();
    stage.commit(0..5).await;
    relay.relayed(5).await;
    psql(&stage.database_url, "drop publication meanwhile_outbox").unwrap();
    stage.commit(5..10).await;
    relay.says("slot", false, "the publication meanwhile_outbox is missing; run `meanwhile migrate`").await;
    stage.commit(10..15).await;
    let by_hand = "create publication meanwhile_outbox for table outbox.messages";
    psql(&stage.database_url, by_hand).unwrap();
    // Rows would come under the name of a partition.
    relay.says("slot", false, "does not publish the inserts of outbox.messages").await;
    psql(&stage.database_url, "drop publication meanwhile_outbox").unwrap();
    assert!(store::slot::publish(&stage.pool).await.unwrap());
    assert!(!store::slot::publish(&stage.pool).await.unwrap());
    stage.commit(15..20).await;
    relay.relayed(20).await;
    relay.says("slot", true, "").await;
    stage.commit(20..25).await;
    relay.relayed(25).await;
    stage.assert_once_in_order(25).await;
    relay.stop().await;
}

/// A primary with an outbox.
async fn primary(way: Way) -> (Postgres, Stage) {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let stage = Stage::on_by(&test_kit::kafka().await, postgres.create_database("outbox").unwrap(), way).await;
    (postgres, stage)
}

async fn after_a_promotion_what_the_old_primary_had_not_delivered_is_sent(way: Way) {
    let (mut postgres, stage) = primary(way).await;
    let standby = postgres.standby(true).await.unwrap();
    let mut relay = stage.start();
    stage.commit(0..20).await;
    relay.relayed(20).await;
    relay.stop().await;
    stage.commit(20..30).await;
    postgres.fail_over(standby).await.unwrap();
    let mut relay = stage.start();
    relay.says(refusal(way), false, REMEDY).await;
    stage.commit(30..35).await;
    let report = recover(&stage).await;
    assert_eq!((report.rows_missing(), report.ahead.len()), (15, 0), "{report}");
    stage.commit(35..40).await;
    relay.relayed(40).await;
    stage.assert_once_in_order(40).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_that_kept_the_slot_needs_no_person() {
    let (mut postgres, mut stage) = primary(Way::Logical).await;
    stage.config.idle_position_interval_ms = 100;
    let standby = postgres.standby(true).await.unwrap();
    let mut relay = stage.start();
    stage.commit(0..20).await;
    relay.relayed(20).await;
    // The standby has the log from its own begin only.
    let begin = psql(&standby.url("postgres"), "select pg_last_wal_replay_lsn()").unwrap();
    let sql = format!("checkpoint; select restart_lsn > '{begin}' from pg_replication_slots where not temporary");
    let kept = async || (psql(&stage.database_url, &sql).unwrap() == "t").then_some(());
    test_kit::eventually(WITHIN, "the slot needs no older log", kept).await;
    psql(&stage.database_url, "checkpoint").unwrap();
    // The relay notes that the log has grown, though not by rows; the standby does not hear of it.
    standby.pause();
    psql(&stage.database_url, "select pg_logical_emit_message(false, 'x', repeat('x', 100000))").unwrap();
    let grown = psql(&stage.database_url, "select pg_switch_wal()").unwrap().parse::<Lsn>().unwrap();
    let noted = async || (stage.position().await.end_lsn >= grown).then_some(());
    test_kit::eventually(WITHIN, "the position follows the log", noted).await;
    postgres.fail_over_with_slots(standby).await.unwrap();
    for round in 0..2 {
        stage.commit(20 + 10 * round..30 + 10 * round).await;
        relay.relayed(30 + 10 * round).await;
        assert_eq!(stage.position().await.timeline, 2);
        relay.stop().await;
        relay = stage.start();
    }
    stage.assert_once_in_order(40).await;
    relay.stop().await;
}

/// A record with the ids that ours have.
fn identified(stage: &Stage, number: u64, job: &str, message: &str) -> Record {
    let headers = Headers::from([(header::JOB_ID, Some(job)), (header::MESSAGE_ID, Some(message))]);
    Record { headers, ..stage.record(number, 1) }
}

async fn what_kafka_knows_and_the_promoted_standby_does_not_is_said_by_job(way: Way) {
    const JOB: &str = "0190a5c1-0000-7000-8000-000000000001";
    let (mut postgres, stage) = primary(way).await;
    let mut standby = postgres.standby(false).await.unwrap();
    stage.commit(0..5).await;
    deliver(&stage, 5).await;
    standby.cut_off().await.unwrap();
    let (fifth, sixth) = (identified(&stage, 5, JOB, "slip-5"), identified(&stage, 6, JOB, "slip-6"));
    stage.commit_records(std::slice::from_ref(&fifth)).await;
    stage.commit_records(&[sixth, stage.record(7, 1)]).await;
    deliver(&stage, 8).await;
    postgres.fail_over(standby).await.unwrap();
    // The new primary gives the ids of the lost transactions to others. One of them does again what is on Kafka.
    stage.commit_records(std::slice::from_ref(&fifth)).await;
    stage.commit(8..10).await;
    let report = recover(&stage).await;
    let job = Some(JOB.parse().unwrap());
    assert_eq!(report.ahead, [(None, 1), (job, 2)].into(), "{report}");
    assert_eq!((report.known, report.rows_missing()), (1, 2), "{report}");
    assert!(report.to_string().contains(&format!("ahead  job {JOB}: 2")), "{report}");
    stage.commit(10..12).await;
    deliver(&stage, 13).await;
    let mut numbers: Vec<u64> = stage.read(&stage.topics.steps(QUEUE)).await.iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..12).collect::<Vec<_>>());
}

async fn after_a_restore_from_a_base_backup_nothing_is_sent_twice(way: Way) {
    let (mut postgres, stage) = primary(way).await;
    stage.commit(0..10).await;
    deliver(&stage, 10).await;
    stage.commit(10..15).await;
    let backup = postgres.base_backup().await.unwrap();
    // On Kafka; of the backup's server, the first five.
    stage.commit(15..20).await;
    deliver(&stage, 20).await;
    postgres.restore(backup).await.unwrap();
    let mut relay = stage.start();
    relay.says(refusal(way), false, REMEDY).await;
    stage.commit(20..25).await;
    let report = recover(&stage).await;
    assert_eq!((report.rows_there, report.rows_missing()), (15, 5), "{report}");
    assert_eq!(report.ahead, [(None, 5)].into(), "{report}");
    stage.commit(25..30).await;
    relay.relayed(30).await;
    stage.assert_once_in_order(30).await;
    relay.stop().await;
}
