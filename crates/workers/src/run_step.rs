//! From a slip to the records that follow from it: read it, call its step, let `flow` decide, encode.
//!
//! Every slip ends in records: one that cannot be read or understood ends in a dead letter. A service that is only
//! unreachable now is waited for. No code here produces or commits.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bus::{Inbound, Reader, Record};
use events::Writer;
use events::dead_letter::{Class, Refused};
use events::lane::HeldLane;
use events::trace::Trace;
use flow::decide::{
    Decision, Env, Next, advance, begin_time, marks_first, steps_total, wait_for_downstream, wait_for_room,
};
use flow::definition::Definition;
use flow::slip::Slip;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use service_kit::trace::Span;
use service_kit::{Clock, Ids, Readiness, error_chain};

use crate::attempt_log::{AttemptLog, Attempted};
use crate::breakers::Breakers;
use crate::cancels::{Cancels, end_if_aborted};
use crate::desk::Desk;
use crate::downstreams::Downstreams;
use crate::ended::Ended;
use crate::flows::Flows;
use crate::halted::Halted;
use crate::held::Errand;
use crate::http::Http;
use crate::lane_table::LaneTable;
use crate::long_calls::LongCalls;
use crate::meters::Meters;
use crate::native::{Natives, words_of};
use crate::not_now::NotNow;
use crate::progress::ProgressTopic;
use crate::spans;
use crate::step_time::StepTime;
use crate::task::Task;
use crate::telemetry;
use crate::tenure::{Belongs, Cut};
use crate::topic_limits::TopicLimits;
use crate::work::{Finished, LaneAfter, Work};

/// A step that is known to take long leaves its partition after this time, and so does one that has waited for long in
/// its lane: quick attempts need not.
const LEAVE_SOON: Duration = Duration::from_millis(250);

/// The error of spans whose step was not run, since something that it needs is not here.
const MISSING: &str = "missing-step";
/// The rest of a slip that was not read in time, before it is tried again, in milliseconds.
const REST_MS: u64 = 10_000;

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
    pub(crate) halted: Halted,
    pub(crate) long_calls: Arc<LongCalls>,
    pub(crate) lanes: Arc<LaneTable>,
    pub(crate) cancels: Arc<Cancels>,
    pub(crate) breakers: Arc<Breakers>,
    pub(crate) downstreams: Arc<Downstreams>,
    pub(crate) progress: ProgressTopic,
    /// The running time after which a step leaves its partition.
    pub(crate) leave_after: Duration,
    pub(crate) readiness: Readiness,
    /// True if the registry did not answer when it was asked last.
    pub(crate) registry_missed: Arc<AtomicBool>,
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
                Errand::Run(_) => self.run_slip(&task).await,
                Errand::Rest(lane, place) => self.rest(&task, lane, place).await,
                Errand::Free(lane) => {
                    let produced = lane.iter().map(|lane| lane.tombstone(&self.writer.topics)).collect();
                    let Work { epoch, lane, record, .. } = task.work;
                    desk.complete(Finished::new(epoch, lane, record, produced, false))
                }
            };
        }
    }

    /// [`Runner::run`], boxed since it calls itself: a step that leaves its partition starts the next of its lane.
    pub(crate) fn run_boxed(self: Arc<Self>, desk: Arc<Desk>, work: Work) -> BoxFuture<'static, ()> {
        self.run(desk, work).boxed()
    }

    /// Runs a slip's step to its end, here or apart from its partition. Returns the slip that may run next in its lane.
    async fn run_slip(self: &Arc<Self>, task: &Task) -> Option<Work> {
        let Work { epoch, lane, record, .. } = &task.work;
        let span = spans::process(record, self.writer.topics.prefix());
        let ended = tokio::select! {
            biased;
            ended = self.settle(task, &span) => Ok(ended),
            cut = task.cut() => Err(cut),
        };
        match ended {
            Ok(ended) if task.apart().is_none() => {
                drop(span);
                let mut records = ended.records;
                if let (Errand::Run(Some(passed)), None) = (&task.work.errand, &ended.holds) {
                    records.push(passed.record(&self.writer.topics));
                }
                let finished = Finished::new(*epoch, *lane, Arc::clone(record), records, ended.dead);
                let holds = ended.holds.map_or(LaneAfter::Same, |lane| LaneAfter::Held(lane, None));
                return task.desk.complete(finished.with_lane(holds));
            }
            Ok(ended) => {
                drop(span);
                if let Some(apart) = task.apart() {
                    let doubtful = task.work.tenure.settle().await == Belongs::Apart { doubtful: true };
                    self.send_outcome(apart, doubtful, &ended.records).await;
                }
            }
            Err(Cut::Revoked) => {
                span.fail("revoked", "the partition went to another worker, which runs the step again");
            }
            Err(Cut::Lost) => span.fail("lost", "the worker was silent for too long; another one runs the step again"),
            Err(Cut::HandOver) => {
                span.fail("handed-over", "the worker stops, or was stopped; another one runs the step again");
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

    /// The records that follow from a consumed record; for a step that has left, in one outcome record.
    async fn settle(self: &Arc<Self>, task: &Task, span: &Span) -> Ended {
        let record = &task.work.record;
        let followed = AssertUnwindSafe(self.follow(task, span)).catch_unwind().await;
        let refused = match followed {
            Ok(Ok(ended)) => return ended,
            Ok(Err(refused)) => refused,
            Err(panic) => Refused::new(Class::Panicked, format!("the worker panicked: {}", words_of(panic.as_ref()))),
        };
        span.fail(refused.class.as_str(), &refused.reason);
        let letter = self.dead_letter(record, &refused);
        match task.settle().await {
            None => Ended { dead: true, ..Ended::from(vec![letter]) },
            Some(apart) => {
                let trace = span.carry_on(Trace::from_headers(&record.headers), &self.ids);
                let outcome = self.outcome_record(apart, vec![letter], &trace);
                // A call whose outcome cannot be written is handed over: the hold must not stay.
                let outcome = outcome.or_else(|_| self.outcome_record(apart, Vec::new(), &trace));
                Ended { dead: true, ..Ended::from(outcome.into_iter().collect::<Vec<_>>()) }
            }
        }
    }

    /// The dead letter of a record.
    pub(crate) fn dead_letter(&self, record: &Inbound, refused: &Refused) -> Record {
        telemetry::dead_letter(record, refused);
        self.writer.refused(record, refused, self.clock.now_ms())
    }

    async fn follow(self: &Arc<Self>, task: &Task, span: &Span) -> Result<Ended, Refused> {
        let trace = span.carry_on(Trace::from_headers(&task.work.record.headers), &self.ids);
        let slip = match self.read(task).await {
            Ok(slip) => slip,
            Err(not_read) => return self.not_read(task, not_read).await,
        };
        spans::slip(span, &slip);
        match self.definition_of(task, &slip).await {
            Some(Ok(definition)) => self.run_step(&definition, slip, &trace, span, task).await,
            Some(Err(missing)) => {
                span.fail(MISSING, &missing.what);
                self.rest_until_there(&slip, 0, &missing, &trace, task).await.map(Ended::from)
            }
            None => self.not_read(task, NotRead::NotNow).await,
        }
    }

    /// A slip that was not read: refused, or at rest as it is, holding its lane.
    async fn not_read(&self, task: &Task, not_read: NotRead) -> Result<Ended, Refused> {
        let rest_ms = match not_read {
            NotRead::Refused(refused) => return Err(refused),
            NotRead::NotNow => REST_MS,
            NotRead::Newer(what) => self.newer_rests_ms(task, &what),
        };
        let (records, lane) = self.rest_until_read(task, rest_ms).await?;
        Ok(Ended { holds: Some(lane), ..Ended::from(records) })
    }

    /// Attempts the step until `flow` decides where the token goes.
    async fn run_step(
        self: &Arc<Self>,
        definition: &Definition,
        slip: Slip,
        trace: &Trace,
        span: &Span,
        task: &Task,
    ) -> Result<Ended, Refused> {
        let mut slip = begin_time(definition, slip);
        let time = StepTime::of(&slip, task);
        if let Some((resting, lane)) = self.without_room(definition, &slip, task) {
            let mut records = self.encode(definition, &slip, resting, trace, task).await?;
            records.push(lane.record(&self.writer.topics));
            return Ok(Ended { holds: Some(lane), ..Ended::from(records) });
        }
        if let Some(sent_on) = self.sent_on(definition, &slip, task).await {
            return self.rest_records(sent_on, trace, task).await.map(Ended::from);
        }
        let mut log = AttemptLog::default();
        loop {
            if !self.may_begin(task).await {
                // The partition is about to go, and its next owner runs the step; or the call was handed over.
                std::future::pending::<()>().await;
            }
            let started = Instant::now();
            time.note(&mut slip);
            let attempted = self.begin(definition, &slip, trace, task).await.map(|Attempted { outcome, excerpt }| {
                Attempted { outcome: end_if_aborted(&mut slip, outcome), excerpt }
            });
            if let Some(apart) = task.settle().await {
                slip.hop = apart.token.hop;
            }
            time.note(&mut slip);
            let decision = match attempted {
                Ok(attempted) => {
                    let took = started.elapsed();
                    self.note(&slip, &attempted, took, &mut log);
                    let failure = spans::failure(span, &attempted.outcome);
                    let mut decision = advance(definition, &slip, attempted.outcome, self.clock.now_ms());
                    log.tell(&mut decision);
                    // A failure that is tried again at once belongs to the attempt's span alone.
                    if let Some(error) = failure.filter(|_| !matches!(decision.next, Next::RetryNow { .. })) {
                        span.fail(&error.code, &error.message);
                    }
                    decision
                }
                Err(NotNow::Doubtful(unbegun)) => {
                    return self.rest_records(*unbegun, trace, task).await.map(Ended::from);
                }
                Err(NotNow::Busy(busy)) => {
                    let queue = self.queue_of(&task.work);
                    let rest = wait_for_downstream(definition, &slip, queue, &busy, self.clock.now_ms());
                    return self.encode(definition, &slip, rest, trace, task).await.map(Ended::from);
                }
                Err(NotNow::Missing(missing)) => {
                    span.fail(MISSING, &missing.what);
                    let rest = self.rest_until_there(&slip, steps_total(definition), &missing, trace, task);
                    return rest.await.map(Ended::from);
                }
            };
            if let Next::RetryNow { slip: again, delay_ms } = decision.next {
                self.meters.of(&again).retried_at_once.increment(1);
                slip = again;
                self.wait_or_leave(definition, &slip, trace, task, Duration::from_millis(delay_ms)).await;
                continue;
            }
            return self.encode(definition, &slip, decision, trace, task).await.map(Ended::from);
        }
    }

    /// An attempt has ended.
    fn note(&self, slip: &Slip, attempted: &Attempted, took: Duration, log: &mut AttemptLog) {
        let meters = self.meters.of(slip);
        telemetry::attempt(&meters, slip, &attempted.outcome, took);
        meters.took(took >= self.leave_after);
        log.note(slip, attempted, took);
    }

    /// Makes one attempt. If it takes long, or is known to, the step leaves its partition meanwhile.
    pub(crate) async fn attempt_or_leave(
        self: &Arc<Self>,
        definition: &Definition,
        slip: &Slip,
        trace: &Trace,
        task: &Task,
    ) -> Result<Attempted, NotNow> {
        let attempt = self.attempt(definition, slip, trace);
        tokio::pin!(attempt);
        if task.apart().is_none() {
            let soon = self.takes_long(slip) || task.work.entered.elapsed() >= self.leave_after;
            let after = if soon { self.leave_after.min(LEAVE_SOON) } else { self.leave_after };
            tokio::select! {
                biased;
                attempted = &mut attempt => return attempted,
                () = task.leave_due(after) => {}
            }
            // A step that hangs has no duration yet: count it as long now.
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

    /// The rest of a step that is going to leave its partition, if its queue has too many long calls. It holds its
    /// lane then.
    fn without_room(&self, definition: &Definition, slip: &Slip, task: &Task) -> Option<(Decision, HeldLane)> {
        let leaves = self.takes_long(slip) || marks_first(definition, slip);
        if !leaves || self.is_cancelled(slip) || !self.long_calls.is_full(self.queue_of(&task.work)) {
            return None;
        }
        let hold = wait_for_room(slip, self.queue_of(&task.work));
        let lane = task.work.lane_held_by(slip.record_key(), &hold.slip.token());
        Some((Decision { next: Next::Hold(hold), events: Vec::new() }, lane))
    }
}

/// Why a slip was not read.
#[derive(Debug)]
pub(crate) enum NotRead {
    /// It never can be.
    Refused(Refused),
    /// The registry did not answer for too long.
    NotNow,
    /// A later version has written it.
    Newer(String),
}
