//! Native steps: Rust functions registered by name in a worker binary.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use flow::decide::{Effect, Outcome, StepError, code};
use flow::id::JobId;
use futures_util::FutureExt;
use serde_json::Value;

use crate::cancels::CancelRequest;
use crate::progress::ProgressReporter;

/// The call of a native step.
#[derive(Debug, Clone, PartialEq)]
pub struct NativeCall {
    /// The name under which the function is registered.
    pub name: String,
    /// The step's `with`, or without it the job's input.
    pub input: Value,
    /// The same for every attempt of this visit: hand it on to whatever you call. An undo has one of its own, and so
    /// has a second undo ([`NativeError::nothing_to_undo`]).
    pub idempotency_key: String,
    /// True when the function is to undo what it did under [`NativeCall::undo_of`].
    pub undo: bool,
    /// The time that the call may take, in milliseconds. After that it is dropped, and its outcome counts as unknown.
    pub timeout_ms: u64,
    /// The job that the step belongs to.
    pub job: JobId,
    /// The job's tenant.
    pub tenant: String,
    /// The flow's name.
    pub flow: String,
    /// The step's id.
    pub step: String,
    /// The number of this attempt within the visit, from 1.
    pub attempt: u32,
    /// The caller's correlation id, or ours.
    pub correlation_id: String,
    /// W3C `traceparent` of this attempt: hand it on too.
    pub traceparent: String,
    /// Tells whether somebody wants the job cancelled.
    pub cancel: CancelRequest,
    /// Takes what the function tells of its progress.
    pub progress: ProgressReporter,
}

impl NativeCall {
    /// The idempotency key under which the step was done that is to be undone now.
    pub fn undo_of(&self) -> &str {
        let key = self.idempotency_key.as_str();
        let second = key.strip_suffix(":undo:2");
        second.or_else(|| key.strip_suffix(":undo")).unwrap_or(key)
    }
}

/// The failure of a native step, with the step's own verdict on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NativeError {
    verdict: Verdict,
    message: String,
    retry_after_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Permanent,
    Retryable,
    Uncertain,
    NothingToUndo,
}

impl NativeError {
    /// It was not done, and another attempt would not help: the job turns back.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Permanent, message: message.into(), retry_after_ms: None }
    }

    /// It was not done; another attempt may help.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Retryable, message: message.into(), retry_after_ms: None }
    }

    /// It may have been done; another attempt may help. When the job turns back it is undone.
    pub fn uncertain(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Uncertain, message: message.into(), retry_after_ms: None }
    }

    /// Of an undo: nothing was done under [`NativeCall::undo_of`], so far. It counts as undone. A step whose outcome is
    /// unknown is undone once more after its `settle`: what was called may have its effect late.
    pub fn nothing_to_undo(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::NothingToUndo, message: message.into(), retry_after_ms: None }
    }

    /// The next attempt comes after at least this long.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after_ms = Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        self
    }

    fn into_outcome(self) -> Outcome {
        let (retryable, effect) = match self.verdict {
            Verdict::Permanent => (false, Effect::Refused),
            Verdict::Retryable => (true, Effect::Unsent),
            Verdict::Uncertain => (true, Effect::Unknown),
            Verdict::NothingToUndo => return Outcome::NothingToUndo { status: None },
        };
        failed(code::STEP_FAILED, self.message, retryable, effect, self.retry_after_ms)
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Value, NativeError>> + Send>>;
type Function = Arc<dyn Fn(NativeCall) -> Answer + Send + Sync>;

#[derive(Clone)]
struct Registered {
    function: Function,
    /// The longest silence of a call.
    heartbeat: Option<Duration>,
}

/// The functions of one worker binary, by name.
#[derive(Clone, Default)]
pub(crate) struct Natives {
    functions: HashMap<String, Registered>,
}

impl fmt::Debug for Natives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.functions.keys()).finish()
    }
}

impl Natives {
    pub(crate) fn register<F, A>(&mut self, name: String, function: F)
    where
        F: Fn(NativeCall) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Value, NativeError>> + Send + 'static,
    {
        let function = move |call| -> Answer { Box::pin(function(call)) };
        let registered = Registered { function: Arc::new(function), heartbeat: None };
        let before = self.functions.insert(name.clone(), registered);
        assert!(before.is_none(), "two native steps are registered as `{name}`");
    }

    pub(crate) fn expect_heartbeat(&mut self, name: &str, longest: Duration) {
        let registered = self.functions.get_mut(name);
        registered.unwrap_or_else(|| panic!("no native step is registered as `{name}`")).heartbeat = Some(longest);
    }

    /// Calls the function once. None when there is no such function. Panic and silence are unknown outcomes.
    pub(crate) async fn call(&self, call: NativeCall) -> Option<Outcome> {
        let Registered { function, heartbeat } = self.functions.get(&call.name)?.clone();
        let (timeout, progress) = (Duration::from_millis(call.timeout_ms), call.progress.clone());
        let answer = AssertUnwindSafe(async move { function(call).await }).catch_unwind();
        let in_time = tokio::time::timeout(timeout, answer);
        let ended = match heartbeat {
            None => in_time.await,
            Some(longest) => tokio::select! {
                biased;
                ended = in_time => ended,
                () = progress.is_silent_for(longest) => {
                    let message = format!("no sign of life of the native step for {} ms", longest.as_millis());
                    return Some(failed(code::TIMED_OUT, message, true, Effect::Unknown, None));
                }
            },
        };
        Some(match ended {
            Ok(Ok(Ok(output))) => Outcome::done(output),
            Ok(Ok(Err(error))) => error.into_outcome(),
            Ok(Err(panic)) => {
                let message = format!("the native step panicked: {}", words_of(panic.as_ref()));
                failed(code::STEP_FAILED, message, true, Effect::Unknown, None)
            }
            Err(_) => {
                let message = "no answer within the step's time".to_owned();
                failed(code::TIMED_OUT, message, true, Effect::Unknown, None)
            }
        })
    }
}

/// The message of a panic, if it is text.
pub(crate) fn words_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

fn failed(code: &str, message: String, retryable: bool, effect: Effect, retry_after_ms: Option<u64>) -> Outcome {
    let error = StepError { code: code.to_owned(), message, status: None };
    Outcome::Failed { error, retryable, effect, retry_after_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str) -> NativeCall {
        NativeCall {
            name: name.to_owned(),
            input: Value::Null,
            idempotency_key: "j:s:1:undo".to_owned(),
            undo: true,
            timeout_ms: 1_000,
            job: "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".parse().unwrap(),
            tenant: "t".to_owned(),
            flow: "f".to_owned(),
            step: "s".to_owned(),
            attempt: 1,
            correlation_id: "c".to_owned(),
            traceparent: String::new(),
            cancel: CancelRequest::default(),
            progress: ProgressReporter::new(),
        }
    }

    async fn outcome(
        function: impl Fn(NativeCall) -> Result<Value, NativeError> + Clone + Send + Sync + 'static,
    ) -> (Option<bool>, Option<Effect>) {
        let mut natives = Natives::default();
        natives.register("f".to_owned(), move |call| {
            let function = function.clone();
            async move { function(call) }
        });
        match natives.call(call("f")).await.unwrap() {
            Outcome::Failed { retryable, effect, .. } => (Some(retryable), Some(effect)),
            Outcome::NothingToUndo { .. } => (Some(false), None),
            Outcome::Succeeded { .. }
            | Outcome::Accepted { .. }
            | Outcome::NotYet { .. }
            | Outcome::Skipped
            | Outcome::NotDone
            | Outcome::Rests(_)
            | Outcome::NotSignalled
            | Outcome::Cancelled => (None, None),
        }
    }

    #[tokio::test]
    async fn a_native_step_states_its_own_fate_and_a_panic_is_an_unknown_outcome() {
        assert_eq!(outcome(|_| Ok(Value::Null)).await, (None, None));
        assert_eq!(outcome(|_| Err(NativeError::permanent("no"))).await, (Some(false), Some(Effect::Refused)));
        assert_eq!(outcome(|_| Err(NativeError::retryable("busy"))).await, (Some(true), Some(Effect::Unsent)));
        assert_eq!(outcome(|_| Err(NativeError::uncertain("lost"))).await, (Some(true), Some(Effect::Unknown)));
        assert_eq!(outcome(|_| Err(NativeError::nothing_to_undo("none"))).await, (Some(false), None));
        assert_eq!(outcome(|_| panic!("boom")).await, (Some(true), Some(Effect::Unknown)));
        assert_eq!(Natives::default().call(call("nobody")).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_native_step_that_takes_too_long_is_an_unknown_outcome() {
        let mut natives = Natives::default();
        natives.register("f".to_owned(), |_| std::future::pending());
        let outcome = natives.call(call("f")).await.unwrap();
        assert!(matches!(outcome, Outcome::Failed { effect: Effect::Unknown, retryable: true, .. }), "{outcome:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_native_step_that_hangs_ends_after_its_heartbeat_and_one_that_shows_itself_goes_on() {
        let mut natives = Natives::default();
        let second = Duration::from_secs(1);
        natives.register("f".to_owned(), move |call: NativeCall| async move {
            for _ in 0..5 {
                tokio::time::sleep(second * 9).await;
                if call.attempt == 1 {
                    call.progress.alive();
                }
            }
            Ok(Value::Null)
        });
        natives.expect_heartbeat("f", second * 10);
        let call = |attempt| NativeCall { attempt, timeout_ms: 60_000, ..call("f") };
        assert_eq!(natives.call(call(1)).await, Some(Outcome::done(Value::Null)));
        let began = tokio::time::Instant::now();
        let outcome = natives.call(call(2)).await.unwrap();
        assert!(matches!(outcome, Outcome::Failed { effect: Effect::Unknown, retryable: true, .. }), "{outcome:?}");
        assert_eq!(began.elapsed(), second * 10);
    }

    #[test]
    fn an_undo_knows_the_key_under_which_the_step_was_done() {
        assert_eq!(call("f").undo_of(), "j:s:1");
        let second = NativeCall { idempotency_key: "j:s:1:undo:2".to_owned(), ..call("f") };
        assert_eq!(second.undo_of(), "j:s:1");
    }
}
