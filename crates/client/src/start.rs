//! Jobs that start later, or that tell of themselves.

use reqwest::header::CONTENT_TYPE;
use url::form_urlencoded::Serializer;

use crate::{Accepted, Client, Error};

/// The time at which a job starts, within a year.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Start {
    /// At once.
    #[default]
    Now,
    /// So long after its acceptance: `15m`.
    After(String),
    /// At this instant, RFC 3339. One that is over is now.
    At(String),
}

impl Start {
    /// The end of the address: nothing, or `?` and the start.
    fn query(&self) -> String {
        let (name, value) = match self {
            Self::Now => return String::new(),
            Self::After(delay) => ("delay", delay),
            Self::At(instant) => ("start_at", instant),
        };
        format!("?{}", Serializer::new(String::new()).append_pair(name, value).finish())
    }
}

/// Where a job is told of, by webhooks of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Callback {
    /// Webhooks are sent there.
    pub url: String,
    /// A `whsec_` or `whsk_` secret; without one the webhooks are not signed.
    pub secret: Option<Secret>,
    /// Types or groups of events, such as `job.*`; without any, the job's end.
    pub events: Vec<String>,
}

/// A secret. It shows itself to nobody but the API.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

/// The terms of a job beside its flow and its input. A repeated request under a key has to name the same ones.
#[derive(Debug, Clone, Default)]
pub struct Terms<'a> {
    /// The idempotency key: a repeated request is the same job.
    pub key: Option<&'a str>,
    /// The time at which it starts.
    pub start: Start,
    /// Where it is told of, beside the endpoints of its tenant.
    pub callback: Option<Callback>,
}

impl Client {
    /// As [`Client::submit`], on these terms.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn submit_on(&self, flow: &str, input: impl Into<String>, terms: &Terms<'_>) -> Result<Accepted, Error> {
        let mut request = self.http.post(format!("{}/v1/flows/{flow}/jobs{}", self.url, terms.start.query()));
        if let Some(Callback { url, secret, events }) = &terms.callback {
            request = request.header("meanwhile-callback-url", url);
            if let Some(Secret(secret)) = secret {
                request = request.header("meanwhile-callback-secret", secret);
            }
            if !events.is_empty() {
                request = request.header("meanwhile-callback-events", events.join(", "));
            }
        }
        self.accepted(request.header(CONTENT_TYPE, "application/json").body(input.into()), terms.key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_part_of_the_address_whatever_it_says() {
        assert_eq!(Start::Now.query(), "");
        assert_eq!(Start::After("15m".to_owned()).query(), "?delay=15m");
        assert_eq!(
            Start::At("2027-01-05T09:30:00+01:00".to_owned()).query(),
            "?start_at=2027-01-05T09%3A30%3A00%2B01%3A00"
        );
    }
}
