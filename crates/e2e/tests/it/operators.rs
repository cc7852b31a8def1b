//! Operators of a load: they find out how parked charges have ended and say so, and send dead letters back mended. Each
//! of them goes on whatever answers or does not.

use events::headers::Headers;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bus::{Producer, Record};
use client::{BreakerOrder, Choice, Client, DeadLetter, Redrive, Verdict};
use flow::id::JobId;
use serde_json::{Value, json};
use test_kit::{eventually, http_client, psql};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::load::pass;
use crate::stage::{PATIENCE, Stage};

/// No call of the flow `blind` that was begun can be under way so long after its job was parked.
const FINDING_OUT: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A name that no flow has, and the one that was meant.
const MISSPELT: &str = "sagga";
const MEANT: &str = "saga";
/// A request to an API that is away may be lost.
const ORDER_WITHIN: Duration = Duration::from_secs(3);
const LETTERS_MAX: u32 = 500;

/// What operators have done.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    pub(crate) verdicts_done: AtomicUsize,
    pub(crate) verdicts_not_done: AtomicUsize,
    pub(crate) redrives: AtomicUsize,
}

/// Operators at work.
#[derive(Debug)]
pub(crate) struct Operators {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    pub(crate) deeds: Arc<Deeds>,
}

impl Operators {
    pub(crate) fn start(stage: &Stage, seed: u64) -> Self {
        let (stop, deeds, mut tasks) = (CancellationToken::new(), Arc::new(Deeds::default()), JoinSet::new());
        let (client, books) = (stage.system.client(), stage.shop.urls().payment);
        let (until, done) = (stop.clone(), deeds.clone());
        let judging = judge(client.clone(), books, Chance::new(seed), done);
        tasks.spawn(async move { until.run_until_cancelled(judging).await.unwrap_or_default() });
        let (until, done) = (stop.clone(), deeds.clone());
        tasks.spawn(async move { until.run_until_cancelled(redrive(client, done)).await.unwrap_or_default() });
        Self { tasks, stop, deeds }
    }

    pub(crate) async fn end(mut self) -> Arc<Deeds> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.deeds
    }
}

async fn letters(client: &Client, class: &str) -> Vec<DeadLetter> {
    let choice = Choice { class: Some(class.to_owned()), ..Choice::default() };
    client.dead_letters(&choice, None, LETTERS_MAX).await.map(|page| page.dead_letters).unwrap_or_default()
}

/// Says of each parked charge how it has ended, by the books of the service: once or twice, and sometimes while the job
/// is cancelled.
async fn judge(client: Client, books: String, mut chance: Chance, deeds: Arc<Deeds>) {
    let mut seen: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        for letter in letters(&client, "parked").await {
            let since = *seen.entry(letter.id.clone()).or_insert_with(Instant::now);
            if letter.flow.as_deref() != Some("blind") || since.elapsed() < FINDING_OUT {
                continue;
            }
            let Ok(found) = http_client().get(format!("{books}/cash/{}", letter.id)).send().await else { continue };
            let (verdict, count) = match found.status().as_u16() {
                200 => (Verdict::Succeeded(found.json().await.unwrap()), &deeds.verdicts_done),
                404 => (Verdict::Failed, &deeds.verdicts_not_done),
                other => panic!("the books answer {other}"),
            };
            if chance.below(8) == 0 {
                drop(client.cancel(&letter.id, Some("an operator")).await);
            }
            for _ in 0..=chance.below(2) {
                // Refused where the job has gone on.
                let is_heard = client.rule(&letter.id, &verdict).await.is_ok();
                count.fetch_add(usize::from(is_heard), Ordering::Relaxed);
            }
        }
        pass(LOOK_EVERY).await;
    }
}

/// Sends what names no flow back as it was meant.
async fn redrive(client: Client, deeds: Arc<Deeds>) {
    loop {
        for letter in letters(&client, "unknown-flow").await.iter().filter(|letter| letter.status == "open") {
            let Ok(document) = client.dead_letter(&letter.id).await else { continue };
            let mut value = document["record"]["value"].clone();
            assert_eq!(value["flow"], MISSPELT, "{document}");
            value["flow"] = MEANT.into();
            let order = Redrive { value: Some(value), ..Redrive::default() };
            deeds.redrives.fetch_add(usize::from(client.redrive(&letter.id, &order).await.is_ok()), Ordering::Relaxed);
        }
        pass(LOOK_EVERY).await;
    }
}

/// The way of a job that comes in through Kafka under a wrong name.
#[derive(Clone)]
pub(crate) struct Door {
    producer: Arc<Producer>,
    topic: String,
    database_url: String,
}

impl Door {
    pub(crate) fn of(stage: &Stage) -> Self {
        let producer = Arc::new(Producer::new(&stage.system.settings()).unwrap());
        let topic = stage.system.topics().commands();
        Self { producer, topic, database_url: stage.system.database_url().to_owned() }
    }

    /// Sends a command that is buried; returns its job once an operator has sent it back and it is accepted.
    pub(crate) async fn submit_misspelt(&self, key: &str, input: &Value) -> JobId {
        let value = json!({ "flow": MISSPELT, "id": key, "input": input }).to_string().into_bytes();
        let (topic, key) = (self.topic.clone(), key.to_owned());
        let record =
            Record { topic, key: Some(key.as_bytes().to_vec()), value: Some(value), headers: Headers::default() };
        let accepting = async {
            while self.producer.send(&record).await.is_err() {
                pass(LOOK_EVERY).await;
            }
            loop {
                if let Some(job) = self.accepted(&key).await {
                    return job;
                }
                pass(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(PATIENCE, accepting).await.expect("the command comes back and is accepted")
    }

    async fn accepted(&self, key: &str) -> Option<JobId> {
        let sql = format!("select job from ingest.idempotency where key = '{key}'");
        let url = self.database_url.clone();
        tokio::task::spawn_blocking(move || psql(&url, &sql)).await.unwrap().ok()?.parse().ok()
    }
}

/// Sets a breaker, as far as the API can be reached.
pub(crate) async fn set_breaker(client: &Client, downstream: &str, state: BreakerOrder) {
    let order = client.set_breaker(downstream, state, Some("chance"));
    let _ = tokio::time::timeout(ORDER_WITHIN, order).await;
}

/// Has calls decide about breakers again.
pub(crate) async fn take_back(client: &Client, downstream: &str) {
    eventually(PATIENCE, "the order is taken back", async || {
        client.set_breaker(downstream, BreakerOrder::Auto, None).await.ok()
    })
    .await;
}
