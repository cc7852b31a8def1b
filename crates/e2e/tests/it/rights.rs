//! The whole system on a Kafka that asks for a login, over TLS, with the rights that `meanwhile acls` lists alone.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::time::Duration;

use bus::admin::Admin;
use bus::{Error, Producer, Record, Settings, Table, TransactionalProducer, TxError};
use events::topic::Topics;
use flow::event::JobStatus;
use serde_json::json;
use test_kit::{GuardedKafka, Role};

use crate::client::order;
use crate::stage::Stage;
use crate::turn::beside_others;

/// Ends an attempt that is not even refused.
const LONG: Duration = Duration::from_secs(60);

fn told(error: &Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

async fn write(settings: &Settings, topic: &str) -> Result<(), String> {
    let record = Record { topic: topic.to_owned(), value: Some(b"v".to_vec()), ..Record::default() };
    let sent = Producer::new(settings).unwrap().send(&record).await;
    sent.map(drop).map_err(|error| told(&error))
}

async fn read(settings: &Settings, topic: &str) -> Result<(), String> {
    let loaded = tokio::time::timeout(LONG, Table::load(settings, topic)).await;
    loaded.map_err(|_| "no answer".to_owned())?.map(drop).map_err(|error| told(&error))
}

async fn begin(settings: &Settings, id: String) -> Result<(), String> {
    let settings = settings.clone();
    let begun = tokio::task::spawn_blocking(move || {
        TransactionalProducer::new(&settings, &id, Duration::from_secs(10)).unwrap().init(LONG)
    });
    begun.await.unwrap().map_err(|error: TxError| error.source().map_or_else(String::new, ToString::to_string))
}

fn assert_refused(what: &str, outcome: Result<(), String>) {
    let told = outcome.expect_err(what);
    assert!(told.contains("uthorization failed"), "{what}: {told}");
}

/// One thing, at least, that each role must not do.
async fn each_role_is_refused_the_others_work(stage: &Stage) {
    let topics = stage.system.topics();
    let others = Topics::new(test_kit::prefix());
    let admin = Admin::new(&stage.system.settings()).unwrap();
    admin.create_topics(&others, &BTreeSet::from(["default".to_owned()]), None).await.unwrap();
    let user = |role: &str| stage.system.settings_as(role);
    assert_refused("ingest writes an event", write(&user("ingest"), &topics.events()).await);
    assert_refused("ingest writes a command", write(&user("ingest"), &topics.commands()).await);
    assert_refused("the relay reads events", read(&user("relay"), &topics.events()).await);
    assert_refused("a worker reads commands", read(&user("workers"), &topics.commands()).await);
    assert_refused("a worker takes the relay's place", begin(&user("workers"), topics.relay_id()).await);
    assert_refused("the orchestrator writes a hold", write(&user("orchestrator"), &topics.waits()).await);
    assert_refused("the notifier writes an event", write(&user("notifier"), &topics.events()).await);
    assert_refused("the notifier reads slips", read(&user("notifier"), &topics.steps("default")).await);
    assert_refused("the operator writes an event", write(&user("migrate"), &topics.events()).await);
    let deleted = Admin::new(&user("migrate")).unwrap().delete_topic(&topics.progress()).await;
    assert_refused("the operator deletes a topic", deleted.map_err(|error| told(&error)));
    // Another deployment on the same brokers.
    assert_refused("a worker reads another's slips", read(&user("workers"), &others.steps("default")).await);
    assert_refused("the relay writes another's events", write(&user("relay"), &others.events()).await);
    assert_refused("a worker begins as another's", begin(&user("workers"), others.workers_ids() + "workers-0").await);
    admin.delete_topics(others.prefix()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_run_where_each_role_logs_in_and_has_its_own_rights_alone() {
    let _turn = beside_others().await;
    let mut stage = Stage::start_with(|builder| builder.guarded_kafka()).await;
    let kept = stage.submit("order", &order("ann", json!({}))).await;
    let undone = stage.submit("order", &order("bob", json!({ "payment": "declined" }))).await;
    let ends = stage.ends_of([kept, undone]).await;
    assert_eq!(ends[&kept].status, JobStatus::Succeeded, "{ends:?}");
    assert!(ends.contains_key(&undone));
    each_role_is_refused_the_others_work(&stage).await;
    for role in Role::ALL {
        let log = std::fs::read_to_string(stage.system.role(role).process().log()).unwrap();
        let secret = GuardedKafka::password(&format!("meanwhile-{}", role.as_str()));
        assert!(!log.contains(&secret), "{}'s log shows its password", role.as_str());
        // A right that is missing is in the log of whoever misses it.
        let missed = log.lines().find(|line| line.contains("uthorization failed"));
        assert!(missed.is_none(), "{}: {missed:?}", role.as_str());
    }
    stage.finish().await;
}
