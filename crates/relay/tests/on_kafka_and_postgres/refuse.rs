//! Rows that cannot be delivered, and states in which the relay must not deliver.

use bus::Producer;
use events::headers::Headers;
use events::position::{Lsn, Position};
use events::{Record, dead_letter};
use test_kit::{Postgres, PostgresOptions, psql};

use crate::stage::{QUEUE, Stage, WITHIN};

/// A record for a topic, of so many bytes.
fn sized(topic: String, bytes: usize) -> Record {
    Record { topic, key: Some(b"big".to_vec()), value: Some(vec![b'x'; bytes]), headers: Headers::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_kafka_would_refuse_goes_to_the_dead_letters_and_the_rest_flows() {
    let mut stage = Stage::new().await;
    stage.config.topic_wait_ms = 300;
    let mut relay = stage.start();
    let (queue, nowhere) = (stage.topics.steps(QUEUE), stage.topics.steps("nowhere"));
    let large = sized(queue.clone(), 1_048_500);
    let huge = sized(queue.clone(), 3_000_000);
    let lost = sized(nowhere.clone(), 10);
    let plain = |number| stage.record(number, 1);
    stage.commit_records(&[plain(0), large.clone(), plain(1), huge, lost.clone(), plain(2)]).await;
    stage.commit([3]).await;
    relay.relayed(7).await;
    stage.assert_once_in_order(4).await;
    let letters = stage.read(&stage.topics.dead_letters()).await;
    let seen = |class: &str| {
        let found = letters.iter().filter(|letter| dead_letter::burial(letter).unwrap().failure.class == class);
        found.map(|letter| (letter.value.clone(), dead_letter::burial(letter).unwrap())).collect::<Vec<_>>()
    };
    let mut too_large = seen("too-large");
    too_large.sort_by_key(|(value, _)| value.is_none());
    assert_eq!(too_large.len(), 2);
    assert_eq!((&too_large[0].0, too_large[0].1.topic.as_str()), (&large.value, queue.as_str()));
    assert_eq!(too_large[1].0, None);
    assert!(too_large[1].1.failure.reason.contains("only this notice"), "{:?}", too_large[1].1);
    let unknown = seen("unknown-topic");
    assert_eq!((unknown.len(), &unknown[0].0, unknown[0].1.topic.as_str()), (1, &lost.value, nowhere.as_str()));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_kafka_refuses_is_halved_until_it_passes() {
    let mut stage = Stage::new().await;
    // Batches that are larger than the topic takes, though no record is.
    stage.kafka.properties.insert("batch.size".to_owned(), "2000000".to_owned());
    let mut records: Vec<Record> = (0..40).map(|number| stage.record(number, 1)).collect();
    for record in &mut records {
        record.headers.push("padding", Some(&[0; 100_000]));
    }
    stage.commit_records(&records).await;
    let mut relay = stage.start();
    relay.relayed(40).await;
    stage.assert_once_in_order(40).await;
    assert_eq!(stage.read(&stage.topics.dead_letters()).await, []);
    relay.stop().await;
}

/// Takes a topic away, as an operator might by mistake.
pub(crate) async fn delete(stage: &Stage, topic: &str) {
    stage.admin().delete_topic(topic).await.unwrap();
    let gone = async || (!stage.admin().topic_exists(topic).await.ok()?).then_some(());
    test_kit::eventually(WITHIN, "the topic is gone", gone).await;
}

async fn create_topics(stage: &Stage) {
    stage.admin().create_topics(&stage.topics, &[QUEUE.to_owned()].into(), Some(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_ours_that_is_deleted_meanwhile_is_waited_for() {
    let mut stage = Stage::new().await;
    stage.kafka.properties.insert("topic.metadata.propagation.max.ms".to_owned(), "100".to_owned());
    stage.config.topic_wait_ms = 100;
    let events = stage.topics.events();
    let mut relay = stage.start();
    // The topic's limit is known from now on, so only producing tells that it is gone.
    stage.commit_records(&[sized(events.clone(), 10)]).await;
    relay.relayed(1).await;
    delete(&stage, &events).await;
    stage.commit([0]).await;
    stage.commit_records(&[sized(events.clone(), 10)]).await;
    stage.commit([1]).await;
    relay.says("deliveries", false, &format!("waiting for topic {events}")).await;
    create_topics(&stage).await;
    relay.relayed(4).await;
    relay.says("deliveries", true, "").await;
    stage.assert_once_in_order(2).await;
    assert_eq!(stage.read(&events).await.len(), 1);
    assert_eq!(stage.read(&stage.topics.dead_letters()).await, []);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_ours_that_is_missing_is_waited_for() {
    let mut stage = Stage::new().await;
    stage.config.topic_wait_ms = 100;
    let cancels = stage.topics.cancels();
    delete(&stage, &cancels).await;
    stage.commit_records(&[stage.record(0, 1), sized(cancels.clone(), 10), stage.record(1, 1)]).await;
    let mut relay = stage.start();
    relay.says("deliveries", false, &format!("topic {cancels} does not exist; create it")).await;
    create_topics(&stage).await;
    relay.relayed(3).await;
    relay.says("deliveries", true, "").await;
    assert_eq!(stage.read(&cancels).await.len(), 1);
    assert_eq!(stage.read(&stage.topics.dead_letters()).await, []);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_of_another_history_is_refused_until_somebody_settles_it() {
    let stage = Stage::new().await;
    let identity = psql(&stage.database_url, "select system_identifier from pg_control_system()").unwrap();
    let system_identifier: u64 = identity.parse().unwrap();
    let ours = Position {
        system_identifier,
        timeline: 1,
        end_lsn: Lsn(1),
        partial: None,
        last_row: None,
        relayed: 0,
        at_ms: 0,
    };
    let producer = Producer::new(&stage.kafka).unwrap();
    let put = async |value: Option<Vec<u8>>| {
        let key = Some(stage.slot().into_bytes());
        let record = Record { topic: stage.topics.relay(), key, value, headers: Headers::default() };
        producer.send(&record).await.unwrap();
    };
    stage.commit(0..3).await;
    let ahead = Position { end_lsn: Lsn(u64::MAX / 2), ..ours };
    for (position, said) in [
        (Position { system_identifier: 1, ..ours }, "of database system 1,"),
        (Position { timeline: 9, ..ours }, "of timeline 9,"),
        (ahead, "restored from a backup"),
        (ours, "made anew or moved"),
    ] {
        put(Some(position.to_json())).await;
        let relay = stage.start();
        let message = relay.says("position", false, said).await;
        assert!(message.contains("run `meanwhile relay recover`"), "{message}");
        assert!(!relay.readiness.is_ready() && relay.delivered.borrow().is_none());
        relay.stop().await;
    }
    let mut relay = stage.start();
    relay.says("position", false, "").await;
    put(None).await;
    relay.relayed(3).await;
    relay.says("position", true, "").await;
    stage.assert_once_in_order(3).await;
    relay.stop().await;
}

async fn kafka() -> bus::Settings {
    bus::Settings::new(test_kit::kafka().await, "http://127.0.0.1:1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_slot_is_said_with_its_remedy_and_found_when_it_is_there() {
    let stage = Stage::without_slot(kafka().await, test_kit::postgres_database().await).await;
    let mut relay = stage.start();
    relay.says("slot", false, "meanwhile migrate").await;
    store::slot::create(&stage.pool, &stage.slot()).await.unwrap();
    stage.commit(0..3).await;
    relay.relayed(3).await;
    relay.says("slot", true, "").await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_log_what_is_needed_is_said_with_the_remedy() {
    let settings = vec![("wal_level".to_owned(), "replica".to_owned())];
    let postgres = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() }).await.unwrap();
    let url = postgres.create_database("outbox").unwrap();
    let stage = Stage::without_slot(kafka().await, url).await;
    let relay = stage.start();
    relay.says("slot", false, "wal_level=logical").await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_without_the_right_to_stream_is_said_with_the_remedy() {
    let mut stage = Stage::new().await;
    let login = stage.topics.prefix().to_owned();
    psql(&stage.database_url, &format!("create role {login} login in role meanwhile_relay")).unwrap();
    stage.database_url = stage.database_url.replace("postgres://postgres@", &format!("postgres://{login}@"));
    let relay = stage.start();
    relay.says("slot", false, "REPLICATION").await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_publication_is_said_and_delivery_goes_on_when_it_is_back() {
    let stage = Stage::new().await;
    psql(&stage.database_url, "drop publication meanwhile_outbox").unwrap();
    let relay = stage.start();
    relay.says("slot", false, "publication").await;
    relay.stop().await;
}
