//! The reckoning: all topics are read back, and each job that has to be there has ended once.

use std::collections::BTreeMap;
use std::time::Duration;

use flow::event::JobStatus;
use flow::id::JobId;
use shop::{Outcome, PerService, State, audit};
use test_kit::{Tokens, eventually, http_client};

use crate::compose::{KAFKA, REGISTRY};

/// How long the jobs that were accepted last may take to end.
const END_WITHIN: Duration = Duration::from_secs(300);
/// Reading everything back takes the stack's CPU, too.
const READ_BACK_EVERY: Duration = Duration::from_secs(3);
/// The books of the example.
const SHOP: [&str; 3] = ["http://127.0.0.1:7001", "http://127.0.0.1:7002", "http://127.0.0.1:7003"];
/// The topics' prefix, as docker-compose.yml leaves it.
const PREFIX: &str = "meanwhile";

/// Waits until these jobs have ended, and holds all records on the topics to the invariant.
pub(crate) async fn every_job_ends_once(jobs: &[JobId]) -> Tokens {
    let tokens = eventually(END_WITHIN, "every accepted job to end", async || {
        let tokens = Tokens::read_back(KAFKA, REGISTRY, PREFIX).await.ok();
        let all_ended = |tokens: &Tokens| {
            let ends = tokens.ends();
            jobs.iter().all(|job| ends.contains_key(job))
        };
        if let Some(tokens) = tokens.filter(all_ended) {
            return Some(tokens);
        }
        tokio::time::sleep(READ_BACK_EVERY).await;
        None
    })
    .await;
    tokens.assert_one_token(jobs.iter().copied());
    tokens
}

/// Compares the shop's books with the ends of all jobs.
pub(crate) async fn the_books_agree(tokens: &Tokens) {
    let client = http_client();
    let mut states: Vec<State> = vec![];
    for url in SHOP {
        states.push(client.get(format!("{url}/state")).send().await.unwrap().json().await.unwrap());
    }
    let [inventory, payment, shipping] = states.try_into().unwrap();
    let mut outcomes = vec![];
    for (job, end) in tokens.ends() {
        outcomes.push(Outcome { order: job.to_string(), succeeded: end.status == JobStatus::Succeeded });
    }
    audit(&PerService { inventory, payment, shipping }, &outcomes).unwrap();
}

pub(crate) fn figures(tokens: &Tokens) -> String {
    let ends = tokens.ends();
    let mut by_status: BTreeMap<&str, u32> = BTreeMap::new();
    for end in ends.values() {
        *by_status.entry(end.status.as_str()).or_default() += 1;
    }
    let (slips, holds, dead) = (tokens.slips.len(), tokens.holds.len(), tokens.dead_letters);
    format!("jobs in all {}, ended {by_status:?}, slips {slips}, holds {holds}, dead letters {dead}", ends.len())
}
