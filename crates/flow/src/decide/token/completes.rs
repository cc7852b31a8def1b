//! Steps whose answer only accepts the work: the token rests until the callback comes, or between two polls.

use serde_json::{Value, json};

use super::{Decision, Effect, Next, StepError, Token, code, doubt};
use crate::decide::completion::{Kept, Polling, in_vain, signal};
use crate::decide::{Outcome, Rest};
use crate::definition::Completion;
use crate::slip::{Phase, ReleasedBy};

impl Token<'_> {
    /// The work was accepted: from now on it may have its effect.
    pub(in crate::decide) fn accepted_work(
        mut self,
        response: Value,
        retry_after_ms: Option<u64>,
        host: Option<String>,
    ) -> Decision {
        let step = self.definition.step(&self.slip.step);
        match step.and_then(|step| step.completion()) {
            Some(Completion::Callback(_)) => {
                // Released for another reason than its callback, it only goes on waiting.
                let is_known = self.slip.released.is_none() && !self.slip.attempt_uncertain;
                self.wait_for_callback(is_known, None)
            }
            Some(Completion::Poll(poll)) => {
                let after_ms = i64::try_from(poll.timeout_ms).unwrap_or(i64::MAX);
                let polling = Polling { response, end_ms: self.now_ms.saturating_add(after_ms) };
                Kept { poll: Some(polling), ..Kept::of(&self.slip) }.keep_in(&mut self.slip);
                self.may_be_done();
                let told = json!({ "poll": { "host": host, "timeout_ms": poll.timeout_ms } });
                self.rest_until_look(poll.pause_ms(retry_after_ms), Some(told))
            }
            None => self.succeeded(response, None),
        }
    }

    /// The poll has found that the work is not done.
    pub(in crate::decide) fn not_yet(self, retry_after_ms: Option<u64>) -> Decision {
        let poll = self.definition.step(&self.slip.step).and_then(|step| step.poll());
        let (Some(poll), Some(polling)) = (poll, Kept::of(&self.slip).poll) else { return self.unchanged() };
        if polling.end_ms > self.now_ms {
            return self.rest_until_look(poll.pause_ms(retry_after_ms), None);
        }
        match in_vain(format!("`until` did not hold within {} ms", poll.timeout_ms)) {
            Outcome::Failed { error, effect, .. } => self.failed(error, false, effect, None),
            _ => self.unchanged(),
        }
    }

    /// The pause until the next look, or until the last one. `told`: of the poll, as it begins.
    fn rest_until_look(self, pause_ms: u64, told: Option<Value>) -> Decision {
        let end_ms = Kept::of(&self.slip).poll.map_or(self.now_ms, |polling| polling.end_ms);
        let left_ms = u64::try_from(end_ms.saturating_sub(self.now_ms)).unwrap_or_default();
        let is_news = told.is_some();
        self.lie_down(Rest { release_after_ms: Some(pause_ms.min(left_ms)), signal: None }, is_news, told)
    }

    /// `told`: the failure after which the callback is still waited for.
    fn wait_for_callback(mut self, is_known: bool, told: Option<Value>) -> Decision {
        let timeout_ms =
            self.definition.step(&self.slip.step).and_then(|step| step.callback()).map(|callback| callback.timeout_ms);
        let is_known = is_known || (self.slip.released.is_some() && Kept::of(&self.slip).is_known);
        Kept { is_known, ..Kept::of(&self.slip) }.keep_in(&mut self.slip);
        self.slip.attempt = self.attempts();
        self.may_be_done();
        let signal = Some(signal(&self.slip));
        self.lie_down(Rest { release_after_ms: timeout_ms, signal }, true, told)
    }

    /// From now on the step may have had its effect.
    fn may_be_done(&mut self) {
        self.slip.attempt_uncertain = true;
        if self.definition.step(&self.slip.step).is_some_and(|step| !step.is_idempotent()) {
            self.slip = doubt::begun(self.slip.clone());
        }
    }

    /// How long the work of a call that may have been accepted was waited for, in milliseconds.
    pub(super) fn waited_ms(&self) -> u64 {
        let was_in_vain = self.slip.released.as_ref().is_some_and(|released| released.by == ReleasedBy::Time);
        match self.definition.step(&self.slip.step).and_then(|step| step.completion()) {
            Some(Completion::Callback(callback)) if was_in_vain => callback.timeout_ms,
            Some(Completion::Poll(poll)) => Kept::of(&self.slip).poll.map_or(0, |polling| {
                let left_ms = u64::try_from(polling.end_ms.saturating_sub(self.now_ms)).unwrap_or_default();
                poll.timeout_ms.saturating_sub(left_ms)
            }),
            Some(Completion::Callback(_)) | None => 0,
        }
    }

    /// The next call is told another address: no callback of an earlier one ends it.
    pub(super) fn begin_round(&mut self) {
        if self.definition.step(&self.slip.step).is_some_and(|step| step.callback().is_some()) {
            let kept = Kept::of(&self.slip);
            Kept { round: kept.round.saturating_add(1), is_known: false, ..kept }.keep_in(&mut self.slip);
        }
    }

    /// Takes in what a callback of failure, or its absence, says of the attempts so far. The next attempt belongs to
    /// another round: a callback of this one that comes late does not end it.
    /// One that comes when the job's time is over is not heard: the step is undone.
    pub(super) fn hear_callback(&mut self, error: &StepError, retryable: bool) {
        let calls_back = self.definition.step(&self.slip.step).is_some_and(|step| step.callback().is_some());
        let Some(released) = self.slip.released.as_ref().filter(|_| calls_back) else { return };
        if released.by == ReleasedBy::Signal && error.code != code::DEADLINE_EXCEEDED {
            let kept = Kept::of(&self.slip);
            self.slip.attempt_uncertain &= !kept.is_known;
            let round = kept.round.saturating_add(u32::from(retryable));
            Kept { round, is_known: false, ..kept }.keep_in(&mut self.slip);
            if !self.slip.attempt_uncertain {
                self.slip = doubt::cleared(self.slip.clone());
            }
        }
    }

    /// True if the call may have been accepted without an answer, so that its callback may come yet, and no further
    /// attempt is going to be made: it is waited for. A 5xx is an answer: its service knows of no work.
    pub(super) fn may_be_called_back(&self, error: &StepError, effect: Effect) -> bool {
        let calls_back = self.definition.step(&self.slip.step).is_some_and(|step| step.callback().is_some());
        let is_answer = effect == Effect::Unknown && error.status.is_some();
        calls_back && self.slip.released.is_none() && !is_answer && error.code != code::DEADLINE_EXCEEDED
    }

    /// See [`Token::may_be_called_back`].
    pub(super) fn wait_for_late_callback(self, error: &StepError) -> Decision {
        let told = self.failure_of_step(error, self.attempts()).to_json();
        self.wait_for_callback(false, Some(told))
    }

    /// Sent on by an operator, the call is made again. What is left of the visit's callbacks still counts.
    pub(super) fn forget_work(&mut self, is_new_visit: bool) {
        let kept =
            if is_new_visit { Kept::default() } else { Kept { round: Kept::of(&self.slip).round, ..Kept::default() } };
        kept.keep_in(&mut self.slip);
    }

    /// True if the callback of an attempt without an answer may come during a back-off.
    pub(super) fn may_end_early(&self) -> bool {
        let calls_back = self.definition.step(&self.slip.step).is_some_and(|step| step.callback().is_some());
        calls_back && self.slip.phase == Phase::Forward && self.slip.attempt_uncertain
    }

    /// Lets the callback end a back-off.
    pub(super) fn end_early_by_callback(decision: &mut Decision, may_end: bool) {
        if let (true, Next::Hold(hold)) = (may_end, &mut decision.next) {
            hold.signal = Some(signal(&hold.slip));
        }
    }
}
