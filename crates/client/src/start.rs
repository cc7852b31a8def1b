//! Jobs that start later.

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
    const fn query(&self) -> Option<(&'static str, &String)> {
        match self {
            Self::Now => None,
            Self::After(delay) => Some(("delay", delay)),
            Self::At(instant) => Some(("start_at", instant)),
        }
    }
}

impl Client {
    /// As [`Client::submit`], for a job that starts then. A repeated request under a key has to name the same start.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn submit_starting(
        &self,
        flow: &str,
        input: impl Into<String>,
        key: Option<&str>,
        start: &Start,
    ) -> Result<Accepted, Error> {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(start.query());
        let request = self.http.post(format!("{}/v1/flows/{flow}/jobs?{}", self.url, query.finish()));
        self.accepted(request.header(CONTENT_TYPE, "application/json").body(input.into()), key).await
    }
}
