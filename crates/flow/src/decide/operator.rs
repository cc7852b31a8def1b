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
/// The word of one that says that its step was undone by hand.
pub const UNDONE_BY_HAND: &str = "undone-by-hand";

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
    /// It was done, and somebody has undone it by hand, for this reason.
    Undone(String),
}

impl Said {
    /// The word over HTTP and on Kafka.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded(_) => "succeeded",
            Self::Failed => "failed",
            Self::Undone(_) => "undone",
        }
    }

    /// The direction in which the job goes that it can be said of.
    pub const fn phase(&self) -> Phase {
        match self {
            Self::Succeeded(_) | Self::Failed => Phase::Forward,
            Self::Undone(_) => Phase::Undo,
        }
    }

    /// The word of the feature that whoever takes it in must have.
    pub const fn requires(&self) -> &'static str {
        match self {
            Self::Succeeded(_) | Self::Failed => VERDICTS,
            Self::Undone(_) => UNDONE_BY_HAND,
        }
    }
}

impl Verdict {
    /// As records carry it: `{outcome, output?, reason?, by}`.
    pub fn to_json(&self) -> Value {
        let mut json = json!({ "outcome": self.said.as_str(), "by": self.by });
        match &self.said {
            Said::Succeeded(output) => json["output"] = output.clone(),
            Said::Failed => {}
            Said::Undone(reason) => json["reason"] = reason.as_str().into(),
        }
        json
    }

    /// The reverse of [`Verdict::to_json`].
    pub fn from_json(json: &Value) -> Option<Self> {
        let said = match json.get("outcome")?.as_str()? {
            "succeeded" => Said::Succeeded(json.get("output")?.clone()),
            "failed" => Said::Failed,
            "undone" => Said::Undone(json.get("reason")?.as_str()?.to_owned()),
            _ => return None,
        };
        Some(Self { said, by: json.get("by")?.as_str()?.to_owned() })
    }

    /// The event of the token that goes on with it ([`resumed`]).
    pub fn told_by(&self, resumed: JobEvent) -> JobEvent {
        let mut data = json!({ "outcome": self.said.as_str() });
        if let Said::Undone(reason) = &self.said {
            data["reason"] = reason.as_str().into();
        }
        JobEvent { actor: Some(self.by.clone()), data: Some(data), ..resumed }
    }

    /// The verdict that a slip carries.
    pub(super) fn of(slip: &Slip) -> Option<Self> {
        let released = slip.released.as_ref().filter(|released| released.by == ReleasedBy::Operator)?;
        Self::from_json(released.payload.as_ref()?).filter(|verdict| verdict.said.phase() == slip.phase)
    }

    /// The outcome in place of a call.
    pub(super) fn outcome(self) -> Outcome {
        match self.said {
            Said::Succeeded(output) => Outcome::done(output),
            Said::Failed => {
                let message = "an operator says that it was not done".to_owned();
                let error = StepError { code: code::STEP_FAILED.to_owned(), message, status: None };
                Outcome::Failed { error, retryable: false, effect: Effect::RuledOut, retry_after_ms: None }
            }
            Said::Undone(_) => Outcome::done(Value::Null),
        }
    }
}

/// True if nobody knows how the step of this parked slip has ended.
pub fn awaits_verdict(parked: &Slip) -> bool {
    parked.phase == Phase::Forward && parked.attempt_uncertain
}

/// True if an operator can say so of the step that this parked slip is at.
pub fn can_be_ruled(parked: &Slip, said: &Said) -> bool {
    match said.phase() {
        Phase::Forward => awaits_verdict(parked),
        Phase::Undo => parked.phase == Phase::Undo,
    }
}

/// The slip of a parked step, sent on with a verdict.
#[must_use]
pub fn ruled(mut parked: Slip, verdict: &Verdict) -> Slip {
    parked.released = Some(Released { by: ReleasedBy::Operator, payload: Some(verdict.to_json()) });
    let word = verdict.said.requires();
    if !parked.requires.iter().any(|known| known == word) {
        parked.requires.push(word.to_owned());
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
