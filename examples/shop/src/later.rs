//! Work that is accepted with 202 and done later: the `later` member of a body. Its end is told at the address in
//! `callback`, and how far it is at the one in `progress`, if there is one. It can be read at `Location`, which is
//! `.../{idempotency key}`.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::{Json, http::HeaderName};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Shared;
use crate::answer::Answer;
use crate::book::Wish;
use crate::trade::Trade;

/// The pause between two attempts to call back, and their number: some minutes.
const AGAIN: Duration = Duration::from_millis(250);
const ATTEMPTS_MAX: u32 = 720;
/// Percent.
const HALF: u8 = 50;
/// The longest time that a caller may ask for.
const WAIT_MS_MAX: u64 = 120_000;
const PROBLEM_JSON: &str = "application/problem+json";

/// Where a caller wants to be told of work that is accepted now and done later.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ToldAt {
    /// Its end.
    #[serde(default)]
    pub(crate) callback: Option<String>,
    /// How far it is.
    #[serde(default)]
    pub(crate) progress: Option<String>,
}

/// When and how accepted work ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Later {
    /// It is done and told before the 202 is sent.
    Early,
    /// It is done and told so long after the 202.
    After(Duration),
    /// The same, and told twice.
    Twice(Duration),
    /// It is done and told, and the answer comes so much later that the caller has given up.
    Unanswered(Duration),
    /// It is told as a failure, and not done.
    Failed,
    /// The first time it is told as a failure that may be tried again, then it is done.
    RetryOnce,
    /// It is done, and nobody is told.
    Silent,
}

impl Later {
    /// Reads `after:200`, `early`, ...
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (word, argument) = text.split_once(':').unwrap_or((text, "50"));
        let wait_ms: u64 = argument.parse().map_err(|_| format!("later `{text}`: `{argument}` is not a number"))?;
        let wait = Duration::from_millis(wait_ms.min(WAIT_MS_MAX));
        Ok(match word {
            "early" => Self::Early,
            "after" => Self::After(wait),
            "twice" => Self::Twice(wait),
            "unanswered" => Self::Unanswered(wait),
            "failed" => Self::Failed,
            "retry_once" => Self::RetryOnce,
            "silent" => Self::Silent,
            _ => {
                return Err(format!(
                    "later `{text}` is not known; known are early, after[:MS], twice[:MS], unanswered[:MS], failed, \
                     retry_once, silent"
                ));
            }
        })
    }
}

/// The work of one key, and where its end is told.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) book: Shared,
    pub(crate) client: reqwest::Client,
    pub(crate) key: String,
    pub(crate) wish: Wish,
    pub(crate) traceparent: String,
    pub(crate) told_at: ToldAt,
}

impl Work {
    /// Accepts the work. The same key gets the same answer, and no second piece of work.
    #[expect(clippy::disallowed_methods, reason = "it ends at shutdown, and an example needs no more")]
    pub(crate) async fn accept(self, later: Later) -> Response {
        let location = format!("/{}/{}", self.book.lock().trade.plural(), self.key);
        let answer = (StatusCode::ACCEPTED, [(LOCATION, location)], Json(json!({ "key": self.key }))).into_response();
        let number = self.book.lock().take(&self.key, self.told_at.callback.as_deref());
        let Some(number) = number else { return answer };
        match later {
            Later::Early => self.end_and_tell().await,
            Later::Unanswered(wait) => {
                self.end_and_tell().await;
                tokio::time::sleep(wait).await;
            }
            Later::Silent => drop(self.do_it()),
            Later::After(wait) => drop(tokio::spawn(self.end_after(wait, 1))),
            Later::Twice(wait) => drop(tokio::spawn(self.end_after(wait, 2))),
            Later::RetryOnce if number > 1 => drop(tokio::spawn(self.end_after(Duration::ZERO, 1))),
            Later::RetryOnce => {
                self.book.lock().let_go(&self.key);
                drop(tokio::spawn(async move { self.tell("?outcome=failed&retryable=true", None).await }));
            }
            Later::Failed => drop(tokio::spawn(async move {
                let problem = json!({ "title": "Out of paper", "status": 409 });
                self.tell("", Some((PROBLEM_JSON, problem))).await;
            })),
        }
        answer
    }

    /// Goes on when the caller has given its request up, and this is dropped.
    #[expect(clippy::disallowed_methods, reason = "it ends at shutdown, and an example needs no more")]
    async fn end_and_tell(self) {
        drop(tokio::spawn(async move { self.end_well(1).await }).await);
    }

    async fn end_after(self, wait: Duration, times: u32) {
        tokio::join!(tokio::time::sleep(wait), self.report());
        self.end_well(times).await;
    }

    async fn end_well(&self, times: u32) {
        let done = self.do_it();
        for _ in 0..times {
            match done.status {
                200..300 => self.tell("", Some(("application/json", done.body.clone()))).await,
                _ => self.tell("", Some((PROBLEM_JSON, done.body.clone()))).await,
            }
        }
    }

    fn do_it(&self) -> Answer {
        self.book.lock().create(&self.key, &self.wish, &self.traceparent)
    }

    /// Tells that it is half done. Nobody has to hear it.
    async fn report(&self) {
        let Some(url) = &self.told_at.progress else { return };
        let message = match self.book.lock().trade {
            Trade::Inventory => "it is on the shelf, the box is being packed",
            Trade::Payment => "the bank is asked",
            Trade::Shipping => "it is on its way",
        };
        let report = json!({ "percent": HALF, "message": message });
        drop(self.client.put(url).json(&report).send().await);
    }

    /// Calls back until somebody has heard it.
    async fn tell(&self, query: &str, body: Option<(&str, Value)>) {
        let Some(url) = &self.told_at.callback else { return };
        for _ in 0..ATTEMPTS_MAX {
            let mut request = self.client.post(format!("{url}{query}"));
            if let Some((media_type, body)) = &body {
                let name = HeaderName::from_static("content-type");
                request = request.header(name.as_str(), *media_type).body(body.to_string());
            }
            match request.send().await.map(|answer| answer.status().as_u16()) {
                Ok(status) if status < 500 && status != 429 => {
                    self.book.lock().told(status);
                    return;
                }
                Ok(_) | Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_can_be_asked_for() {
        let ms = Duration::from_millis;
        for (text, later) in [
            ("early", Later::Early),
            ("after", Later::After(ms(50))),
            ("twice:7", Later::Twice(ms(7))),
            ("unanswered:999999999", Later::Unanswered(ms(120_000))),
            ("retry_once", Later::RetryOnce),
        ] {
            assert_eq!(Later::parse(text), Ok(later), "{text}");
        }
        assert!(Later::parse("soon").unwrap_err().contains("known are"));
        assert!(Later::parse("after:soon").unwrap_err().contains("not a number"));
    }
}
