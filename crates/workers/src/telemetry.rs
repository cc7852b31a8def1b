//! What a worker counts and says. A failure is logged once, here; so is each transition of a job.

use std::time::Duration;

use bus::{ConsumerError, Inbound};
use events::dead_letter::Refused;
use events::trace::Trace;
use flow::decide::{Decision, Next, Outcome};
use flow::event::{EventKind, JobEvent};
use flow::slip::{HoldReason, Slip};

use crate::meters::{Meters, StepMeters};

/// The target of the lines that tell a job's transitions, so that a log level can be set for them alone.
const TRANSITIONS: &str = "transitions";

/// An attempt of a step has ended.
pub(crate) fn attempt(meters: &StepMeters, slip: &Slip, outcome: &Outcome, took: Duration) {
    meters.seconds.record(took);
    meters.attempts(outcome).increment(1);
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
        metrics::counter!("meanwhile_holds_total", "reason" => hold.reason.as_str()).increment(1);
    }
}

/// A transition of a job.
pub(crate) fn told(told: &JobEvent, trace: &Trace) {
    let JobEvent { job, flow, tenant, kind, attempts, data, .. } = told;
    let step = told.step.as_deref().unwrap_or_default();
    let trace_id = trace.context.trace_id;
    let event = kind.as_str();
    let data = data.as_ref().map(tracing::field::display);
    match kind {
        EventKind::JobParked => {
            tracing::warn!(
                target: TRANSITIONS, event, job.id = %job, flow, step, tenant, %trace_id, failure = data, "transition"
            );
        }
        EventKind::StepFailed | EventKind::StepRetrying | EventKind::JobFailed | EventKind::JobCancelled => {
            tracing::info!(
                target: TRANSITIONS, event, job.id = %job, flow, step, tenant, %trace_id, attempts, failure = data,
                "transition"
            );
        }
        // What else an event carries is a step's output or a job's result: a body, and none of the log's business.
        _ => tracing::info!(
            target: TRANSITIONS, event, job.id = %job, flow, step, tenant, %trace_id, attempts, "transition"
        ),
    }
}

/// A native step that this binary does not have.
pub(crate) fn missing_native(slip: &Slip, name: &str) {
    metrics::counter!("meanwhile_missing_steps_total", "kind" => "native").increment(1);
    tracing::warn!(
        job.id = %slip.job, flow = slip.flow, step = slip.step, native = name,
        "this worker does not have the native step; the job waits for one that has it"
    );
}

/// A queue whose topic does not exist.
pub(crate) fn missing_queue(slip: &Slip, queue: &str) {
    metrics::counter!("meanwhile_missing_steps_total", "kind" => "queue").increment(1);
    tracing::warn!(
        job.id = %slip.job, flow = slip.flow, step = slip.step, queue,
        "the queue has no topic; the job waits for it (`meanwhile flows apply` creates it)"
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

/// What is in flight now.
pub(crate) fn in_flight(slips: usize, running: usize, oldest_age_ms: i64) {
    metrics::gauge!("meanwhile_slips_in_flight").set(slips as f64);
    metrics::gauge!("meanwhile_steps_running").set(running as f64);
    metrics::gauge!("meanwhile_oldest_slip_age_seconds").set(oldest_age_ms.max(0) as f64 / 1_000.0);
}

/// Something befell the consumer that it gets over by itself.
pub(crate) fn consumer(error: &ConsumerError) {
    tracing::warn!(%error, "consumer");
}
