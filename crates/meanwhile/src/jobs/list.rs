//! `meanwhile jobs list`

use std::process::ExitCode;

use anyhow::Context;
use client::{Client, JobChoice, Jobs, ListedJob};
use events::time::{read_rfc3339, rfc3339};
use serde_json::{Value, json};

use crate::cli::jobs::ListArgs;
use crate::jobs::explained;
use crate::known::check_flow;
use crate::table::table;

/// Jobs of one request.
const PAGE: u32 = 200;
/// Requests of one list: where few are found among very many jobs, a person decides how far to look.
const PAGES_MAX: u32 = 20;

/// `meanwhile jobs list`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(args: ListArgs) -> anyhow::Result<ExitCode> {
    let now_ms = process::Process::system("jobs").clock.now_ms();
    let client = args.api.client()?;
    let choice = choice(&args, now_ms)?;
    let document = read(&client, &choice, args.cursor.as_deref(), args.limit).await?;
    if document["jobs"].as_array().is_some_and(Vec::is_empty) {
        check_flow(&client, choice.flow.as_deref()).await?;
    }
    if args.json {
        println!("{document:#}");
        return Ok(ExitCode::SUCCESS);
    }
    let Jobs { jobs, next, looked_back_to } = serde_json::from_value(document).context("the answer is not a list")?;
    if jobs.is_empty() {
        println!("no such jobs");
    } else {
        print!("{}", shown(&jobs, now_ms));
    }
    if let (Some(next), Some(to)) = (next, looked_back_to) {
        println!("... looked back to {to}; for more: --limit, or --cursor {next}");
    }
    Ok(ExitCode::SUCCESS)
}

fn choice(args: &ListArgs, now_ms: i64) -> anyhow::Result<JobChoice> {
    let time = |text: &Option<String>| text.as_deref().map(|text| time(text, now_ms)).transpose();
    Ok(JobChoice {
        flow: args.flow.clone(),
        status: (!args.status.is_empty()).then(|| args.status.join(",")),
        key: args.key.clone(),
        correlation_id: args.correlation_id.clone(),
        since: time(&args.since)?,
        until: time(&args.until)?,
        stuck: args.stuck,
    })
}

/// A time, or how long ago it was: `90s`, `15m`, `2h`, `7d`.
pub(super) fn time(text: &str, now_ms: i64) -> anyhow::Result<String> {
    if read_rfc3339(text).is_some() {
        return Ok(text.to_owned());
    }
    let unit_ms = match text.chars().last() {
        Some('s') => 1_000,
        Some('m') => 60_000,
        Some('h') => 3_600_000,
        Some('d') => 86_400_000,
        _ => 0,
    };
    let number = text.strip_suffix(['s', 'm', 'h', 'd']).and_then(|number| number.parse::<u32>().ok());
    let wrong = || format!("`{text}` is neither a time such as 2026-01-05T09:30:00Z nor a while such as 15m, 2h or 7d");
    let ago_ms = i64::from(number.with_context(wrong)?).saturating_mul(unit_ms);
    Ok(rfc3339(now_ms.saturating_sub(ago_ms)))
}

/// As many as are wanted, page by page, as one answer of the API.
async fn read(client: &Client, choice: &JobChoice, cursor: Option<&str>, limit: u32) -> anyhow::Result<Value> {
    let mut jobs = Vec::new();
    let (mut next, mut looked_back_to) = (json!(cursor), Value::Null);
    for _ in 0..PAGES_MAX {
        let left = limit.saturating_sub(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
        if left == 0 {
            break;
        }
        let page = client.jobs_document(choice, next.as_str(), left.min(PAGE)).await;
        let mut page = page.map_err(explained)?;
        if let Value::Array(found) = page["jobs"].take() {
            jobs.extend(found);
        }
        (next, looked_back_to) = (page["next"].take(), page["looked_back_to"].take());
        if next.is_null() {
            break;
        }
    }
    Ok(json!({ "jobs": jobs, "next": next, "looked_back_to": looked_back_to }))
}

fn shown(jobs: &[ListedJob], now_ms: i64) -> String {
    let row = |job: &ListedJob| {
        let age = read_rfc3339(&job.created_at).map(|at_ms| age(now_ms - at_ms));
        let step = job.step.clone().unwrap_or_else(|| "-".to_owned());
        let status = job.status.as_str().to_owned();
        [job.id.clone(), job.flow.clone(), status, step, age.unwrap_or_default(), job.updated_at.clone()]
    };
    table(["ID", "FLOW", "STATUS", "STEP", "AGE", "SINCE"], jobs.iter().map(row).collect())
}

/// A while in its two largest units.
fn age(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use client::JobState;

    use super::*;

    #[test]
    fn a_while_is_told_in_its_two_largest_units() {
        let told = [-5, 59, 61, 3_600, 90_061, 3_000_000].map(|seconds| age(seconds * 1_000));
        assert_eq!(told, ["0s", "59s", "1m01s", "1h00m", "1d01h", "34d17h"]);
    }

    #[test]
    fn a_time_is_one_or_a_while_ago() {
        let now_ms = read_rfc3339("2026-01-05T09:30:00Z").unwrap();
        let read = |text| time(text, now_ms).map_err(|error| error.to_string());
        assert_eq!(read("2026-01-05T09:00:00Z").unwrap(), "2026-01-05T09:00:00Z");
        assert_eq!(read("15m").unwrap(), "2026-01-05T09:15:00.000Z");
        assert_eq!(read("2d").unwrap(), "2026-01-03T09:30:00.000Z");
        for wrong in ["", "m", "15", "15x", "yesterday", "-1h"] {
            assert!(read(wrong).unwrap_err().contains("15m"), "{wrong}");
        }
    }

    #[test]
    fn a_table_shows_where_each_job_is() {
        let job = ListedJob {
            id: "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".to_owned(),
            flow: "order".to_owned(),
            version: String::new(),
            status: JobState::NeedsAttention,
            step: Some("charge".to_owned()),
            key: String::new(),
            correlation_id: String::new(),
            created_at: "2026-01-05T09:30:00.000Z".to_owned(),
            updated_at: "2026-01-05T09:31:00.000Z".to_owned(),
            stuck_since: None,
            trace_id: None,
            retry_of: None,
        };
        let ended = ListedJob { status: JobState::Succeeded, step: None, ..job.clone() };
        let now_ms = read_rfc3339("2026-01-05T10:30:00Z").unwrap();
        let shown = shown(&[job, ended], now_ms);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].contains("  order  needs_attention  charge  1h00m  2026-01-05T09:31:00.000Z"), "{shown}");
        assert_eq!(lines[0].find("STEP"), lines[2].find(" -  ").map(|at| at + 1), "{shown}");
        assert_eq!(lines[0].find("AGE"), lines[1].find("1h00m"), "{shown}");
    }
}
