//! A job's token while its next move is decided.

use crate::facts::JobFacts;
use serde_json::Value;

use super::backoff::{IN_PROCESS_BELOW_MS, delay_ms};
use super::completion::{self, Kept};
use super::reply::Reply;
use super::time_left::{deadline_error, is_past, rested};
use super::{Decision, Effect, NewJob, Next, StepError, UNDONE_BY_HAND, VERDICTS, Verdict, code, doubt, respond};
use crate::definition::{Definition, OnFailure, Retry, Step, limit};
use crate::event::{EventKind, JobEvent, JobStatus};
use crate::expression::{Evaluation, ExpressionError, Scope, Template};
use crate::slip::{Carried, CarriedStep, Completed, Failure, Hold, HoldReason, Phase, ReleasedBy, Slip};

mod completes;
mod doubts;
mod fallback;
mod rests;
mod retry;
mod undo;

use rests::too_many_visits;

/// Characters of a failure's message: it travels with the slip to the job's end.
const MESSAGE_CHARS_MAX: usize = 500;

/// A token, and the events that its move has caused so far.
pub(super) struct Token<'a> {
    definition: &'a Definition,
    /// The slip to send, except for its hop, which is that of the slip that came.
    slip: Slip,
    events: Vec<JobEvent>,
    now_ms: i64,
    /// True: the attempt was the probe of a breaker.
    is_probe: bool,
    /// True: the call that its callback ends, or was to end, is counted in the slip already.
    is_counted: bool,
    /// The answer with which its step has just succeeded, where it is of use.
    reply: Option<Box<Reply>>,
}

/// The certainty that a step that counts as done was done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Certainty {
    Certain,
    Uncertain,
}

/// The visit under which a parked step is run again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NextVisit {
    /// Something may have been done under this visit's key, so the next attempt must use it again.
    Same,
    New,
}

impl<'a> Token<'a> {
    /// A job that has just been accepted.
    pub(super) fn accepted(definition: &'a Definition, job: NewJob, now_ms: i64) -> Self {
        let after_ms = definition.deadline_ms().and_then(|after_ms| i64::try_from(after_ms).ok());
        let slip = Slip {
            facts: JobFacts {
                job: job.job,
                tenant: job.tenant,
                flow: definition.name().to_owned(),
                version: definition.version().to_owned(),
                key: job.key,
                correlation_id: job.correlation_id,
                accepted_at_ms: now_ms,
                retry_of: job.retry_of,
            },
            step: String::new(),
            phase: Phase::Forward,
            branch: String::new(),
            hop: 0,
            visit: 0,
            attempt: 0,
            attempt_uncertain: false,
            input: job.input,
            done: Vec::new(),
            failure: None,
            deadline_ms: after_ms.map(|after_ms| now_ms.saturating_add(after_ms)),
            priority: job.priority,
            search: None,
            released: None,
            step_state: None,
            step_left_ms: None,
            visits: Vec::new(),
            requires: Vec::new(),
            answers: Vec::new(),
            carried: Carried::default(),
        };
        let (is_probe, is_counted, reply) = (false, false, None);
        let mut token = Self { definition, slip, events: Vec::new(), now_ms, is_probe, is_counted, reply };
        token.tell_of_job(EventKind::JobAccepted, JobStatus::Accepted, None);
        token
    }

    /// A slip that has come to its step.
    pub(super) fn arrived(definition: &'a Definition, slip: &Slip, now_ms: i64) -> Self {
        // Whatever comes of it: nothing was missing. A step that calls nothing was not done by somebody else.
        let step = definition.step(&slip.step);
        let calls = step.is_none_or(|step| step.action(slip.phase).is_some());
        let attempt_uncertain = calls && doubt::is_uncertain(step, slip);
        let is_probe = slip.pass().is_some_and(|pass| pass.is_probe);
        let is_counted =
            slip.phase == Phase::Forward && step.is_some_and(|step| completion::awaits_callback(step, slip));
        let mut slip = Slip { search: None, attempt_uncertain, ..slip.clone() };
        // A pass is for one attempt.
        slip.released.take_if(|released| released.by == ReleasedBy::Breaker);
        // A verdict is for one outcome.
        slip.requires.retain(|word| word != VERDICTS && word != UNDONE_BY_HAND);
        Self { definition, slip, events: Vec::new(), now_ms, is_probe, is_counted, reply: None }
    }

    /// Sends the token to the first step from there on whose `when` holds; without one, the job ends.
    pub(super) fn forward(mut self, from: usize) -> Decision {
        let definition = self.definition;
        for step in definition.steps().iter().skip(from) {
            let visit = self.next_visit(&step.id);
            self.come_to(&step.id, visit);
            match self.applies(step) {
                Ok(true) if visit > limit::VISITS_MAX => {
                    return self.failed_for_good(too_many_visits(&step.id), 0, Effect::Unsent);
                }
                Ok(true) if is_past(self.slip.deadline_ms, self.now_ms) => {
                    return self.failed_for_good(deadline_error(), 0, Effect::Unsent);
                }
                Ok(true) => return self.send(&step.queue),
                Ok(false) => self.tell(self.step_event(EventKind::StepSkipped, JobStatus::Running, 0)),
                Err(error) => return self.failed_for_good(expression_error(&error), 0, Effect::Unsent),
            }
        }
        self.finish()
    }

    pub(super) fn succeeded(mut self, output: Value, reply: Option<Box<Reply>>) -> Decision {
        let next = self.index_of_step().map_or(usize::MAX, |index| index + 1);
        let is_answer = doubt::asks_first(self.definition, &self.slip);
        let attempts = if is_answer { self.slip.attempt.max(1) } else { self.attempts() };
        let event = self.step_event(EventKind::StepSucceeded, JobStatus::Running, attempts);
        self.tell(JobEvent { actor: self.decided_by(), ..event });
        self.keep_answer(reply.as_deref());
        self.reply = reply;
        self.push_done(Some(output), Certainty::Certain);
        self.forward(next)
    }

    pub(super) fn failed(
        mut self,
        error: StepError,
        retryable: bool,
        effect: Effect,
        retry_after_ms: Option<u64>,
    ) -> Decision {
        if let Some(doubt) = doubt::doubt(self.definition, &self.slip).filter(|_| effect != Effect::Done) {
            return self.verify_failed(doubt, &error, retryable, retry_after_ms);
        }
        self.hear_callback(&error, retryable);
        let attempts = self.attempts_after(&error);
        let uncertain = match effect {
            Effect::Unsent | Effect::Refused => self.slip.attempt_uncertain,
            Effect::Unknown => true,
            Effect::RuledOut | Effect::Done => false,
        };
        self.slip.attempt_uncertain = uncertain;
        let step = self.definition.step(&self.slip.step);
        let policy = step.and_then(|step| step.retry(Phase::Forward)).unwrap_or(Retry::STEP_DEFAULT);
        let is_repeatable = !uncertain || step.is_none_or(Step::is_idempotent);
        let is_tried_again = retryable && is_repeatable && (self.is_probe || attempts < policy.attempts);
        // Where somebody can be asked, the callback is waited for until then.
        let is_asked = step.is_some_and(|step| !step.is_idempotent() && step.verify().is_some());
        if uncertain && !is_tried_again && !is_asked && self.may_be_called_back(&error, effect) {
            return self.wait_for_late_callback(&error);
        }
        if !is_repeatable {
            return self.doubted(&error, retryable);
        }
        if let Some(error) = self.expired(&error, retryable) {
            return self.failed_for_good(error, attempts, Effect::Unsent);
        }
        if is_tried_again {
            return self.retry(&policy, &error, retry_after_ms);
        }
        self.failed_for_good(error, attempts, effect)
    }

    /// The step's `when` does not hold.
    pub(super) fn skipped(mut self) -> Decision {
        let next = self.index_of_step().map_or(usize::MAX, |index| index + 1);
        self.tell(self.step_event(EventKind::StepSkipped, JobStatus::Running, 0));
        self.forward(next)
    }

    /// The step was not run; the job goes back.
    pub(super) fn cancelled(mut self) -> Decision {
        let message = "cancelled on request".to_owned();
        let failure =
            Failure { step: String::new(), code: code::CANCELLED.to_owned(), message, status: None, attempts: 0 };
        if self.slip.attempt_uncertain {
            self.push_done(None, Certainty::Uncertain);
        }
        self.turn_back(failure)
    }

    /// Nothing has happened to it.
    pub(super) fn unchanged(self) -> Decision {
        Decision { next: Next::RetryNow { slip: self.slip, delay_ms: 0 }, events: Vec::new() }
    }

    /// The step failed for good. With [`Effect::Done`] it was done all the same, but its output is lost.
    fn failed_for_good(mut self, error: StepError, attempts: u32, effect: Effect) -> Decision {
        let mut failure = self.failure_of_step(&error, attempts);
        // Without an attempt it is not the call that failed; nor is it where the time is over.
        let of_call = attempts > 0 && effect != Effect::Done && error.code != code::DEADLINE_EXCEEDED;
        if of_call && self.has_fallback() {
            return self.fall_back(&failure, attempts);
        }
        if error == deadline_error() {
            failure.step = String::new();
        } else {
            self.tell_of_failed_step(&failure, attempts);
        }
        let certainty = match (effect, self.slip.attempt_uncertain) {
            (Effect::Done, _) => Some(Certainty::Certain),
            (Effect::Unsent | Effect::Refused | Effect::RuledOut | Effect::Unknown, true) => Some(Certainty::Uncertain),
            (Effect::Unsent | Effect::Refused | Effect::RuledOut | Effect::Unknown, false) => None,
        };
        if self.definition.on_failure() == OnFailure::Park {
            return self.park(&failure, if certainty.is_some() { NextVisit::Same } else { NextVisit::New });
        }
        let step = self.definition.step(&self.slip.step);
        let called_back = step.and_then(|step| completion::called_back_output(step, &self.slip));
        match (certainty, called_back) {
            // Its callback met the deadline: what it was done with serves to undo it.
            (Some(_), Some(output)) => self.push_done(Some(output), Certainty::Certain),
            (Some(certainty), None) => self.push_done(None, certainty),
            (None, _) => {}
        }
        self.turn_back(failure)
    }

    /// Lays the token to rest until an operator decides.
    fn park(mut self, failure: &Failure, next_visit: NextVisit) -> Decision {
        self.tell(JobEvent {
            data: Some(failure.to_json()),
            ..self.step_event(EventKind::JobParked, JobStatus::NeedsAttention, self.attempts())
        });
        if self.slip.phase == Phase::Forward {
            match next_visit {
                NextVisit::Same => self.slip.attempt_uncertain = true,
                NextVisit::New => {
                    self.slip = doubt::cleared(self.slip);
                    self.slip.visit += 1;
                }
            }
            self.slip.deadline_ms = None;
            self.slip.step_left_ms = None;
            if next_visit == NextVisit::Same {
                self.slip = doubt::parked(self.definition.step(&self.slip.step), self.slip);
            }
        }
        // Sent on by an operator, a step that rests rests anew.
        self.slip.released = None;
        self.slip.attempt = 0;
        self.forget_work(next_visit == NextVisit::New);
        self.hold(HoldReason::Attention, None)
    }

    /// Every step was done or skipped.
    fn finish(mut self) -> Decision {
        let reply = self.reply.take();
        match respond::end_of(self.definition, &self.slip, reply) {
            Ok((result, answer)) => {
                let event = self.job_event(EventKind::JobSucceeded, JobStatus::Succeeded);
                self.tell(JobEvent { data: Some(result), answer, ..event });
                Decision { next: Next::End, events: self.events }
            }
            Err(message) => {
                let code = code::EXPRESSION_FAILED.to_owned();
                self.turn_back(Failure { step: String::new(), code, message, status: None, attempts: 0 })
            }
        }
    }

    fn come_to(&mut self, step: &str, visit: u32) {
        step.clone_into(&mut self.slip.step);
        self.slip.visit = visit;
        self.slip.attempt = 0;
        self.slip.attempt_uncertain = false;
        self.slip.released = None;
        self.slip.step_state = None;
        self.slip.step_left_ms = None;
    }

    fn send(mut self, queue: &str) -> Decision {
        self.slip.hop += 1;
        Decision { next: Next::Step { slip: self.slip, queue: queue.to_owned() }, events: self.events }
    }

    fn hold(mut self, reason: HoldReason, release_after_ms: Option<u64>) -> Decision {
        let queue = self.definition.queue_of(&self.slip.step).unwrap_or(limit::QUEUE_DEFAULT).to_owned();
        self.slip.hop += 1;
        let slip = rested(self.slip, release_after_ms.unwrap_or(0));
        let hold = Hold { slip, queue, reason, release_after_ms, signal: None, limit: None };
        Decision { next: Next::Hold(hold), events: self.events }
    }

    fn push_done(&mut self, output: Option<Value>, certainty: Certainty) {
        let uncertain = certainty == Certainty::Uncertain;
        let (step, visit) = (self.slip.step.clone(), self.slip.visit);
        let carried = CarriedStep::default();
        self.slip.done.push(Completed { step, visit, output, uncertain, undone: false, carried });
    }

    /// Keeps the status and headers with which the step has ended, if the flow reads them, in place of earlier ones.
    fn keep_answer(&mut self, reply: Option<&Reply>) {
        self.slip.answers.retain(|answer| answer.step != self.slip.step);
        let is_read = self.definition.step(&self.slip.step).is_some_and(|step| step.answer_is_read);
        self.slip.answers.extend(reply.filter(|_| is_read).map(|reply| reply.step_answer(&self.slip)));
    }

    pub(super) fn applies(&self, step: &Step) -> Result<bool, ExpressionError> {
        let Some(when) = &step.when else { return Ok(true) };
        match self.render(when)? {
            Value::Bool(applies) => Ok(applies),
            _ => Err(ExpressionError::new("`when` gives neither true nor false")),
        }
    }

    fn render(&self, template: &Template) -> Result<Value, ExpressionError> {
        let scope = Scope { input: &self.slip.input, slip: Some(&self.slip), step: None, env: None, more: &[] };
        template.render(&Evaluation::new(scope))
    }

    fn index_of_step(&self) -> Option<usize> {
        self.definition.steps().iter().position(|step| step.id == self.slip.step)
    }

    /// Attempts of this visit, this one included.
    fn attempts(&self) -> u32 {
        if self.is_counted { self.slip.attempt.max(1) } else { self.slip.attempt.saturating_add(1) }
    }

    /// Attempts of this visit. Where the time was over, no call was made any more, unless one was accepted before.
    fn attempts_after(&self, error: &StepError) -> u32 {
        let is_polling = Kept::of(&self.slip).poll.is_some();
        let is_uncalled = error.code == code::DEADLINE_EXCEEDED && !is_polling && !self.is_counted;
        if is_uncalled { self.slip.attempt } else { self.attempts() }
    }

    fn failure_of_step(&self, error: &StepError, attempts: u32) -> Failure {
        Failure {
            step: self.slip.step.clone(),
            code: error.code.clone(),
            message: error.message.chars().take(MESSAGE_CHARS_MAX).collect(),
            status: error.status,
            attempts,
        }
    }

    fn tell_of_job(&mut self, kind: EventKind, status: JobStatus, data: Option<Value>) {
        self.tell(JobEvent { data, ..self.job_event(kind, status) });
    }

    fn job_event(&self, kind: EventKind, status: JobStatus) -> JobEvent {
        let event = JobEvent::about(&self.slip, super::steps_total(self.definition), kind, status, self.now_ms);
        JobEvent { visit: 0, ..event }
    }

    fn step_event(&self, kind: EventKind, status: JobStatus, attempts: u32) -> JobEvent {
        let event = JobEvent::about(&self.slip, super::steps_total(self.definition), kind, status, self.now_ms);
        JobEvent { step: Some(self.slip.step.clone()), attempts, ..event }
    }

    fn tell_of_failed_step(&mut self, failure: &Failure, attempts: u32) {
        self.tell(JobEvent {
            data: Some(failure.to_json()),
            actor: self.decided_by(),
            ..self.step_event(EventKind::StepFailed, JobStatus::Running, attempts)
        });
    }

    fn tell(&mut self, mut event: JobEvent) {
        event.index = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        self.events.push(event);
    }
}

pub(super) fn expression_error(error: &ExpressionError) -> StepError {
    expression_error_of("when", error)
}

/// The failure of the expression under this key of the step.
pub(super) fn expression_error_of(key: &str, error: &ExpressionError) -> StepError {
    let (code, message) = (code::EXPRESSION_FAILED.to_owned(), format!("`{key}`: {error}"));
    StepError { code, message, status: None }
}
