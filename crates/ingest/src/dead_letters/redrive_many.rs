//! Many dead letters go back, those that a filter chooses: at most so many at a time, so that whoever asks sets the
//! pace and sees the progress.

use serde::Deserialize;
use serde_json::{Value, json};
use store::letters::{Letter, ParkedToken};
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use super::list::{Entry, Filter, LIMIT_MAX, Listing};
use super::redrive;
use crate::in_bulk::{self, Tally};
use crate::job_lookup::find as find_job;
use crate::state::Api;
use crate::{query, resume};

/// Entries of one order where the caller says nothing else.
const MAX: u32 = 100;

pub(super) const FORM: &str = "The body is an object with the choice, `max`, `after`, `dry_run` and `force`";

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
    #[serde(default, deserialize_with = "query::whole")]
    max: Option<u32>,
    /// Say what would be sent, and send nothing.
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    force: bool,
}

impl Order {
    fn filter(&self) -> Result<Filter, Problem> {
        let choices = [&self.class, &self.topic, &self.flow, &self.step, &self.since, &self.until];
        if choices.iter().all(|choice| choice.is_none()) {
            let detail = "The body chooses nothing: everything that waits for an operator would be sent.";
            let remediation = "Give at least one of `class`, `topic`, `flow`, `step`, `since` and `until`; \
                               `{\"until\": \"...\"}` with the present time means all that are there now.";
            return Err(Problem::new(Kind::BadRequest, detail).with_remediation(remediation));
        }
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

/// Sends the chosen ones.
pub(super) async fn run(api: &Api, context: &RequestContext, order: &Order) -> Result<Value, Problem> {
    let listing = Listing::read(api, super::whose(api, context), &order.filter()?).await?;
    let (chosen, mut tally) = (listing.entries.len(), Tally::default());
    for entry in listing.entries {
        let sent = match &entry {
            Entry::Letter(letter) => send_letter(api, context, letter, order).await,
            Entry::Parked(token) => send_parked(api, context, token, order).await,
        };
        tally.note(&entry.id(), sent)?;
    }
    let (Tally { done, left }, dry_run) = (tally, order.dry_run);
    Ok(json!({ "chosen": chosen, "redriven": done, "left": left, "next": listing.next, "dry_run": dry_run }))
}

async fn send_letter(api: &Api, context: &RequestContext, letter: &Letter, order: &Order) -> Result<(), Problem> {
    let one = redrive::Order::unchanged(order.force);
    match order.dry_run {
        true => redrive::check(api, letter, &one),
        false => redrive::one(api, context, letter, &one).await.map(drop),
    }
}

async fn send_parked(api: &Api, context: &RequestContext, token: &ParkedToken, order: &Order) -> Result<(), Problem> {
    let job = find_job(api, &context.caller, &token.job.to_string()).await?;
    if job.view.parked.is_empty() {
        let detail = format!("The job is {}: it is not parked any more.", job.view.status.as_str());
        return Err(Problem::new(Kind::StillRunning, detail).with_job(token.job));
    }
    if !order.force {
        in_bulk::check(api, &job).await?;
    }
    match order.dry_run {
        true => Ok(()),
        false => resume::all(api, job, context, &resume::Order::default()).await.map(drop),
    }
}
