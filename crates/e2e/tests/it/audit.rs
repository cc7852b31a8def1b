//! The audit log on Kafka: each entry once, whatever is killed.

use std::collections::BTreeMap;

use events::audit::AuditEntry;
use events::{Inbound, Schemas, decode_audit_entry};
use test_kit::{eventually, http_client, psql, read_topic};
use tokio::task::JoinSet;

use crate::chance::{Chance, TellSeed, seed};
use crate::kills::until_called;
use crate::stage::{PATIENCE, Stage};
use crate::turn::nearly_alone;

const CALLERS: usize = 8;
const REQUESTS: usize = 60;
const KILLS_MIN: u32 = 8;

/// Asks for retries of a job that there is not. Returns how often it was answered.
async fn ask(api: String) -> Vec<u16> {
    let mut answers = Vec::new();
    while answers.len() < REQUESTS {
        let asked = http_client().post(format!("{api}/v1/jobs/none/retry")).send().await;
        answers.extend(asked.ok().map(|answer| answer.status().as_u16()).filter(|status| *status == 404));
    }
    answers
}

/// What is on the topic.
async fn entries(stage: &Stage) -> Vec<AuditEntry> {
    let schemas = Schemas::published();
    let records = read_topic(stage.system.brokers(), &stage.system.topics().audit()).await.unwrap();
    let read = |record: Inbound| decode_audit_entry(&schemas, record.value.as_deref().unwrap()).unwrap();
    records.into_iter().map(read).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_entry_of_the_audit_log_is_on_kafka_once_through_kills_of_every_role() {
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let mut stage = Stage::start().await;
    let callers: JoinSet<_> = (0..CALLERS).map(|_| ask(stage.system.api())).collect();
    let (answered, kills) = until_called(&mut stage, &mut chance, callers, (KILLS_MIN, 500)).await;
    let url = stage.system.database_url().to_owned();
    let rows = |table: &str| psql(&url, &format!("select id from ingest.{table} order by id")).unwrap();
    let of = |rows: &str| rows.lines().count();
    // All are of one tenant, and so in one order: once the last answer is there, all that will come is there.
    http_client().post(format!("{}/v1/jobs/last/retry", stage.system.api())).send().await.unwrap();
    let entries = eventually(PATIENCE, "the last entry is on Kafka", async || {
        let entries = entries(&stage).await;
        entries.iter().any(|entry| entry.object == "last" && entry.answer.is_some()).then_some(entries)
    })
    .await;
    let mut by_id: BTreeMap<String, Vec<AuditEntry>> = BTreeMap::new();
    for entry in entries {
        by_id.entry(entry.id.to_string()).or_default().push(entry);
    }
    let told = |is_answer: bool| {
        let told = by_id.values().flatten().filter(|entry| entry.answer.is_some() == is_answer);
        told.map(|entry| entry.id.to_string() + "\n").collect::<String>()
    };
    let (asked, results) = (rows("audit"), rows("audit_results"));
    assert_eq!((told(false).trim_end(), told(true).trim_end()), (asked.trim_end(), results.trim_end()));
    assert!(by_id.values().all(|entries| entries[0].answer.is_none()), "a request is told before its answer");
    // Whatever was answered was told; a request that a kill has cut off may be told without its answer.
    assert!(of(&results) >= answered.len(), "{} of {}", of(&results), answered.len());
    stage.finish().await;
    eprintln!("{} entries, {} without an answer, {kills} kills", of(&asked), of(&asked) - of(&results));
}
