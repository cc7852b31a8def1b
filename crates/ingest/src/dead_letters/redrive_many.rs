//! Many dead letters go back, those that a filter chooses: at most so many at a time, so that whoever asks sets the
//! pace and sees the progress.

use serde::Deserialize;
use serde_json::{Value, json};
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use super::list::{Entry, Filter, LIMIT_MAX, Listing};
use super::redrive;
use crate::job_lookup::find as find_job;
use crate::retry;
use crate::state::Api;

/// Entries of one order where the caller says nothing else.
const MAX: u32 = 100;

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    #[serde(default)]
    class: Option<String>,
    #[serde(default)]
    topic: Option<String>,
    #[serde(default)]
    flow: Option<String>,
    #[serde(default)]
    step: Option<String>,
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    until: Option<String>,
    /// Go on after this place, the `next` of an earlier answer.
    #[serde(default)]
    after: Option<String>,
    /// Entries at most.
    #[serde(default)]
    max: Option<u32>,
    /// Say what would be sent, and send nothing.
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    force: bool,
}

impl Order {
    fn filter(&self) -> Result<Filter, Problem> {
        let max = self.max.unwrap_or(MAX);
        if !(1..=LIMIT_MAX).contains(&max) {
            return Err(Problem::new(Kind::BadRequest, format!("`max` is a number from 1 to {LIMIT_MAX}.")));
        }
        Ok(Filter {
            class: self.class.clone(),
            topic: self.topic.clone(),
            flow: self.flow.clone(),
            step: self.step.clone(),
            since: self.since.clone(),
            until: self.until.clone(),
            settled: false,
            limit: Some(max),
            after: self.after.clone(),
        })
    }
}

/// Sends the chosen ones. What cannot be sent is told, and stops no other.
pub(super) async fn run(api: &Api, context: &RequestContext, order: &Order) -> Result<Value, Problem> {
    let listing = Listing::read(api, &context.caller.tenant, &order.filter()?).await?;
    let (mut redriven, mut left) = (0, Vec::new());
    let chosen = listing.entries.len();
    for entry in listing.entries {
        if order.dry_run {
            redriven += 1;
            continue;
        }
        match send(api, context, &entry, order.force).await {
            Ok(()) => redriven += 1,
            // It says to come again: the rest would fare no better.
            Err((_, problem)) if problem.kind() == Kind::NotReady => return Err(problem),
            Err((id, problem)) => left.push(json!({ "id": id, "reason": problem.detail() })),
        }
    }
    let dry_run = order.dry_run;
    Ok(json!({ "chosen": chosen, "redriven": redriven, "left": left, "next": listing.next, "dry_run": dry_run }))
}

async fn send(api: &Api, context: &RequestContext, entry: &Entry, force: bool) -> Result<(), (String, Problem)> {
    match entry {
        Entry::Letter(letter) => {
            let sent = redrive::one(api, context, letter, &redrive::Order::unchanged(force)).await;
            sent.map(drop).map_err(|problem| (super::id::Id::of(letter).to_string(), problem))
        }
        Entry::Parked(token) => {
            let job = token.job.to_string();
            let resumed = async { retry::resume(api, find_job(api, &context.caller, &job).await?, context).await };
            resumed.await.map(drop).map_err(|problem| (job.clone(), problem))
        }
    }
}
