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
use futures_util::future::BoxFuture;
use service_kit::retry::Backoff;
use service_kit::trace::Span;
use service_kit::{Clock, Ids, Readiness, error_chain};

use crate::desk::Desk;
use crate::flows::Flows;
use crate::held::Errand;
use crate::http::Http;
use crate::lane_table::LaneTable;
use crate::long_calls::LongCalls;
use crate::meters::Meters;
use crate::native::{NativeCall, Natives, words_of};
use crate::spans;
use crate::task::Task;
use crate::telemetry;
use crate::tenure::{Belongs, Cut};
use crate::topic_limits::TopicLimits;
use crate::work::{Finished, Work};

/// A step that is known to take long leaves its partition after this time: its quick attempts need not.
const LEAVE_SOON: Duration = Duration::from_millis(250);
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
    pub(crate) long_calls: Arc<LongCalls>,
    pub(crate) lanes: Arc<LaneTable>,
    /// A step that has run for so long leaves its partition.
    pub(crate) leave_after: Duration,
    pub(crate) readiness: Readiness,
    pub(crate) meters: Meters,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
}

impl Runner {
    /// Takes a slip, and then those that waited for it in its lane, until there are none or the partition is revoked.
    pub(crate) async fn run(self: Arc<Self>, desk: Arc<Desk>, work: Work) {
        let mut next = Some(work);
        while let Some(work) = next {
            let errand = work.errand.clone();
            let task = Task::new(Arc::clone(&desk), work);
            next = match errand {
                Errand::Run => self.run_slip(&task).await,
                Errand::Rest(lane) => self.rest(&task, &lane).await,
                Errand::Free(lane) => {
                    let produced = lane.iter().map(|lane| lane.tombstone(&self.writer.topics)).collect();
                    let Work { epoch, lane, record, .. } = task.work;
                    desk.complete(Finished::new(epoch, lane, record, produced, false))
                }
            };
        }
    }

    /// The same as a value of a known type: a step that leaves starts the next one of its lane.
    pub(crate) fn run_boxed(self: Arc<Self>, desk: Arc<Desk>, work: Work) -> BoxFuture<'static, ()> {
        self.run(desk, work).boxed()
    }

    /// Runs a slip's step to its end, here or apart from its partition. What may run next in its lane.
    async fn run_slip(self: &Arc<Self>, task: &Task) -> Option<Work> {
        let Work { epoch, lane, record, .. } = &task.work;
        let span = spans::process(record, self.writer.topics.prefix());
        let ended = tokio::select! {
            biased;
            ended = self.settle(task, &span) => Ok(ended),
            cut = task.cut() => Err(cut),
        };
        match ended {
            Ok((produced, dead)) if task.apart().is_none() => {
                drop(span);
                return task.desk.complete(Finished::new(*epoch, *lane, Arc::clone(record), produced, dead));
            }
            Ok((produced, _)) => {
                drop(span);
                if let Some(apart) = task.apart() {
                    let doubtful = task.work.tenure.settle().await == Belongs::Apart { doubtful: true };
                    self.send_outcome(apart, doubtful, &produced).await;
                }
            }
            Err(Cut::Revoked) => {
                span.fail("revoked", "the partition went to another worker, which runs the step again");
            }
            Err(Cut::Lost) => span.fail("lost", "the worker was silent for too long; another one runs the step again"),
            Err(Cut::HandOver) => {
                span.fail("handed-over", "the worker stops; another one runs the step again");
                let trace = Span::none().carry_on(Trace::from_headers(&record.headers), &self.ids);
                if let Some(apart) = task.apart() {
                    match self.outcome_record(apart, Vec::new(), &trace) {
                        Ok(record) => self.send_outcome(apart, false, &[record]).await,
                        Err(error) => tracing::error!(error = error_chain(&error), "a call is not handed over"),
                    }
                }
            }
        }
        None
    }

    /// The records that follow from a consumed one, and whether they are a dead letter. Those of a step that has left
    /// are one record, for whoever keeps its hold.
    async fn settle(self: &Arc<Self>, task: &Task, span: &Span) -> (Vec<Record>, bool) {
        let record = &task.work.record;
        let followed = AssertUnwindSafe(self.follow(task, span)).catch_unwind().await;
        let refused = match followed {
            Ok(Ok(records)) => return (records, false),
            Ok(Err(refused)) => refused,
            Err(panic) => Refused::new(Class::Panicked, format!("the worker panicked: {}", words_of(panic.as_ref()))),
        };
        span.fail(refused.class.as_str(), &refused.reason);
        let letter = self.dead_letter(record, &refused);
        match task.settle().await {
            None => (vec![letter], true),
            Some(apart) => {
                let trace = span.carry_on(Trace::from_headers(&record.headers), &self.ids);
                let outcome = self.outcome_record(apart, vec![letter], &trace);
                // What cannot be told is handed over: the hold must not stay.
                let outcome = outcome.or_else(|_| self.outcome_record(apart, Vec::new(), &trace));
                (outcome.into_iter().collect(), true)
            }
        }
    }

    /// The dead letter of a record.
    pub(crate) fn dead_letter(&self, record: &Inbound, refused: &Refused) -> Record {
        telemetry::dead_letter(record, refused);
        self.writer.refused(record, refused, self.clock.now_ms())
    }

    async fn follow(self: &Arc<Self>, task: &Task, span: &Span) -> Result<Vec<Record>, Refused> {
        let record = &task.work.record;
        let slip = self.read(record).await?;
        spans::slip(span, &slip);
        let slip = if task.work.redelivered { flow::decide::redelivered(slip) } else { slip };
        let definition = self.definition(&slip).await?;
        let trace = span.carry_on(Trace::from_headers(&record.headers), &self.ids);
        self.run_step(&definition, slip, &trace, span, task).await
    }

    /// The flow that a slip names.
    pub(crate) async fn definition(&self, slip: &Slip) -> Result<Definition, Refused> {
        let definition = self.flows.definition(&slip.flow, &slip.version).await;
        definition.ok_or_else(|| {
            Refused::new(
                Class::UnknownFlow,
                format!("no flow {}@{} on {}", slip.flow, slip.version, self.writer.topics.flows()),
            )
        })
    }

    /// Reads the slip; waits for as long as the registry does not answer.
    pub(crate) async fn read(&self, record: &Inbound) -> Result<Slip, Refused> {
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
        self: &Arc<Self>,
        definition: &Definition,
        mut slip: Slip,
        trace: &Trace,
        span: &Span,
        task: &Task,
    ) -> Result<Vec<Record>, Refused> {
        if let Some(resting) = self.without_room(definition, &slip, task) {
            return self.encode(definition, &slip, resting, trace, task).await;
        }
        loop {
            if !task.work.tenure.begin() {
                // The partition is about to go, and its next owner runs the step.
                std::future::pending::<()>().await;
            }
            let started = Instant::now();
            let outcome = self.attempt_or_leave(definition, &slip, trace, task).await;
            if let Some(apart) = task.settle().await {
                slip.hop = apart.token.hop;
            }
            let decision = match outcome {
                Some(outcome) => {
                    let meters = self.meters.of(&slip);
                    let took = started.elapsed();
                    telemetry::attempt(&meters, &slip, &outcome, took);
                    meters.took(took >= self.leave_after);
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
            return self.encode(definition, &slip, decision, trace, task).await;
        }
    }

    /// One attempt. When it takes long, or is known to, the step leaves its partition meanwhile.
    async fn attempt_or_leave(
        self: &Arc<Self>,
        definition: &Definition,
        slip: &Slip,
        trace: &Trace,
        task: &Task,
    ) -> Option<Outcome> {
        let attempt = self.attempt(definition, slip, trace);
        tokio::pin!(attempt);
        if task.apart().is_none() {
            let after = if self.takes_long(slip) { self.leave_after.min(LEAVE_SOON) } else { self.leave_after };
            tokio::select! {
                biased;
                outcome = &mut attempt => return outcome,
                () = task.leave_due(after) => {}
            }
            // A step that hangs has no end yet to be known by: from now on it is known to take long.
            if task.since.elapsed() >= self.leave_after {
                self.meters.of(slip).took(true);
            }
            self.leave(task, definition, slip, trace).await;
        }
        attempt.await
    }

    /// True when the step's attempts are known to take long.
    fn takes_long(&self, slip: &Slip) -> bool {
        self.meters.of(slip).takes_long()
    }

    /// A step that is known to take long rests while too many of its queue are under way.
    fn without_room(&self, definition: &Definition, slip: &Slip, task: &Task) -> Option<Decision> {
        let full = self.takes_long(slip) && self.long_calls.is_full(self.queue_of(&task.work));
        full.then(|| flow::decide::wait_for_room(definition, slip))
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
        task: &Task,
    ) -> Result<Vec<Record>, Refused> {
        let misfit = match self.records_that_fit(decision, trace, task).await {
            Ok(records) => return Ok(records),
            Err(misfit) => misfit,
        };
        let failure = advance(definition, slip, Outcome::too_large(misfit), self.clock.now_ms());
        self.records_that_fit(failure, trace, task).await.map_err(|misfit| Refused::new(Class::TooLarge, misfit))
    }

    async fn records_that_fit(
        &self,
        mut decision: Decision,
        trace: &Trace,
        task: &Task,
    ) -> Result<Vec<Record>, String> {
        if let Next::Step { queue, .. } = &decision.next
            && !self.limits.has(&self.writer.topics.steps(queue)).await
        {
            decision = rest_until_there(decision);
        }
        let mut records = self.writer.decision(&decision, trace).map_err(|error| error_chain(&error))?;
        if let Some(apart) = task.settle().await {
            let outcome = self.outcome_record(apart, records, trace);
            records = vec![outcome.map_err(|error| error_chain(&error))?];
        }
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
