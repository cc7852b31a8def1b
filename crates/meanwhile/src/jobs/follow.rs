//! A job, followed to its end: for people as a timeline, for programs as lines of JSON.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use client::{Client, Error, Events, JobState, Status, TaggedStatus};
use serde_json::Value;

use super::{ATTEMPTS_MAX, FOLLOW_INTERVAL, explained};
use crate::timeline::Timeline;

/// Exit codes beside 0 and 1; 2 is that of a wrong command line.
const EXIT_CANCELLED: u8 = 3;
const EXIT_NEEDS_ATTENTION: u8 = 4;
const EXIT_TOO_EARLY: u8 = 5;

/// The one table of exit codes of a job that was followed.
pub(super) fn code(state: JobState) -> ExitCode {
    match state {
        JobState::Succeeded => ExitCode::SUCCESS,
        JobState::Cancelled => ExitCode::from(EXIT_CANCELLED),
        JobState::NeedsAttention => ExitCode::from(EXIT_NEEDS_ATTENTION),
        JobState::Failed
        | JobState::Accepted
        | JobState::Running
        | JobState::Waiting
        | JobState::Compensating
        | JobState::Unknown => ExitCode::FAILURE,
    }
}

/// Waits so long at most, and shows the result.
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
#[expect(clippy::print_stderr, reason = "beside the command's answer")]
pub(super) async fn result(client: &Client, job: &str, longest: Duration, as_json: bool) -> anyhow::Result<ExitCode> {
    let Ok(ended) = tokio::time::timeout(longest, client.wait_for_end(job, FOLLOW_INTERVAL)).await else {
        println!("{job}");
        eprintln!("the job goes on; `meanwhile jobs watch {job}` follows it");
        return Ok(ExitCode::from(EXIT_TOO_EARLY));
    };
    let ended = ended.map_err(explained)?;
    match (as_json, ended.status) {
        (true, _) => println!("{:#}", client.status_document(job).await.map_err(explained)?),
        (false, JobState::Succeeded) => println!("{:#}", ended.result.unwrap_or_default()),
        (false, state) => {
            let more = ended.error.map(|error| format!(": {}", error.message)).unwrap_or_default();
            println!("{job}");
            eprintln!("{}{more}", state.as_str());
        }
    }
    Ok(code(ended.status))
}

/// Shows what happens as it happens, to the job's end or until it is parked.
pub(super) async fn to_the_end(client: &Client, job: &str, as_json: bool) -> anyhow::Result<JobState> {
    let mut shown = if as_json { Shown::Json } else { Shown::Timeline(None) };
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
        after = shown.show(&status, events)?.or(after);
        // The status is read before the events, so the events are at least as far.
        if status.status.is_at_rest() {
            shown.end(client, &status).await?;
            return Ok(status.status);
        }
        if known.is_none() {
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
    }
}

/// The form in which it is shown.
enum Shown {
    /// For people; none before the first look.
    Timeline(Option<Timeline>),
    /// For programs.
    Json,
}

impl Shown {
    /// Shows these events. The cursor to go on with.
    #[expect(clippy::print_stdout, reason = "this is the command's answer")]
    fn show(&mut self, status: &Status, document: Value) -> anyhow::Result<Option<String>> {
        let events: Events = serde_json::from_value(document.clone()).context("the answer is not a list of events")?;
        match self {
            Self::Json => {
                document["events"].as_array().into_iter().flatten().for_each(|event| println!("{event}"));
            }
            Self::Timeline(timeline) => {
                let timeline = timeline.get_or_insert_with(|| Timeline::new(status));
                timeline.print_new(status, &events);
                timeline.print_progress(status, &events);
            }
        }
        Ok(events.next)
    }

    #[expect(clippy::print_stdout, reason = "this is the command's answer")]
    async fn end(&self, client: &Client, status: &Status) -> anyhow::Result<()> {
        match self {
            Self::Json => println!("{}", client.status_document(&status.id).await.map_err(explained)?),
            Self::Timeline(timeline) => timeline.iter().for_each(|timeline| timeline.print_end(status)),
        }
        Ok(())
    }
}

/// The status, once it is not the known one any more, and the events since. None if it has stayed so for a while.
async fn next_look(
    client: &Client,
    job: &str,
    known: &mut Option<String>,
    after: Option<&str>,
) -> Result<Option<(Status, Value)>, Error> {
    let Some(TaggedStatus { status, tag }) = client.next_status(job, known.as_deref()).await? else { return Ok(None) };
    let events = client.events_document(job, after).await?;
    *known = tag;
    Ok(Some((status, events)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_exit_code() {
        let told = [JobState::Succeeded, JobState::Failed, JobState::Cancelled, JobState::NeedsAttention].map(code);
        assert_eq!(told, [0, 1, 3, 4].map(ExitCode::from));
    }
}
