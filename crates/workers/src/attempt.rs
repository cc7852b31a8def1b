//! One attempt of a step: its downstream may be called, or is to be left alone for now.

use events::breaker::{BreakerNews, BreakerSaid};
use events::trace::Trace;
use events::wait::Wait;
use flow::decide::{
    Busy, HttpAnswer, HttpCall, Missing, MissingKind, NativeCall as PreparedNative, Outcome, Prepared, Simulated, Told,
    classify, downstream, is_polling, poll_host, prepare, told, told_by,
};
use flow::definition::Definition;
use flow::slip::{HoldReason, Phase, Slip};
use service_kit::error_chain;
use service_kit::tasks::spawn_detached;
use service_kit::trace::fresh;
use std::sync::Arc;
use std::time::Duration;

use crate::attempt_log::{Attempted, excerpt};
use crate::cancels::CancelRequest;
use crate::downstreams::Permit;
use crate::native::NativeCall;
use crate::not_now::NotNow;
use crate::progress::ProgressReporter;
use crate::run_step::Runner;
use crate::spans;

impl Runner {
    /// Makes one attempt, or says why none is made at this worker now.
    pub(crate) async fn attempt(
        &self,
        definition: &Definition,
        slip: &Slip,
        trace: &Trace,
    ) -> Result<Attempted, NotNow> {
        let prepared = prepare(definition, slip, &self.env, self.clock.now_ms());
        let downstream = downstream(definition, slip, &prepared);
        if let Some(downstream) = &downstream
            && !self.breakers.lets(downstream, slip.pass())
        {
            let (downstream, reason) = (downstream.clone(), HoldReason::Breaker);
            return Err(NotNow::Busy(Busy { downstream, reason, after_ms: None }));
        }
        let _permit = self.permit(definition, slip, downstream.as_deref()).await?;
        let (attempted, told) = match prepared {
            Prepared::Outcome(outcome) => return Ok(outcome.into()),
            Prepared::Missing(missing) => return Err(NotNow::Missing(missing)),
            Prepared::Simulated(simulated) => return Ok(self.simulate(definition, slip, simulated).await.into()),
            Prepared::Http(call) => self.call_http(definition, slip, &call, trace).await,
            Prepared::Native(call) => {
                let called = self.call_native(definition, slip, call, trace).await.map_err(NotNow::Missing)?;
                let told = told(&called.outcome);
                (called, told)
            }
        };
        if let Some(downstream) = downstream {
            self.tell(&downstream, slip, told);
        }
        Ok(attempted)
    }

    /// The room that the downstream has for one more call. A probe has room in any case.
    async fn permit(
        &self,
        definition: &Definition,
        slip: &Slip,
        downstream: Option<&str>,
    ) -> Result<Option<Permit>, NotNow> {
        let Some(downstream) = downstream.filter(|_| !slip.pass().is_some_and(|pass| pass.is_probe)) else {
            return Ok(None);
        };
        let declared = definition.step(&slip.step).map(|step| step.limits).unwrap_or_default();
        let limits = self.flows.limits_of(downstream, declared);
        let entered = self.downstreams.enter(downstream, limits, slip.attempt > 0).await;
        entered.map(Some).map_err(|rest_ms| {
            let (downstream, reason) = (downstream.to_owned(), HoldReason::Limit);
            NotNow::Busy(Busy { downstream, reason, after_ms: Some(rest_ms) })
        })
    }

    /// Lets the time of a simulated call pass. A long one leaves its partition, as a call does.
    async fn simulate(&self, definition: &Definition, slip: &Slip, simulated: Simulated) -> Outcome {
        let passing = tokio::time::sleep(Duration::from_millis(simulated.after_ms));
        match self.unless_cancelled(definition, slip, passing).await {
            Some(()) => simulated.outcome,
            None => self.aborted(definition, slip),
        }
    }

    async fn call_http(
        &self,
        definition: &Definition,
        slip: &Slip,
        call: &HttpCall,
        trace: &Trace,
    ) -> (Attempted, Told) {
        let span = spans::http(call, slip, trace);
        let attempt = span.carry_on(Some(trace.clone()), &self.ids);
        let sending = self.http.send(call, slip, &attempt, self.keep_as(definition, slip, call));
        // A call that only asks, a poll or a `verify`, is no attempt of the step.
        let (is_attempt, nobody) = (call.idempotency_key.is_some(), ProgressReporter::default());
        let telling = self.telling((slip, trace), &nobody, is_attempt, sending);
        let answer = self.unless_cancelled(definition, slip, telling).await.unwrap_or(HttpAnswer::Aborted);
        spans::answered(&span, &answer);
        let told = told_by(&answer);
        let excerpt = excerpt(definition, slip, &answer, &self.env);
        let outcome = classify(definition, slip, answer, self.clock.now_ms());
        let outcome = poll_host(definition, slip, outcome, &self.env);
        spans::attempted(&span, &outcome);
        (Attempted { outcome, excerpt }, told)
    }

    /// The name of the document that the answer becomes, where it is the step's output and has to lie in the store. No
    /// two attempts share one: another worker may make the same attempt, and be answered with other bytes.
    fn keep_as(&self, definition: &Definition, slip: &Slip, call: &HttpCall) -> Option<String> {
        let is_output = call.idempotency_key.is_some() || is_polling(definition, slip);
        let name = || format!("{}-{}", slip.step, self.ids.uuid().simple());
        (slip.phase == Phase::Forward && is_output).then(name)
    }

    async fn call_native(
        &self,
        definition: &Definition,
        slip: &Slip,
        call: PreparedNative,
        trace: &Trace,
    ) -> Result<Attempted, Missing> {
        let span = spans::native(&call.name, slip, trace);
        let attempt = span.carry_on(Some(trace.clone()), &self.ids);
        let what = format!("this worker does not have the native step `{}`", call.name);
        let reporter = ProgressReporter::new();
        let call = native_call(call, slip, &attempt, self.cancel_request(slip), reporter.clone());
        let calling = span.run(self.natives.call(call));
        let telling = self.telling((slip, trace), &reporter, true, calling);
        let outcome = self.unless_cancelled(definition, slip, telling).await;
        let outcome = outcome.unwrap_or_else(|| Some(self.aborted(definition, slip)));
        outcome.iter().for_each(|outcome| spans::attempted(&span, outcome));
        outcome.map(Attempted::from).ok_or(Missing { kind: MissingKind::Native, what })
    }

    /// Counts a call of the downstream, and tells the owner of its breaker if that is news.
    fn tell(&self, downstream: &str, slip: &Slip, told: Told) {
        let now_ms = self.clock.now_ms();
        let Some(said) = self.breakers.note(downstream, slip.pass(), told, now_ms) else { return };
        match &said {
            BreakerSaid::Failing { calls, failures, .. } => {
                tracing::warn!(downstream, calls, failures, "too many calls fail; its breaker is asked to open");
            }
            BreakerSaid::Probed { answered, .. } => tracing::info!(downstream, answered, "probe ended"),
            BreakerSaid::Order { .. } => {}
        }
        let (downstream, id) = (downstream.to_owned(), self.ids.uuid().to_string());
        let news = BreakerNews { downstream, said, id, at_ms: now_ms };
        match self.writer.wait(&Wait::Breaker(news), &fresh(&self.ids, 0)) {
            Ok(record) => {
                let long_calls = Arc::clone(&self.long_calls);
                spawn_detached(async move { long_calls.send(&record).await });
            }
            Err(error) => tracing::error!(error = error_chain(&error), "news of a breaker cannot be written"),
        }
    }
}

fn native_call(
    call: PreparedNative,
    slip: &Slip,
    trace: &Trace,
    cancel: CancelRequest,
    progress: ProgressReporter,
) -> NativeCall {
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
        cancel,
        progress,
    }
}
