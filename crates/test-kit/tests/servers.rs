//! The servers that other tests stand on.

use std::time::Duration;

use test_kit::{
    Answer, Kafka, KafkaOptions, Launch, Postgres, PostgresOptions, Process, Receiver, Registry, eventually,
    http_client, kcat, prefix, psql,
};

fn produce(brokers: &str, topic: &str, value: &str) -> anyhow::Result<Vec<u8>> {
    kcat(&["-P", "-b", brokers, "-t", topic, "-X", "message.timeout.ms=30000"], value.as_bytes())
}

#[tokio::test]
async fn a_broker_keeps_its_port_and_records_over_a_kill() {
    let automatic_topics = ("auto.create.topics.enable".to_owned(), "true".to_owned());
    let options = KafkaOptions { properties: vec![automatic_topics], ..KafkaOptions::default() };
    let mut kafka = Kafka::start(options).await.unwrap();
    let topic = prefix();
    produce(&kafka.brokers(), &topic, "before").unwrap();
    kafka.kill9();
    kafka.restart().await.unwrap();
    produce(&kafka.brokers(), &topic, "after").unwrap();
    let read = kcat(&["-C", "-e", "-q", "-b", &kafka.brokers(), "-t", &topic], b"").unwrap();
    let mut lines: Vec<_> = std::str::from_utf8(&read).unwrap().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["after", "before"]);
}

#[tokio::test]
async fn a_registry_keeps_its_schemas_over_a_kill() {
    let mut registry = Registry::start().await.unwrap();
    let schema = serde_json::json!({ "schema": "{\"type\":\"string\"}" });
    let register = async |url: String| {
        let answer = http_client().post(format!("{url}/subjects/s-value/versions")).json(&schema).send().await.unwrap();
        answer.json::<serde_json::Value>().await.unwrap()["id"].as_u64().unwrap()
    };
    let first = register(registry.url()).await;
    registry.kill9();
    registry.restart().await.unwrap();
    assert_eq!(register(registry.url()).await, first);
}

#[tokio::test]
async fn a_postgres_keeps_its_rows_over_a_kill() {
    let mut postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let url = postgres.create_database("d").unwrap();
    psql(&url, "create table t (n int); insert into t values (7)").unwrap();
    assert_eq!(psql(&url, "show wal_level").unwrap(), "logical");
    postgres.kill9();
    assert!(psql(&url, "select 1").is_err());
    postgres.restart().await.unwrap();
    assert_eq!(psql(&url, "select n from t").unwrap(), "7");
}

#[tokio::test]
async fn a_process_that_ends_too_early_shows_the_end_of_its_log() {
    let launch = Launch::new("early", "/bin/sh").args(["-c", "echo no such luck >&2; exit 3"]);
    let mut process = Process::start(launch).unwrap();
    let error = process.wait_until(Duration::from_secs(60), "never", async || false).await.unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("no such luck"), "{error}");
}

#[tokio::test]
async fn children_do_not_outlive_the_process_that_started_them() {
    let sleeper = Process::start(Launch::new("sleeper", "/bin/sh").args(["-c", "sleep 1000 & wait"])).unwrap();
    let pid = sleeper.id();
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    assert!(state().is_some());
    drop(sleeper);
    assert!(state().is_none());
}

#[tokio::test]
async fn a_receiver_records_requests_and_answers_as_told() {
    let receiver = Receiver::start().await;
    receiver.answer_with(|request| Answer::json(201, &request.json()).header("x-seen", request.header("x-sent")));
    let request = http_client().post(format!("{}/a?b=c", receiver.url())).header("x-sent", "1").body("[2]");
    let answer = request.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["x-seen"].to_str().unwrap()), (201, "1"));
    assert_eq!(answer.text().await.unwrap(), "[2]");
    let requests = eventually(Duration::from_secs(10), "one request", async || {
        Some(receiver.requests()).filter(|requests| requests.len() == 1)
    });
    assert_eq!(requests.await[0].uri, "/a?b=c");
}
