//! `meanwhile submit` and `meanwhile jobs`: a caller's view, over HTTP only.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use client::{Accepted, Client, Error, JobState, Verdict};
use serde_json::json;

use crate::cli::jobs::{CancelArgs, RetryArgs, ShowArgs, SignalArgs, SubmitArgs, WatchArgs};
use crate::jobs::bulk::Deed;
use crate::timeline::Timeline;

mod bulk;
mod follow;
pub(crate) mod list;

/// The interval at which a followed job is read.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
/// Attempts of a request that fails while a job is followed.
const ATTEMPTS_MAX: u32 = 100;

/// `meanwhile submit`
pub(crate) async fn submit(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    let (input, longest) = (input(&args.input)?, args.wait.as_deref().map(longest_wait).transpose()?);
    let client = args.api.client()?;
    let accepted = client.submit_on(&args.flow, input, &args.terms()).await;
    let accepted = accepted.map_err(explained)?;
    match longest {
        _ if args.follow => follow::to_the_end(&client, &accepted.job, args.json).await.map(follow::code),
        Some(longest) => follow::result(&client, &accepted.job, longest, args.json).await,
        None => {
            tell(&accepted, args.json);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn longest_wait(text: &str) -> anyhow::Result<Duration> {
    let wrong = || format!("--wait: `{text}` is not a while such as 30s or 5m");
    flow::definition::parse_duration_ms(text).map(Duration::from_millis).with_context(wrong)
}

/// The job, for people or for programs.
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
fn tell(accepted: &Accepted, as_json: bool) {
    let Accepted { job, replayed } = accepted;
    match as_json {
        true => println!("{}", json!({ "id": job, "replayed": replayed })),
        false => println!("{job}"),
    }
}

/// `meanwhile jobs retry`: prints the id of the job that runs now, or how many jobs of a choice go on.
pub(crate) async fn retry(args: RetryArgs) -> anyhow::Result<ExitCode> {
    let client = args.api.client()?;
    let Some(job) = args.job else {
        return bulk::run(&client, Deed::Retry, &args.bulk, (None, args.key), args.json).await;
    };
    let verdict = match args.succeeded.as_deref().map(input).transpose()? {
        Some(output) => Some(Verdict::Succeeded(serde_json::from_str(&output).context("--succeeded is not JSON")?)),
        None if args.undone => args.reason.map(Verdict::Undone),
        None => args.failed.then_some(Verdict::Failed),
    };
    let asked = match &verdict {
        Some(verdict) => client.rule(&job, verdict).await,
        None => client.retry(&job, args.key.as_deref()).await,
    };
    let running = asked.map_err(explained)?;
    tell(&running, args.json);
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    until_resumed(&client, &running.job).await?;
    follow::to_the_end(&client, &running.job, args.json).await.map(follow::code)
}

/// `meanwhile jobs signal`: prints the job's id.
pub(crate) async fn signal(args: SignalArgs) -> anyhow::Result<ExitCode> {
    let payload = args.payload.as_deref().map(input).transpose()?;
    let client = args.api.client()?;
    let sent = client.signal(&args.job, &args.name, payload, args.key.as_deref()).await.map_err(explained)?;
    tell(&sent, args.json);
    Ok(ExitCode::SUCCESS)
}

/// `meanwhile jobs cancel`: prints the job's id, or how many jobs of a choice are to be cancelled.
pub(crate) async fn cancel(args: CancelArgs) -> anyhow::Result<ExitCode> {
    let client = args.api.client()?;
    let Some(job) = args.job else {
        return bulk::run(&client, Deed::Cancel, &args.bulk, (args.reason, None), args.json).await;
    };
    client.cancel(&job, args.reason.as_deref()).await.map_err(explained)?;
    tell(&Accepted { job: job.clone(), replayed: false }, args.json);
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    until_resumed(&client, &job).await?;
    // Here the cancel is what was wanted.
    Ok(match follow::to_the_end(&client, &job, args.json).await? {
        JobState::Cancelled => ExitCode::SUCCESS,
        JobState::NeedsAttention => follow::code(JobState::NeedsAttention),
        _ => ExitCode::FAILURE,
    })
}

/// A parked job stays `needs_attention` until the signal has reached its token; only then there is something to follow.
async fn until_resumed(client: &Client, job: &str) -> anyhow::Result<()> {
    for _ in 0..ATTEMPTS_MAX {
        if client.status(job).await.map_err(explained)?.status != JobState::NeedsAttention {
            break;
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
    Ok(())
}

/// `meanwhile jobs show`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn show(args: ShowArgs) -> anyhow::Result<ExitCode> {
    let client = args.api.client()?;
    if args.json {
        let document = client.status_document(&args.job).await.map_err(explained)?;
        println!("{document:#}");
        return Ok(ExitCode::SUCCESS);
    }
    if args.follow {
        return follow::to_the_end(&client, &args.job, false).await.map(follow::code);
    }
    let status = client.status(&args.job).await.map_err(explained)?;
    let events = client.events(&args.job, None).await.map_err(explained)?;
    let mut timeline = Timeline::new(&status);
    timeline.print_new(&status, &events);
    timeline.print_progress(&status, &events);
    timeline.print_end(&status);
    Ok(ExitCode::SUCCESS)
}

/// `meanwhile jobs watch`
pub(crate) async fn watch(args: WatchArgs) -> anyhow::Result<ExitCode> {
    follow::to_the_end(&args.api.client()?, &args.job, args.json).await.map(follow::code)
}

/// The error with its remedy on this command line.
pub(crate) fn explained(error: Error) -> anyhow::Error {
    match &error {
        Error::Unreachable { url, source } => {
            let mut cause: &dyn std::error::Error = source;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            anyhow::anyhow!(
                "the API at {url} does not answer ({cause}); start it with `meanwhile dev`, or name another with --url \
                 or MEANWHILE_URL"
            )
        }
        Error::Problem(_) | Error::Unreadable(_) | Error::Unusable(_) | Error::NotAUrl(_) | Error::NoLocation => {
            error.into()
        }
    }
}

pub(crate) fn input(given: &str) -> anyhow::Result<String> {
    if given == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
        return Ok(text);
    }
    match given.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("reading {file}")),
        None => Ok(given.to_owned()),
    }
}
