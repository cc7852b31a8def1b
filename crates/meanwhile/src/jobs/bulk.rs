//! `meanwhile jobs cancel` and `retry` of the jobs that a choice names, page by page.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use client::{BulkOrder, Client, DoneInBulk, Error};
use serde_json::json;

use super::explained;
use super::list::time;
use crate::cli::jobs::{BulkArgs, PAGE};
use crate::known::check_flow;

/// The pause before a request is repeated, unless the API asks for another one.
const RETRY: Duration = Duration::from_millis(500);
/// Attempts of one request, once the first one has come through: the API may be started anew meanwhile.
const ATTEMPTS_MAX: u32 = 600;

/// What is done to the jobs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed {
    Cancel,
    Retry,
}

impl Deed {
    async fn ask(self, client: &Client, order: &BulkOrder) -> Result<DoneInBulk, Error> {
        match self {
            Self::Cancel => client.cancel_many(order).await,
            Self::Retry => client.retry_many(order).await,
        }
    }

    const fn verb(self, dry_run: bool) -> &'static str {
        match (self, dry_run) {
            (Self::Cancel, false) => "are to be cancelled",
            (Self::Cancel, true) => "would be cancelled",
            (Self::Retry, false) => "go on",
            (Self::Retry, true) => "would go on",
        }
    }
}

/// Prints how far it is after each page.
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(super) async fn run(
    client: &Client,
    deed: Deed,
    args: &BulkArgs,
    (reason, idempotency_key): (Option<String>, Option<String>),
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let now_ms = process::Process::system("jobs").clock.now_ms();
    let choice = args.choice(|text| time(text, now_ms))?;
    let max = args.rate.min(PAGE);
    let mut order = BulkOrder { choice, cursor: None, max, dry_run: args.dry_run, reason, idempotency_key };
    let (mut chosen, mut done, mut left) = (0, 0, Vec::new());
    let mut pace = tokio::time::interval(Duration::from_secs_f64(f64::from(max) / f64::from(args.rate)));
    let verb = deed.verb(args.dry_run);
    loop {
        pace.tick().await;
        let page = ask(client, deed, &order).await.map_err(explained)?;
        (chosen, done) = (chosen + page.chosen, done + page.done);
        for one in page.left {
            if !as_json {
                println!("{} stays as it is: {}", one.id, one.reason);
            }
            left.push(json!({ "id": one.id, "reason": one.reason }));
        }
        let Some(next) = page.next else { break };
        if !as_json {
            println!("{done} {verb} so far");
        }
        order.cursor = Some(next);
    }
    if chosen == 0 {
        check_flow(client, order.choice.flow.as_deref()).await?;
    }
    match as_json {
        true => println!("{}", json!({ "chosen": chosen, "done": done, "left": left, "dry_run": order.dry_run })),
        false => println!("{done} of {chosen} {verb}"),
    }
    if !left.is_empty() {
        bail!("{} stay as they are; the reasons are above", left.len());
    }
    Ok(ExitCode::SUCCESS)
}

/// A page that was cut off is asked for again: what was done of it stays done.
async fn ask(client: &Client, deed: Deed, order: &BulkOrder) -> Result<DoneInBulk, Error> {
    let attempts_max = if order.cursor.is_some() { ATTEMPTS_MAX } else { 1 };
    let mut attempts = 1;
    loop {
        match deed.ask(client, order).await {
            Err(error) if error.may_pass() && attempts < attempts_max => {
                attempts += 1;
                tokio::time::sleep(error.retry_after().unwrap_or(RETRY)).await;
            }
            outcome => return outcome,
        }
    }
}
