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
        let request = self.http.post(format!("{}/v1/flows/{flow}/jobs{}", self.url, start.query()));
        self.accepted(request.header(CONTENT_TYPE, "application/json").body(input.into()), key).await
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
