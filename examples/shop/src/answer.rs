//! The answers of a service.

use serde_json::{Value, json};

use crate::simulate::Simulate;

/// An answer, kept for repetitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) replayed: bool,
    pub(crate) retry_after_s: Option<u64>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: Value) -> Self {
        Self { status, body, replayed: false, retry_after_s: None }
    }

    pub(crate) fn found(body: Value) -> Self {
        Self::new(200, body)
    }

    /// A refusal as problem details.
    pub(crate) fn problem(status: u16, title: &str, detail: &str) -> Self {
        Self::new(status, json!({ "type": "about:blank", "title": title, "status": status, "detail": detail }))
    }
}

/// A failure on request that leaves no trace.
pub(crate) fn failure(simulate: Simulate) -> Answer {
    let (status, retry_after_s) = match simulate {
        Simulate::Error | Simulate::UndoError => (500, None),
        Simulate::Status(status) => (status, None),
        Simulate::Busy(seconds) => (503, Some(seconds)),
        Simulate::Flaky(_) | Simulate::UndoFlaky(_) | Simulate::TimeoutBeforeEffect(_) => (503, None),
        Simulate::Nothing
        | Simulate::OutOfStock
        | Simulate::Declined
        | Simulate::Slow(_)
        | Simulate::TimeoutAfterEffect(_)
        | Simulate::Once(_) => (500, None),
    };
    Answer { retry_after_s, ..Answer::problem(status, "A failure on request", "`simulate` asked for it.") }
}
