//! Many jobs cancelled or retried with one request.

use serde::{Deserialize, Serialize};

use crate::{Client, Error, JobChoice, Left};

/// The body of `POST /v1/jobs:cancel` and `POST /v1/jobs:retry`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BulkOrder {
    /// Which jobs; it must name something.
    #[serde(flatten)]
    pub choice: JobChoice,
    /// Go on after this place ([`DoneInBulk::next`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Jobs at most, 1 to 200.
    pub max: u32,
    /// Say how many would be chosen, and do nothing.
    pub dry_run: bool,
    /// Of a cancel only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of a retry only: under which finished jobs are started anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// What became of the jobs that an order has chosen.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DoneInBulk {
    /// Jobs that were chosen.
    pub chosen: u64,
    /// Those that are cancelled or go on.
    pub done: u64,
    /// The others.
    pub left: Vec<Left>,
    /// What to go on with; none at the end. A page may be short, or empty, and not the last one.
    pub next: Option<String>,
}

impl Client {
    /// Cancels the jobs of a choice, at most so many at once. May be repeated.
    ///
    /// # Errors
    /// [`Error::Problem`] when the choice is malformed, or nothing can be done at present.
    pub async fn cancel_many(&self, order: &BulkOrder) -> Result<DoneInBulk, Error> {
        self.post("/v1/jobs:cancel", order).await
    }

    /// Sends the parked jobs of a choice on, or starts finished ones anew if its status names them. May be repeated.
    ///
    /// # Errors
    /// As [`Client::cancel_many`].
    pub async fn retry_many(&self, order: &BulkOrder) -> Result<DoneInBulk, Error> {
        self.post("/v1/jobs:retry", order).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_only_what_was_chosen() {
        let choice = JobChoice { flow: Some("order".to_owned()), ..JobChoice::default() };
        let order = BulkOrder { choice, max: 5, ..BulkOrder::default() };
        assert_eq!(serde_json::to_string(&order).unwrap(), r#"{"flow":"order","max":5,"dry_run":false}"#);
    }
}
