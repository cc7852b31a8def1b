//! Errors of requests.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// The reason for which a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This process can make no HTTP client.
    #[error("no HTTP client can be made")]
    Unusable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The API's address is no URL of HTTP: nothing was sent.
    #[error("{0}")]
    NotAUrl(NotAUrl),
    /// The connection failed, or the answer did not come in time. A request that changes something may have had its
    /// effect.
    #[error("the API at {url} does not answer")]
    Unreachable {
        /// The API's root.
        url: String,
        /// The connection's own error.
        #[source]
        source: reqwest::Error,
    },
    /// The API refuses.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The answer is not what this API sends: another service may listen there.
    #[error("the answer is not JSON of this API")]
    Unreadable(#[source] reqwest::Error),
    /// The answer to a submitted job has no `Location`: another service may listen there.
    #[error("the answer has no Location")]
    NoLocation,
}

impl Error {
    /// True if the same request may succeed a little later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Unreadable(_) => true,
            Self::Problem(problem) => matches!(problem.status, 409 | 429 | 500..),
            Self::NotAUrl(_) | Self::Unusable(_) | Self::NoLocation => false,
        }
    }

    /// The pause that the API asks for before the next attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem(problem) => problem.retry_after,
            Self::NotAUrl(_)
            | Self::Unreachable { .. }
            | Self::Unreadable(_)
            | Self::Unusable(_)
            | Self::NoLocation => None,
        }
    }
}

/// An address that no request can be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAUrl {
    given: String,
    why: String,
}

impl fmt::Display for NotAUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { given, why } = self;
        write!(f, "`{given}` is not the address of an API: {why}; it is a URL such as http://127.0.0.1:8080")
    }
}

/// Refuses what is no URL of HTTP, in words of ours.
pub(crate) fn check_url(given: &str) -> Result<(), Error> {
    let wrong = |why: String| Err(Error::NotAUrl(NotAUrl { given: given.to_owned(), why }));
    match url::Url::parse(given) {
        Ok(url) if !["http", "https"].contains(&url.scheme()) && given.contains("://") => {
            wrong(format!("its scheme is `{}`", url.scheme()))
        }
        Ok(url) if ["http", "https"].contains(&url.scheme()) => Ok(()),
        // `localhost:8080` reads as the scheme `localhost`.
        Ok(_) | Err(url::ParseError::RelativeUrlWithoutBase) => wrong("it has no scheme".to_owned()),
        Err(error) => wrong(error.to_string()),
    }
}

/// A problem document (RFC 9457). Displayed, it is what a person should read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The kind of problem, an absolute URI that resolves to its documentation.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words.
    pub title: String,
    /// The occurrence: what happened to this request.
    pub detail: String,
    /// The next step for the caller.
    pub remediation: String,
    /// Everything that is wrong with the input.
    pub errors: Vec<InvalidInput>,
    /// `Retry-After`.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// One place of the input that the flow's schema refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct InvalidInput {
    /// A JSON pointer into the input, such as `#/qty`.
    pub pointer: String,
    /// The reason.
    pub detail: String,
}

impl Problem {
    /// A body that is no problem document is kept as the detail: a proxy may have answered.
    pub(crate) fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let problem = serde_json::from_slice(body);
        let foreign = |_| Self { detail: String::from_utf8_lossy(body).into_owned(), ..Self::default() };
        Self { status, retry_after, ..problem.unwrap_or_else(foreign) }
    }

    /// The last part of the type: `invalid-input`.
    pub fn name(&self) -> &str {
        self.kind.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = reqwest::StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        write!(f, "{} {}", self.status, reason.unwrap_or_default())?;
        if !self.title.is_empty() {
            write!(f, ": {}", self.title)?;
        }
        if !self.detail.is_empty() {
            write!(f, "\n{}", self.detail)?;
        }
        for InvalidInput { pointer, detail } in &self.errors {
            write!(f, "\n  {pointer}: {detail}")?;
        }
        if !self.remediation.is_empty() {
            write!(f, "\nhelp: {}", self.remediation)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_with_everything_that_is_wrong_and_the_remedy() {
        let body = br##"{"type":"https://example.com/problems/invalid-input","title":"Input is not valid","status":422,
            "detail":"One field is wrong.","errors":[{"detail":"-1 is less than 1","pointer":"#/qty"}],
            "remediation":"Correct the input.","trace_id":"0"}"##;
        let problem = Problem::read(422, None, body);
        assert_eq!(problem.name(), "invalid-input");
        let shown = "422 Unprocessable Entity: Input is not valid\nOne field is wrong.\n  #/qty: -1 is less than 1\n\
                     help: Correct the input.";
        assert_eq!(problem.to_string(), shown);
    }

    #[test]
    fn an_address_that_is_no_url_is_told_with_its_fault() {
        for (given, why) in [
            ("127.0.0.1:8080", "it has no scheme"),
            ("localhost:8080", "it has no scheme"),
            ("/v1", "it has no scheme"),
            ("", "it has no scheme"),
            ("ftp://api", "its scheme is `ftp`"),
            ("http://", "empty host"),
            ("http://api:port", "invalid port number"),
        ] {
            let told = check_url(given).unwrap_err().to_string();
            assert!(told.starts_with(&format!("`{given}` is not the address of an API: {why}; it is a URL")), "{told}");
        }
        assert!(check_url("http://127.0.0.1:8080").is_ok() && check_url("https://api.example/meanwhile/").is_ok());
    }

    #[test]
    fn a_foreign_answer_is_shown_as_it_is() {
        let problem = Problem::read(502, None, b"<h1>Bad Gateway</h1>");
        assert_eq!(problem.to_string(), "502 Bad Gateway\n<h1>Bad Gateway</h1>");
        assert_eq!(problem.name(), "");
    }

    #[test]
    fn only_refusals_that_pass_are_worth_repeating() {
        let passes = |status| Error::Problem(Box::new(Problem::read(status, None, b"{}"))).may_pass();
        assert_eq!([400, 404, 409, 422, 429, 500, 503].map(passes), [false, false, true, false, true, true, true]);
    }
}
