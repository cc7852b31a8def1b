//! Steps that rest: until a time, or until a signal comes.

use serde_json::{Value, json};

use super::InputError;
use super::input::Input;
use crate::expression::Template;

/// Characters of the comment on a decision.
const COMMENT_CHARS_MAX: usize = 1_000;

/// A rest until a time.
pub struct Sleep(pub(crate) Until);

/// The end of a sleep.
pub(crate) enum Until {
    /// For so long, as a duration (`10m`).
    For(Template),
    /// Until an instant, in RFC 3339. One that has passed is no rest at all.
    At(Template),
}

/// A rest until a signal comes. Its payload becomes the step's output.
pub struct Wait {
    /// The signal's name.
    pub signal: String,
    /// The schema of its payload.
    pub(super) schema: Option<Input>,
    /// Present if the signal is somebody's decision.
    pub approve: Option<Approve>,
    /// The longest wait in milliseconds; none: as long as the job may take.
    pub timeout_ms: Option<u64>,
    /// The consequence of its end.
    pub on_timeout: OnTimeout,
}

/// A decision that somebody takes: `{decision: approved|rejected, by, comment?}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approve {
    /// Those who may decide; empty: everybody.
    pub by: Vec<String>,
}

/// The consequence of a wait in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnTimeout {
    /// The step has failed.
    Fail,
    /// The job goes on without an output of the step.
    Continue,
    /// The job goes on with this step, without an output of the one that waited.
    Step(String),
}

impl Wait {
    /// The JSON Schema of the payload, if there is one.
    pub fn schema(&self) -> Option<&Value> {
        self.schema.as_ref().map(|schema| &schema.schema)
    }

    /// Checks a payload against the schema: no errors, or all of them.
    pub fn validate(&self, payload: &Value) -> Vec<InputError> {
        self.schema.as_ref().map(|schema| schema.validate(payload)).unwrap_or_default()
    }
}

impl Approve {
    /// The schema of a decision.
    pub(super) fn schema(&self) -> Value {
        let mut by = json!({ "type": "string", "minLength": 1, "maxLength": 200 });
        if !self.by.is_empty() {
            by = json!({ "enum": self.by });
        }
        json!({
            "type": "object",
            "required": ["decision", "by"],
            "additionalProperties": false,
            "properties": {
                "decision": { "enum": ["approved", "rejected"] },
                "by": by,
                "comment": { "type": "string", "maxLength": COMMENT_CHARS_MAX },
            },
        })
    }
}
