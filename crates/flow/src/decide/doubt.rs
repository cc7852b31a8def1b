//! Steps that must not be repeated blindly (`idempotent: false`): the mark that a call is being begun, and the question
//! whether it was done.
//!
//! A worker commits the mark before it makes such a call. So a slip without it was never begun, whatever happened to
//! the worker that had it, and one with it may have been. `Slip::attempt_uncertain` says nothing of such a step by
//! itself: any slip that is delivered again has it.

use serde_json::{Value, json};

use super::authorize::authorize;
use super::time_left::time_left_ms;
use super::{Effect, Env, HttpCall, Outcome, Prepared, StepError, Verdict, code, completion, request};
use crate::definition::{Definition, Step, Verify};
use crate::expression::Evaluation;
use crate::slip::{Failure, Phase, Slip};

/// Members of [`Slip::step_state`].
const BEGUN: &str = "begun";
const AGAIN: &str = "again";
const VERIFY: &str = "verify";

/// The doubt about a step, while `verify` is asked.
pub(super) struct Doubt {
    /// The reason for it.
    pub(super) failure: Failure,
    /// True if the step may be called again should it not have been done.
    pub(super) retryable: bool,
    /// How often it was asked in vain.
    pub(super) asked: u32,
    /// False: the time after the call was cut short by a deadline, so the call may be under way still.
    pub(super) settled: bool,
}

impl Doubt {
    fn of(slip: &Slip) -> Option<Self> {
        let state = slip.kept(VERIFY)?;
        Some(Self {
            failure: Failure::from_json(state.get("failure")?)?,
            retryable: state.get("retryable")?.as_bool()?,
            asked: state.get("asked")?.as_u64().and_then(|asked| u32::try_from(asked).ok())?,
            settled: state.get("settled")?.as_bool()?,
        })
    }

    /// Notes it in a slip that may have been begun.
    pub(super) fn note(&self, slip: &mut Slip) {
        mark_begun(slip);
        let doubt = json!({
            "failure": self.failure.to_json(),
            "retryable": self.retryable,
            "asked": self.asked,
            "settled": self.settled,
        });
        slip.keep(VERIFY, Some(doubt));
    }
}

fn has(slip: &Slip, member: &str) -> bool {
    slip.kept(member) == Some(&Value::Bool(true))
}

/// The step that must not be repeated, if this slip is to run one.
fn once_only<'d>(definition: &'d Definition, slip: &Slip) -> Option<&'d Step> {
    definition.step(&slip.step).filter(|step| slip.phase == Phase::Forward && !step.is_idempotent())
}

/// The question that a slip asks in place of its step's call. A callback that has come makes it needless.
pub(super) fn asks<'d>(definition: &'d Definition, slip: &Slip) -> Option<(&'d Verify, Doubt)> {
    let step = once_only(definition, slip).filter(|step| !completion::is_called_back(step, slip))?;
    let verify = step.verify()?;
    Some((verify, Doubt::of(slip)?))
}

/// True if the call of this slip must not be made before the slip is committed as begun: see [`detach`](super::detach).
/// One whose call was accepted makes none.
pub fn marks_first(definition: &Definition, slip: &Slip) -> bool {
    let once_only = once_only(definition, slip).filter(|step| !completion::is_under_way(step, slip));
    once_only.is_some() && asks(definition, slip).is_none()
}

/// True if this slip asks whether its step was done, in place of calling it.
pub fn asks_first(definition: &Definition, slip: &Slip) -> bool {
    asks(definition, slip).is_some()
}

/// The slip as another worker gets it, if this one is lost while it makes the call: it may have been begun.
pub fn lost(definition: &Definition, slip: &Slip) -> Slip {
    let slip = super::redelivered(slip.clone());
    if !marks_first(definition, &slip) || Verdict::of(&slip).is_some() {
        return slip;
    }
    // An operator's word holds for one call.
    Slip { released: None, ..begun(slip) }
}

/// A slip whose call may have had its effect.
pub(super) fn begun(mut slip: Slip) -> Slip {
    mark_begun(&mut slip);
    slip
}

fn mark_begun(slip: &mut Slip) {
    slip.keep(AGAIN, None);
    slip.keep(BEGUN, Some(true.into()));
    slip.attempt_uncertain = true;
}

/// The slip of a parked step, as an operator sends it on: it is called again, unless `verify` can tell.
pub(super) fn parked(step: Option<&Step>, slip: Slip) -> Slip {
    let Some(step) = step.filter(|step| !step.is_idempotent()) else { return slip };
    let mut slip = begun(slip);
    slip.keep(VERIFY, None);
    if step.verify().is_none() {
        slip.keep(AGAIN, Some(true.into()));
    }
    slip
}

/// The slip of a step that is known not to have been done.
pub(super) fn cleared(mut slip: Slip) -> Slip {
    [BEGUN, AGAIN, VERIFY].iter().for_each(|member| slip.keep(member, None));
    slip.attempt_uncertain = false;
    slip
}

/// True if an attempt of this visit may have had its effect, as far as the slip tells.
pub(super) fn is_uncertain(step: Option<&Step>, slip: &Slip) -> bool {
    let marks = slip.phase == Phase::Forward && step.is_some_and(|step| !step.is_idempotent());
    slip.attempt_uncertain && (!marks || has(slip, BEGUN))
}

/// The doubt of a slip whose step is being asked about.
pub(super) fn doubt(definition: &Definition, slip: &Slip) -> Option<Doubt> {
    asks(definition, slip).map(|(_, doubt)| doubt)
}

/// What a slip that may have been begun asks for in place of its call: the question, or a word that nobody knows. The
/// question carries no idempotency key: under one, a service might repeat an earlier answer.
pub(super) fn prepare(definition: &Definition, slip: &Slip, env: &Env, now_ms: i64) -> Option<Prepared> {
    let Some((verify, _)) = asks(definition, slip) else {
        let once_only = once_only(definition, slip).filter(|step| !completion::is_under_way(step, slip));
        let is_open = once_only.is_some() && has(slip, BEGUN) && !has(slip, AGAIN);
        return is_open.then(|| Prepared::Outcome(nobody_knows()));
    };
    if definition.is_sandbox() {
        // A simulated call does nothing, whatever its outcome.
        return Some(Prepared::Outcome(Outcome::NotDone));
    }
    let key = slip.idempotency_key();
    let timeout_ms = time_left_ms(verify.timeout_ms, slip, now_ms);
    let evaluation = Evaluation::new(request::scope(slip, &key, env, &[]));
    let request = verify.http.url.render(&evaluation).and_then(|url| {
        let mut headers = request::headers(&verify.http.headers, &evaluation)?;
        let token_client = authorize(verify.http.auth.as_deref(), &mut headers, &evaluation)?;
        let (method, body, idempotency_key) = (verify.http.method.clone(), None, None);
        Ok(HttpCall { method, url, headers, token_client, body, timeout_ms, idempotency_key })
    });
    Some(request.map_or_else(|error| request::unevaluable(&error), Prepared::Http))
}

/// A worker has committed that it begins the call, and nobody knows how it ended.
fn nobody_knows() -> Outcome {
    let message = "a worker that is gone may have made the call".to_owned();
    let error = StepError { code: code::OUTCOME_UNKNOWN.to_owned(), message, status: None };
    Outcome::Failed { error, retryable: true, effect: Effect::Unknown, retry_after_ms: None }
}
