//! The servers that other tests stand on.

use std::time::Duration;

use nix::sys::signal::Signal;
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
    let register = async |url: String, schema: &str| {
        let body = serde_json::json!({ "schema": format!("{{\"type\":\"{schema}\"}}") });
        let request = http_client().post(format!("{url}/subjects/{schema}-value/versions")).json(&body);
        request.send().await.unwrap().json::<serde_json::Value>().await.unwrap()["id"].as_u64().unwrap()
    };
    let first = register(registry.url(), "string").await;
    let second = register(registry.url(), "long").await;
    assert_ne!(first, second);
    registry.kill9();
    registry.restart().await.unwrap();
    assert_eq!(register(registry.url(), "long").await, second);
    assert_eq!(register(registry.url(), "string").await, first);
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

#[test]
#[ignore = "the parent of the next test's orphan"]
fn starts_a_child_says_its_id_and_waits() {
    let child = Process::start(Launch::new("orphan", "/bin/sleep").arg("1000")).unwrap();
    println!("child {}", child.id());
    std::thread::park();
}

#[tokio::test]
async fn a_child_does_not_outlive_a_killed_parent() {
    let tests = std::env::current_exe().unwrap();
    let launch =
        Launch::new("parent", tests).args(["--ignored", "--nocapture", "starts_a_child_says_its_id_and_waits"]);
    let mut parent = Process::start(launch).unwrap();
    let log = parent.log().to_owned();
    let child = eventually(Duration::from_secs(60), "the parent has a child", async || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.lines().find_map(|line| line.split_once("child ")?.1.parse::<u32>().ok())
    });
    let stat = format!("/proc/{}/stat", child.await);
    assert!(std::fs::exists(&stat).unwrap());
    parent.signal(Signal::SIGKILL).unwrap();
    parent.wait_for_exit(Duration::from_secs(60)).await.unwrap();
    eventually(Duration::from_secs(60), "the child is gone", async || {
        let state = std::fs::read_to_string(&stat).unwrap_or_default();
        (state.is_empty() || state.contains(") Z ")).then_some(())
    })
    .await;
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
