//! Load for a stack that runs already, and the reckoning afterwards: `scripts/stack/recovery` shakes the compose stack
//! meanwhile, `scripts/stack/rehearse-restore` loses it and restores a copy. The environment says where things are.
//! Each test prints a line of figures. The variables:
//!
//! - `STACK_API`, `STACK_KAFKA`, `STACK_REGISTRY`: the stack, whose steps topics are not trimmed
//! - `STACK_STOP`: no more orders once this file exists
//! - `STACK_RATE`: orders a second
//! - `STACK_JOBS`: the jobs that a restored stack has to know, one id a line

#![expect(clippy::unwrap_used, reason = "set-up of a test: a failure is the test's")]
#![expect(clippy::print_stderr, reason = "the person at the recovery run sees what is not answered")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use client::Client;
use flow::event::JobStatus;
use flow::id::JobId;
use serde_json::{Value, json};
use shop::{Outcome, PerService, State, audit};
use test_kit::{Tokens, eventually, http_client};
use tokio::task::JoinSet;

/// Callers at once; each waits for its answer before it sends the next order.
const CALLERS: u64 = 8;
/// How long the jobs that were accepted last may take to end.
const END_WITHIN: Duration = Duration::from_secs(300);
/// Reading everything back takes the stack's CPU, too.
const READ_BACK_EVERY: Duration = Duration::from_secs(3);
/// The books of the example.
const SHOP: [&str; 3] = ["http://127.0.0.1:7001", "http://127.0.0.1:7002", "http://127.0.0.1:7003"];
/// The topics' prefix, as docker-compose.yml leaves it.
const PREFIX: &str = "meanwhile";

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: this test is run by scripts/stack/recovery"))
}

/// Most orders are fine, every tenth is declined, every tenth is held for a while.
fn order(number: u64) -> Value {
    let simulate = match number % 10 {
        3 => json!({ "payment": "declined" }),
        7 => json!({ "shipping": "busy:1" }),
        _ => json!({ "shipping": format!("slow:{}", number % 7 * 100) }),
    };
    json!({
        "customer_id": format!("c-{}", number % 1_000), "sku": "tea", "qty": 1, "amount_cents": 100, "card": "4242",
        "address": "1 Main Street", "simulate": simulate,
    })
}

/// Sends orders, each until it is accepted, until the stop file is there.
async fn call(numbers: Arc<AtomicU64>, pause: Duration) -> Vec<JobId> {
    let (client, stop) = (Client::new(&setting("STACK_API")).unwrap(), PathBuf::from(setting("STACK_STOP")));
    let mut accepted = Vec::new();
    while !stop.exists() {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let (key, order) = (uuid::Uuid::now_v7().to_string(), order(number));
        let job = loop {
            match test_kit::submit(&client, "order", &key, &order).await {
                Ok(job) => break job,
                Err(error) => eprintln!("retrying: {error:#}"),
            }
        };
        accepted.push(job);
        tokio::time::sleep(pause).await;
    }
    accepted
}

async fn books(client: &reqwest::Client) -> PerService<State> {
    let mut states = Vec::new();
    for url in SHOP {
        let state: State = client.get(format!("{url}/state")).send().await.unwrap().json().await.unwrap();
        states.push(state);
    }
    let [inventory, payment, shipping] = states.try_into().unwrap();
    PerService { inventory, payment, shipping }
}

/// Waits until these jobs have ended, and holds all that are on the topics to the invariant.
async fn reckoning(accepted: &[JobId]) -> Tokens {
    let (kafka, registry) = (setting("STACK_KAFKA"), setting("STACK_REGISTRY"));
    let tokens = eventually(END_WITHIN, "every accepted job to end", async || {
        let tokens = Tokens::read_back(&kafka, &registry, PREFIX).await.ok();
        let all_ended = |tokens: &Tokens| {
            let ends = tokens.ends();
            accepted.iter().all(|job| ends.contains_key(job))
        };
        if let Some(tokens) = tokens.filter(all_ended) {
            return Some(tokens);
        }
        tokio::time::sleep(READ_BACK_EVERY).await;
        None
    })
    .await;
    tokens.assert_one_token(accepted.iter().copied());
    tokens
}

fn figures(tokens: &Tokens) -> String {
    let ends = tokens.ends();
    let mut by_status: BTreeMap<&str, u32> = BTreeMap::new();
    for end in ends.values() {
        *by_status.entry(end.status.as_str()).or_default() += 1;
    }
    let (slips, holds, dead) = (tokens.slips.len(), tokens.holds.len(), tokens.dead_letters);
    format!("jobs in all {}, ended {by_status:?}, slips {slips}, holds {holds}, dead letters {dead}", ends.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a running stack: scripts/stack/recovery"]
async fn every_order_that_a_shaken_stack_accepted_ends_once_and_the_books_agree() {
    let rate: u64 = setting("STACK_RATE").parse().unwrap();
    let (numbers, pause) = (Arc::new(AtomicU64::new(0)), Duration::from_millis(1_000 * CALLERS / rate));
    let mut callers: JoinSet<Vec<JobId>> = (0..CALLERS).map(|_| call(numbers.clone(), pause)).collect();
    let mut accepted = Vec::new();
    while let Some(caller) = callers.join_next().await {
        accepted.extend(caller.unwrap());
    }
    let tokens = reckoning(&accepted).await;
    let ends = tokens.ends();
    let outcome = |(job, end): (&JobId, &&flow::event::JobEvent)| Outcome {
        order: job.to_string(),
        succeeded: end.status == JobStatus::Succeeded,
    };
    let outcomes: Vec<Outcome> = ends.iter().map(outcome).collect();
    audit(&books(&http_client()).await, &outcomes).unwrap();
    println!("accepted by the load {}, {}, split or lost 0; the shop's books agree", accepted.len(), figures(&tokens));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a restored stack: scripts/stack/rehearse-restore"]
async fn every_job_that_a_restored_stack_knows_ends_once() {
    let known = std::fs::read_to_string(setting("STACK_JOBS")).unwrap();
    let known: Vec<JobId> = known.lines().map(|line| line.parse().unwrap()).collect();
    assert!(!known.is_empty(), "the copy holds no jobs");
    let tokens = reckoning(&known).await;
    println!("known to the copy {}, {}, split or lost 0", known.len(), figures(&tokens));
}
