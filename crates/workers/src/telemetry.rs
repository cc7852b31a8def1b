//! Metrics and log lines of a worker. A failure is logged once, here; so is each transition of a job.

use std::time::Duration;

use bus::{ConsumerError, Inbound};
use events::dead_letter::Refused;
use events::trace::Trace;
use flow::decide::{Decision, Missing, MissingKind, Next, Outcome};
use flow::event::{EventKind, JobEvent};
use flow::facts::JobFacts;
use flow::slip::{HoldReason, Slip};
use service_kit::error_chain;

use crate::attempt_log::without_log;
use crate::meters::{Meters, StepMeters};

/// The target of the lines that tell a job's transitions, so that a log level can be set for them alone.
const TRANSITIONS: &str = "transitions";
/// From this attempt on a failed one is worth a person's look: the first ones pass by themselves, mostly.
const LATE_ATTEMPT: u32 = 3;

/// An attempt of a step has ended.
pub(crate) fn attempt(meters: &StepMeters, slip: &Slip, outcome: &Outcome, took: Duration) {
    // Nothing tells how long it would have taken.
    if *outcome != Outcome::Cancelled {
        meters.seconds.record(took);
    }
    meters.attempts(outcome).inspect(|counter| counter.increment(1));
    if let Outcome::Failed { error, .. } = outcome {
        tracing::debug!(
            job.id = %slip.job, flow = slip.flow, step = slip.step, attempt = slip.attempt + 1, code = error.code,
            error = error.message, "attempt failed"
        );
    }
}

/// A decision is about to be produced.
pub(crate) fn decision(meters: &Meters, decision: &Decision, trace: &Trace) {
    for event in &decision.events {
        told(event, trace);
    }
    if let Next::Hold(hold) = &decision.next {
        if hold.reason == HoldReason::Backoff {
            meters.of(&hold.slip).retried_after_hold.increment(1);
        }
        metrics::counter!("meanwhile_holds_total", "reason" => hold.reason.as_str().to_owned()).increment(1);
    }
}

/// A transition of a job.
pub(crate) fn told(told: &JobEvent, trace: &Trace) {
    let JobEvent { facts: JobFacts { job, flow, tenant, .. }, kind, attempts, data, .. } = told;
    let step = told.step.as_deref().unwrap_or_default();
    let trace_id = trace.context.trace_id;
    let event = kind.as_str();
    let failure = || data.as_ref().map(without_log).map(tracing::field::display);
    match kind {
        EventKind::JobParked => {
            tracing::warn!(
                target: TRANSITIONS, event, job.id = %job, flow, step, tenant, %trace_id, failure = failure(),
                "transition"
            );
        }
        EventKind::StepFailed | EventKind::JobFailed => {
            tracing::info!(
                target: TRANSITIONS, event, job.id = %job, flow, step, tenant, %trace_id, attempts, failure = failure(),
                "transition"
            );
        }
        EventKind::StepRetrying if *attempts >= LATE_ATTEMPT => {
            tracing::info!(
                target: TRANSITIONS, event, job.id = %job, flow, step, tenant, %trace_id, attempts, failure = failure(),
                "transition"
            );
        }
        EventKind::StepRetrying | EventKind::JobCancelled => {
            tracing::debug!(
                target: TRANSITIONS, event, job.id = %job, flow, step, tenant, %trace_id, attempts, failure = failure(),
                "transition"
            );
        }
        // The data of other events is a step's output or a job's result: bodies do not belong in the log.
        _ => tracing::debug!(
            target: TRANSITIONS, event, job.id = %job, flow, step, tenant, %trace_id, attempts, "transition"
        ),
    }
}

/// A slip needs what is not here. `is_news`: it is told of once more.
pub(crate) fn missing(slip: &Slip, missing: &Missing, is_news: bool) {
    let (kind, what) = (missing.kind.as_str(), &missing.what);
    metrics::counter!("meanwhile_missing_steps_total", "kind" => kind).increment(1);
    if is_news {
        tracing::warn!(
            job.id = %slip.job, flow = slip.flow, step = slip.step, kind, what,
            "something that the step needs is missing; the job waits for it"
        );
    }
}

/// A slip that a later version has written, and this one would not take whole.
pub(crate) fn newer(record: &Inbound, what: &str) {
    metrics::counter!("meanwhile_missing_steps_total", "kind" => MissingKind::Version.as_str()).increment(1);
    let Inbound { topic, partition, offset, .. } = record;
    tracing::warn!(
        topic,
        partition,
        offset,
        what,
        "a later version has written this slip; it waits for a worker of it"
    );
}

/// A record becomes a dead letter.
pub(crate) fn dead_letter(record: &Inbound, refused: &Refused) {
    let (class, reason) = (refused.class.as_str(), &refused.reason);
    metrics::counter!("meanwhile_dead_letters_total", "role" => "workers", "class" => class).increment(1);
    let Inbound { topic, partition, offset, .. } = record;
    tracing::error!(topic, partition, offset, class, reason, "a record becomes a dead letter");
}

/// A transaction has ended.
pub(crate) fn transaction(outcome: &'static str, results: usize, took: Duration) {
    metrics::counter!("meanwhile_transactions_total", "role" => "workers", "outcome" => outcome).increment(1);
    metrics::histogram!("meanwhile_transaction_size", "role" => "workers").record(results as f64);
    metrics::histogram!("meanwhile_transaction_seconds", "role" => "workers").record(took);
}

/// Sets the gauges of the slips in flight.
pub(crate) fn in_flight(slips: usize, running: usize, oldest_age_ms: i64) {
    metrics::gauge!("meanwhile_slips_in_flight").set(slips as f64);
    metrics::gauge!("meanwhile_steps_running").set(running as f64);
    metrics::gauge!("meanwhile_oldest_slip_age_seconds").set(oldest_age_ms.max(0) as f64 / 1_000.0);
}

/// Logs an error of the consumer from which it recovers by itself.
pub(crate) fn consumer(error: &ConsumerError) {
    tracing::warn!(error = error_chain(error), "consumer");
}
