//! `meanwhile submit` and `meanwhile jobs`: a caller's view, over HTTP only.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use client::{Client, Error, Events, JobState, Status, TaggedStatus, Verdict};

use crate::cli::SubmitArgs;
use crate::cli::jobs::{CancelArgs, RetryArgs, ShowArgs, SignalArgs, WatchArgs};
use crate::jobs::bulk::Deed;
use crate::timeline::Timeline;

mod bulk;
pub(crate) mod list;

/// Exit codes of `meanwhile jobs watch`, beside 0 and 1; 2 is that of a wrong command line.
const EXIT_CANCELLED: u8 = 3;
const EXIT_NEEDS_ATTENTION: u8 = 4;
/// The interval at which a followed job is read.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
/// Attempts of a request that fails while a job is followed.
const ATTEMPTS_MAX: u32 = 100;

/// `meanwhile submit`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn submit(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    let input = input(&args.input)?;
    let client = Client::new(&args.api.url)?;
    let accepted = client.submit(&args.flow, input, args.key.as_deref()).await.map_err(explained)?;
    if args.follow {
        return Ok(code(follow(&client, &accepted.job).await?));
    }
    println!("{}", accepted.job);
    Ok(ExitCode::SUCCESS)
}

/// `meanwhile jobs retry`: prints the id of the job that runs now, or how many jobs of a choice go on.
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn retry(args: RetryArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api.url)?;
    let Some(job) = args.job else {
        return bulk::run(&client, Deed::Retry, &args.bulk, (None, args.key)).await;
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
    let running = asked.map_err(explained)?.job;
    println!("{running}");
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    until_resumed(&client, &running).await?;
    Ok(code(follow(&client, &running).await?))
}

/// `meanwhile jobs signal`: prints the job's id.
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn signal(args: SignalArgs) -> anyhow::Result<ExitCode> {
    let payload = args.payload.as_deref().map(input).transpose()?;
    let client = Client::new(&args.api.url)?;
    let sent = client.signal(&args.job, &args.name, payload, args.key.as_deref()).await.map_err(explained)?;
    println!("{}", sent.job);
    Ok(ExitCode::SUCCESS)
}

/// `meanwhile jobs cancel`: prints the job's id, or how many jobs of a choice are to be cancelled.
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn cancel(args: CancelArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api.url)?;
    let Some(job) = args.job else {
        return bulk::run(&client, Deed::Cancel, &args.bulk, (args.reason, None)).await;
    };
    client.cancel(&job, args.reason.as_deref()).await.map_err(explained)?;
    println!("{job}");
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    until_resumed(&client, &job).await?;
    follow(&client, &job).await?;
    let ended = client.status(&job).await.map_err(explained)?.status;
    Ok(if ended == JobState::Cancelled { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    let client = Client::new(&args.api.url)?;
    if args.json {
        let document = client.status_document(&args.job).await.map_err(explained)?;
        println!("{document:#}");
        return Ok(ExitCode::SUCCESS);
    }
    if args.follow {
        return Ok(code(follow(&client, &args.job).await?));
    }
    let (status, events) = look(&client, &args.job, None).await.map_err(explained)?;
    let mut timeline = Timeline::new(&status);
    timeline.print_new(&events);
    timeline.print_progress(&status, &events);
    timeline.print_end(&status);
    Ok(ExitCode::SUCCESS)
}

/// `meanwhile jobs watch`
pub(crate) async fn watch(args: WatchArgs) -> anyhow::Result<ExitCode> {
    Ok(match follow(&Client::new(&args.api.url)?, &args.job).await? {
        JobState::Cancelled => ExitCode::from(EXIT_CANCELLED),
        JobState::NeedsAttention => ExitCode::from(EXIT_NEEDS_ATTENTION),
        state => code(state),
    })
}

/// Success when the job has succeeded.
fn code(state: JobState) -> ExitCode {
    if state == JobState::Succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the timeline as it happens, to its end or until the job is parked.
async fn follow(client: &Client, job: &str) -> anyhow::Result<JobState> {
    let mut timeline: Option<Timeline> = None;
    let (mut known, mut after) = (None, None);
    let mut failures = 0;
    loop {
        let (status, events) = match next_look(client, job, &mut known, after.as_deref()).await {
            Ok(Some(seen)) => seen,
            // Nothing has happened, or the API cannot wait now.
            Ok(None) => {
                tokio::time::sleep(FOLLOW_INTERVAL).await;
                continue;
            }
            Err(error) if failures >= ATTEMPTS_MAX || !error.may_pass() => return Err(explained(error)),
            Err(_) => {
                failures += 1;
                tokio::time::sleep(FOLLOW_INTERVAL).await;
                continue;
            }
        };
        failures = 0;
        let timeline = timeline.get_or_insert_with(|| Timeline::new(&status));
        timeline.print_new(&events);
        timeline.print_progress(&status, &events);
        after = events.next.or(after);
        // The status is read before the events, so the events are at least as far.
        if status.status.is_at_rest() {
            timeline.print_end(&status);
            return Ok(status.status);
        }
        if known.is_none() {
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
    }
}

/// As [`look`], once the status is not the known one any more. None if it has stayed so for a while.
async fn next_look(
    client: &Client,
    job: &str,
    known: &mut Option<String>,
    after: Option<&str>,
) -> Result<Option<(Status, Events)>, Error> {
    let Some(TaggedStatus { status, tag }) = client.next_status(job, known.as_deref()).await? else { return Ok(None) };
    let events = client.events(job, after).await?;
    *known = tag;
    Ok(Some((status, events)))
}

async fn look(client: &Client, job: &str, after: Option<&str>) -> Result<(Status, Events), Error> {
    Ok((client.status(job).await?, client.events(job, after).await?))
}

/// The error with its remedy on this command line.
pub(crate) fn explained(error: Error) -> anyhow::Error {
    match &error {
        Error::Unreachable { url, .. } => {
            let remedy =
                format!("the API at {url} does not answer; start it with `meanwhile dev`, or name another with --url");
            anyhow::Error::new(error).context(remedy)
        }
        Error::Problem(_) | Error::Unreadable(_) | Error::Unusable(_) | Error::NoLocation => error.into(),
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
