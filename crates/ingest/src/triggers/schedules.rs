//! Jobs that start by the clock. Every ingest comes to every tick; the one whose transaction moves the schedule on
//! stores the job in it, so a tick starts one job.
//!
//! Postgres has the clock. A process sleeps until the next tick, or until another flow is applied.

use std::time::Duration;

use events::time::rfc3339;
use flow::definition::{Definition, Due, Schedule, Trigger};
use flow::id::JobId;
use service_kit::retry::Backoff;
use service_kit::trace::{Kind, Span};
use service_kit::{error_chain, stop_at};
use store::acceptances::{Accepted, accept_batch_in};
use store::schedules::{Known, Reached};
use tokio_util::sync::CancellationToken;

use super::of_trigger;
use crate::accept;
use crate::plan::{JobRequest, Planner};
use crate::state::Api;

/// The longest sleep: the clock may have been set, or this machine may have slept.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// The pause before another look where a schedule has begun.
const SOON: Duration = Duration::from_millis(10);
/// The pause where another process was faster, or there was no room for a job.
const AGAIN: Duration = Duration::from_secs(1);

/// Starts jobs at their times, until shutdown.
pub(super) async fn keep(api: &Api, planner: &Planner, shutdown: &CancellationToken) {
    let mut changes = api.catalog.changes();
    let (mut backoff, mut is_told) = (Backoff::default(), false);
    loop {
        changes.mark_unchanged();
        let looking = shutdown.run_until_cancelled(run_once(api, planner));
        let Some(outcome) = looking.await else { return };
        let pause = match outcome {
            Ok(pause) => {
                backoff.reset();
                is_told = false;
                pause
            }
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(error = error_chain(&error), "schedules cannot be looked at; retrying");
                }
                backoff.next_delay(&api.ids)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = changes.changed() => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// A schedule of an active flow.
struct Scheduled {
    known: Known,
    definition: Definition,
}

impl Scheduled {
    fn of((revision, definition): (i64, Definition)) -> Option<Self> {
        let terms = definition.trigger().and_then(Trigger::schedule)?.terms();
        Some(Self { known: Known { flow: definition.name().to_owned(), revision, terms }, definition })
    }

    fn schedule(&self) -> Option<&Schedule> {
        self.definition.trigger().and_then(Trigger::schedule)
    }
}

/// Starts what is due. Returns the time until the next look.
async fn run_once(api: &Api, planner: &Planner) -> Result<Duration, store::Error> {
    let (now_ms, stored) = store::schedules::all(&api.pool).await?;
    let active = api.catalog.active_revisions();
    for row in &stored {
        let of_row = active.iter().find(|(_, definition)| definition.name() == row.flow);
        let gone = of_row.filter(|(_, it)| it.trigger().and_then(Trigger::schedule).is_none());
        if let Some((revision, _)) = gone.filter(|(revision, _)| *revision > row.revision) {
            store::schedules::forget(&api.pool, &row.flow, *revision).await?;
        }
    }
    let mut pause = LOOK_INTERVAL;
    for scheduled in active.into_iter().filter_map(Scheduled::of) {
        let known = &scheduled.known;
        let row = stored.iter().find(|row| row.flow == known.flow);
        match row {
            Some(row) if row.revision == known.revision && row.terms == known.terms => {
                if tick(api, planner, &scheduled, row, now_ms).await? == Outcome::Again {
                    pause = pause.min(AGAIN);
                }
                let next_ms = scheduled.schedule().and_then(|schedule| schedule.next_ms(now_ms));
                let until_ms = next_ms.map_or(u64::MAX, |next_ms| next_ms.abs_diff(now_ms));
                pause = pause.min(Duration::from_millis(until_ms));
            }
            // Somebody else knows a later version; it will come here, too.
            Some(row) if row.revision > known.revision => {}
            Some(_) | None => {
                store::schedules::begin(&api.pool, known).await?;
                pause = SOON;
            }
        }
    }
    Ok(pause)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It is moved on, with its job or without one.
    Done,
    /// Another process has moved it on, or there is no room now: look again.
    Again,
}

/// Starts the jobs of one schedule that are due.
async fn tick(
    api: &Api,
    planner: &Planner,
    scheduled: &Scheduled,
    row: &Reached,
    now_ms: i64,
) -> Result<Outcome, store::Error> {
    let Some(schedule) = scheduled.schedule() else { return Ok(Outcome::Done) };
    let Due { ticks, reached_ms, skipped } = schedule.due(row.reached_ms, now_ms);
    let Some(reached_ms) = reached_ms else { return Ok(Outcome::Done) };
    let mut from_ms = row.reached_ms;
    for tick_ms in ticks {
        match start(api, planner, scheduled, (from_ms, tick_ms)).await? {
            Outcome::Done => from_ms = tick_ms,
            Outcome::Again => return Ok(Outcome::Again),
        }
    }
    if from_ms < reached_ms && !pass_over(api, scheduled, (from_ms, reached_ms)).await? {
        return Ok(Outcome::Again);
    }
    if skipped > 0 {
        let flow = scheduled.known.flow.as_str();
        count(flow, "skipped", skipped as u64);
        tracing::warn!(flow, ticks = skipped, "ticks of a schedule were missed and left out, as its flow says");
    }
    Ok(Outcome::Done)
}

/// Moves a schedule over ticks that start nothing. False: another process has moved it.
async fn pass_over(api: &Api, scheduled: &Scheduled, span: (i64, i64)) -> Result<bool, store::Error> {
    let mut tx = api.pool.begin().await?;
    let is_moved = store::schedules::advance(&mut tx, &scheduled.known, span).await?;
    if is_moved {
        tx.commit().await?;
    }
    Ok(is_moved)
}

/// Stores the job of one tick, and moves the schedule on, in one transaction.
async fn start(
    api: &Api,
    planner: &Planner,
    scheduled: &Scheduled,
    (from_ms, tick_ms): (i64, i64),
) -> Result<Outcome, store::Error> {
    let (definition, tenant) = (&scheduled.definition, api.config.commands_caller().tenant);
    let (flow, now_ms) = (definition.name(), api.clock.now_ms());
    let job = JobId::new(api.ids.uuid_v7(now_ms));
    let span = Span::begin(Kind::Internal, None, || format!("tick {flow}"));
    span.text("meanwhile.job.id", job);
    let request = JobRequest {
        job,
        tenant: tenant.clone(),
        submitted_by: "trigger:schedule".to_owned(),
        input: scheduled.schedule().map(|schedule| schedule.input(tick_ms)).unwrap_or_default(),
        fallback_key: None,
        idempotency_key: Some(format!("cron {}", rfc3339(tick_ms))),
        correlation_id: api.ids.uuid().to_string(),
        trace: span.carry_on(None, &api.ids),
        now_ms,
        retry_of: None,
        start_after_ms: None,
        start: None,
        webhook: None,
    };
    let acceptance = match planner.plan(definition, request) {
        Ok(acceptance) => of_trigger(acceptance),
        Err(bad) => return refuse(api, scheduled, (from_ms, tick_ms), &format!("{bad:?}")).await,
    };
    let admitted = api.check_capacity(definition).and_then(|()| api.admit((&tenant, flow), &[job]));
    let Ok(mut admission) = admitted else { return Ok(Outcome::Again) };
    let mut tx = api.pool.begin().await?;
    if !store::schedules::advance(&mut tx, &scheduled.known, (from_ms, tick_ms)).await? {
        return Ok(Outcome::Again);
    }
    let accepted = match accept_batch_in(&mut tx, &[acceptance]).await {
        Err(error) if error.is_row_error() => {
            drop(tx);
            return refuse(api, scheduled, (from_ms, tick_ms), &error_chain(&error)).await;
        }
        accepted => accepted?,
    };
    stop_at("ingest.before-tick");
    tx.commit().await?;
    stop_at("ingest.after-tick");
    let is_new = accepted.first() == Some(&Accepted::New);
    if is_new {
        admission.learn(job, Ok(&Accepted::New));
        accept::count(flow);
        tracing::info!(job.id = %job, flow, tenant, tick = rfc3339(tick_ms), "tick accepted");
    }
    count(flow, if is_new { "accepted" } else { "repeated" }, 1);
    Ok(Outcome::Done)
}

/// A tick whose job cannot be: it would not be able to be later.
async fn refuse(
    api: &Api,
    scheduled: &Scheduled,
    (from_ms, tick_ms): (i64, i64),
    reason: &str,
) -> Result<Outcome, store::Error> {
    if !pass_over(api, scheduled, (from_ms, tick_ms)).await? {
        return Ok(Outcome::Again);
    }
    let flow = scheduled.known.flow.as_str();
    count(flow, "refused", 1);
    tracing::error!(flow, tick = rfc3339(tick_ms), reason, "a tick starts no job: its flow does not take the input");
    Ok(Outcome::Done)
}

fn count(flow: &str, outcome: &'static str, ticks: u64) {
    metrics::counter!("meanwhile_schedule_ticks_total", "flow" => flow.to_owned(), "outcome" => outcome)
        .increment(ticks);
}
