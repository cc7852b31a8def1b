//! An operator's words: a parked job goes on; or a step whose outcome nobody knows has ended so, and the job goes on as
//! if its service had said it.

use serde_json::{Value, json};

use super::{Effect, Outcome, StepError, code};
use crate::event::{EventKind, JobEvent, JobStatus};
use crate::slip::{Phase, Released, ReleasedBy, Slip};

/// The index of [`resumed`] among the events of its hop. A decision never has so many events (steps are limited to
/// 100).
pub const RESUMED_INDEX: u32 = 1_000;

/// The word in [`Slip::requires`] of a slip that carries a verdict: a worker without it would make the call again.
pub const VERDICTS: &str = "verdicts";

/// The operator's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The end of the step.
    pub said: Said,
    /// Whoever said so.
    pub by: String,
}

/// The end of a step, as an operator has found it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It was done, with this output.
    Succeeded(Value),
    /// It was not done.
    Failed,
}

impl Said {
    /// The word over HTTP and on Kafka.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded(_) => "succeeded",
            Self::Failed => "failed",
        }
    }
}

impl Verdict {
    /// As records carry it: `{outcome, output?, by}`.
    pub fn to_json(&self) -> Value {
        let mut json = json!({ "outcome": self.said.as_str(), "by": self.by });
        if let Said::Succeeded(output) = &self.said {
            json["output"] = output.clone();
        }
        json
    }

    /// The reverse of [`Verdict::to_json`].
    pub fn from_json(json: &Value) -> Option<Self> {
        let said = match json.get("outcome")?.as_str()? {
            "succeeded" => Said::Succeeded(json.get("output")?.clone()),
            "failed" => Said::Failed,
            _ => return None,
        };
        Some(Self { said, by: json.get("by")?.as_str()?.to_owned() })
    }

    /// The event of the token that goes on with it ([`resumed`]).
    pub fn told_by(&self, resumed: JobEvent) -> JobEvent {
        JobEvent { actor: Some(self.by.clone()), data: Some(json!({ "outcome": self.said.as_str() })), ..resumed }
    }

    /// The verdict that a slip carries.
    pub(super) fn of(slip: &Slip) -> Option<Self> {
        let released = slip.released.as_ref().filter(|released| released.by == ReleasedBy::Operator)?;
        (slip.phase == Phase::Forward).then_some(())?;
        Self::from_json(released.payload.as_ref()?)
    }

    /// The outcome in place of a call.
    pub(super) fn outcome(self) -> Outcome {
        match self.said {
            Said::Succeeded(output) => Outcome::Succeeded { output },
            Said::Failed => {
                let message = "an operator says that it was not done".to_owned();
                let error = StepError { code: code::STEP_FAILED.to_owned(), message, status: None };
                Outcome::Failed { error, retryable: false, effect: Effect::RuledOut, retry_after_ms: None }
            }
        }
    }
}

/// True if nobody knows how the step of this parked slip has ended.
pub fn awaits_verdict(parked: &Slip) -> bool {
    parked.phase == Phase::Forward && parked.attempt_uncertain
}

/// The slip of a parked step, sent on with a verdict.
#[must_use]
pub fn ruled(mut parked: Slip, verdict: &Verdict) -> Slip {
    parked.released = Some(Released { by: ReleasedBy::Operator, payload: Some(verdict.to_json()) });
    if !parked.requires.iter().any(|word| word == VERDICTS) {
        parked.requires.push(VERDICTS.to_owned());
    }
    parked
}

/// The event to append when an operator sends a parked job on. `slip` is what was held, and goes on unchanged;
/// `steps_total` is how many steps its flow has.
pub fn resumed(slip: &Slip, steps_total: u32, now_ms: i64) -> JobEvent {
    let status = match slip.phase {
        Phase::Forward => JobStatus::Running,
        Phase::Undo => JobStatus::Compensating,
    };
    let event = JobEvent::about(slip, steps_total, EventKind::JobResumed, status, now_ms);
    JobEvent { step: Some(slip.step.clone()), index: RESUMED_INDEX, ..event }
}
