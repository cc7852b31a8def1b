//! From a slip to the records that follow from it: read it, call its step, let `flow` decide, encode.
//!
//! Everything ends in records: what cannot be read or understood ends in a dead letter. What is only unreachable now is
//! waited for. Nothing here produces or commits.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Inbound, Reader, Record, Unreadable};
use events::dead_letter::{Class, Refused};
use events::trace::Trace;
use events::{Writer, decode_slip};
use flow::decide::{Decision, Env, NativeCall as PreparedNative, Next, Outcome, Prepared};
use flow::decide::{advance, classify, missing_native, prepare};
use flow::definition::Definition;
use flow::slip::{Hold, HoldReason, Slip};
use futures_util::FutureExt;
use service_kit::retry::Backoff;
use service_kit::trace::Span;
use service_kit::{Clock, Ids, Readiness, error_chain};

use crate::board::{Finished, Work};
use crate::desk::Desk;
use crate::flows::Flows;
use crate::http::Http;
use crate::meters::Meters;
use crate::native::{NativeCall, Natives, words_of};
use crate::spans;
use crate::telemetry;
use crate::topic_limits::TopicLimits;

/// A slip for a queue whose topic is not there rests for so long before it is tried again.
const MISSING_QUEUE_DELAY_MS: u64 = 30_000;

/// Everything that running a step needs. One per process.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    pub(crate) flows: Arc<Flows>,
    pub(crate) http: Http,
    pub(crate) natives: Natives,
    pub(crate) env: Env,
    pub(crate) limits: TopicLimits,
    pub(crate) readiness: Readiness,
    pub(crate) meters: Meters,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
}

impl Runner {
    /// Runs a slip, and then those that waited for it in its lane, until there are none or the partition is revoked.
    pub(crate) async fn run(self: Arc<Self>, desk: Arc<Desk>, mut work: Work) {
        loop {
            let Work { epoch, lane, record, revoked, redelivered } = work;
            let span = spans::process(&record, self.writer.topics.prefix());
            let settled = revoked.run_until_cancelled(self.settle(&record, redelivered, &span)).await;
            let Some((produced, dead)) = settled else {
                return span.fail("revoked", "the partition went to another worker, which runs the step again");
            };
            drop(span);
            match desk.complete(Finished::new(epoch, lane, record, produced, dead)) {
                Some(next) => work = next,
                None => return,
            }
        }
    }

    /// The records that follow from a consumed one, and whether they are a dead letter.
    async fn settle(&self, record: &Inbound, redelivered: bool, span: &Span) -> (Vec<Record>, bool) {
        let followed = AssertUnwindSafe(self.follow(record, redelivered, span)).catch_unwind().await;
        let refused = match followed {
            Ok(Ok(records)) => return (records, false),
            Ok(Err(refused)) => refused,
            Err(panic) => Refused::new(Class::Panicked, format!("the worker panicked: {}", words_of(panic.as_ref()))),
        };
        span.fail(refused.class.as_str(), &refused.reason);
        (vec![self.dead_letter(record, &refused)], true)
    }

    /// The dead letter of a record.
    pub(crate) fn dead_letter(&self, record: &Inbound, refused: &Refused) -> Record {
        telemetry::dead_letter(record, refused);
        self.writer.refused(record, refused, self.clock.now_ms())
    }

    async fn follow(&self, record: &Inbound, redelivered: bool, span: &Span) -> Result<Vec<Record>, Refused> {
        let slip = self.read(record).await?;
        spans::slip(span, &slip);
        let slip = if redelivered { flow::decide::redelivered(slip) } else { slip };
        let definition = self.flows.definition(&slip.flow, &slip.version).await;
        let definition = definition.ok_or_else(|| {
            Refused::new(
                Class::UnknownFlow,
                format!("no flow {}@{} on {}", slip.flow, slip.version, self.writer.topics.flows()),
            )
        })?;
        let trace = span.carry_on(Trace::from_headers(&record.headers), &self.ids);
        self.run_step(&definition, slip, &trace, span).await
    }

    /// Reads the slip; waits for as long as the registry does not answer.
    async fn read(&self, record: &Inbound) -> Result<Slip, Refused> {
        match record.key.as_deref().map(std::str::from_utf8) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(Refused::new(Class::Unreadable, format!("the key is not UTF-8: {error}"))),
            None => return Err(Refused::new(Class::Unreadable, "a slip has a key, this record has none")),
        }
        let mut backoff = Backoff::default();
        let mut waited = false;
        let read = loop {
            match self.reader.read(record.value.as_deref(), decode_slip).await {
                Ok(slip) => break Ok(slip),
                Err(Unreadable::Never(reason)) => break Err(Refused::new(Class::Unreadable, reason)),
                Err(Unreadable::NotNow(error)) => {
                    waited = true;
                    self.readiness.missing("registry", error);
                    tokio::time::sleep(backoff.next_delay(&self.ids)).await;
                }
            }
        };
        if waited {
            self.readiness.ready("registry");
        }
        read
    }

    /// Attempts the step until `flow` decides where the token goes.
    async fn run_step(
        &self,
        definition: &Definition,
        mut slip: Slip,
        trace: &Trace,
        span: &Span,
    ) -> Result<Vec<Record>, Refused> {
        loop {
            let started = Instant::now();
            let decision = match self.attempt(definition, &slip, trace).await {
                Some(outcome) => {
                    let meters = self.meters.of(&slip);
                    telemetry::attempt(&meters, &slip, &outcome, started.elapsed());
                    let failure = spans::failure(span, &outcome);
                    let decision = advance(definition, &slip, outcome, self.clock.now_ms());
                    // A failure that is tried again at once is its attempt's alone.
                    if let Some(error) = failure.filter(|_| !matches!(decision.next, Next::RetryNow { .. })) {
                        span.fail(&error.code, &error.message);
                    }
                    decision
                }
                None => {
                    span.fail("missing-step", "this worker does not have the native step");
                    missing_native(definition, &slip)
                }
            };
            if let Next::RetryNow { slip: again, delay_ms } = decision.next {
                self.meters.of(&again).retried_at_once.increment(1);
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                slip = again;
                continue;
            }
            return self.encode(definition, &slip, decision, trace).await;
        }
    }

    /// One attempt. None: this worker does not have the native step.
    async fn attempt(&self, definition: &Definition, slip: &Slip, trace: &Trace) -> Option<Outcome> {
        match prepare(definition, slip, &self.env, self.clock.now_ms()) {
            Prepared::Outcome(outcome) => Some(outcome),
            Prepared::Http(call) => {
                let span = spans::http(&call, slip, trace);
                let attempt = span.carry_on(Some(trace.clone()), &self.ids);
                let answer = self.http.send(&call, &attempt, &slip.correlation_id).await;
                spans::answered(&span, &answer);
                let outcome = classify(definition, slip, answer, self.clock.now_ms());
                spans::attempted(&span, &outcome);
                Some(outcome)
            }
            Prepared::Native(call) if !self.natives.has(&call.name) => {
                telemetry::missing_native(slip, &call.name);
                None
            }
            Prepared::Native(call) => {
                let span = spans::native(&call.name, slip, trace);
                let attempt = span.carry_on(Some(trace.clone()), &self.ids);
                let outcome = span.run(self.natives.call(native_call(call, slip, &attempt))).await;
                outcome.iter().for_each(|outcome| spans::attempted(&span, outcome));
                outcome
            }
        }
    }

    /// A decision's records. What does not fit into a record is the step's failure.
    async fn encode(
        &self,
        definition: &Definition,
        slip: &Slip,
        decision: Decision,
        trace: &Trace,
    ) -> Result<Vec<Record>, Refused> {
        let misfit = match self.records_that_fit(decision, trace).await {
            Ok(records) => return Ok(records),
            Err(misfit) => misfit,
        };
        let failure = advance(definition, slip, Outcome::too_large(misfit), self.clock.now_ms());
        self.records_that_fit(failure, trace).await.map_err(|misfit| Refused::new(Class::TooLarge, misfit))
    }

    async fn records_that_fit(&self, mut decision: Decision, trace: &Trace) -> Result<Vec<Record>, String> {
        if let Next::Step { queue, .. } = &decision.next
            && !self.limits.has(&self.writer.topics.steps(queue)).await
        {
            decision = rest_until_there(decision);
        }
        let records = self.writer.decision(&decision, trace).map_err(|error| error_chain(&error))?;
        for record in &records {
            if let Some(misfit) = self.limits.misfit(record).await {
                return Err(misfit);
            }
        }
        telemetry::decision(&self.meters, &decision, trace);
        Ok(records)
    }
}

/// The queue's topic is not there yet: the token rests, and goes on by itself.
fn rest_until_there(decision: Decision) -> Decision {
    let Decision { next, events } = decision;
    let next = match next {
        Next::Step { slip, queue } => {
            telemetry::missing_queue(&slip, &queue);
            let release_after_ms = Some(MISSING_QUEUE_DELAY_MS);
            Next::Hold(Hold { slip, queue, reason: HoldReason::MissingStep, release_after_ms })
        }
        other => other,
    };
    Decision { next, events }
}

fn native_call(call: PreparedNative, slip: &Slip, trace: &Trace) -> NativeCall {
    NativeCall {
        name: call.name,
        input: call.input,
        idempotency_key: call.idempotency_key,
        undo: call.undo,
        timeout_ms: call.timeout_ms,
        job: slip.job,
        tenant: slip.tenant.clone(),
        flow: slip.flow.clone(),
        step: slip.step.clone(),
        attempt: slip.attempt + 1,
        correlation_id: slip.correlation_id.clone(),
        traceparent: trace.context.to_string(),
    }
}
