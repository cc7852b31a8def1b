//! Identities.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The one identity of a job, everywhere (Location, headers, events, idempotency keys): a UUIDv7 (RFC 9562).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// Wraps a UUID that the caller made (ids are handed in, never drawn here).
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// The bare UUID, for the borders that store or send it.
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// The time at which the id was drawn, in milliseconds since the Unix epoch.
    pub const fn created_at_ms(self) -> i64 {
        (self.0.as_u128() >> 80) as i64
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// The identity of one of a job's tokens. Of all slips and holds with one such id there is one at most.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId {
    /// The job that it belongs to.
    pub job: JobId,
    /// The branch of a parallel step; empty on the main line.
    pub branch: String,
    /// The count of its committed moves.
    pub hop: u32,
}

impl TokenId {
    /// A name for a record that is not known to be a token, after its place; no token has one like it.
    pub fn of_place(job: Option<JobId>, place: String) -> Self {
        Self { job: job.unwrap_or_else(|| JobId::new(Uuid::nil())), branch: place, hop: 0 }
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, branch, hop } = self;
        write!(f, "{job}:{branch}:{hop}")
    }
}

/// The text does not name a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a token is `<job>:<branch>:<hop>`, not `{0}`")]
pub struct NotATokenId(String);

impl FromStr for TokenId {
    type Err = NotATokenId;

    fn from_str(text: &str) -> Result<Self, NotATokenId> {
        let parts = text.split_once(':').and_then(|(job, rest)| Some((job, rest.rsplit_once(':')?)));
        let token = parts.and_then(|(job, (branch, hop))| {
            Some(Self { job: job.parse().ok()?, branch: branch.to_owned(), hop: hop.parse().ok()? })
        });
        token.ok_or_else(|| NotATokenId(text.to_owned()))
    }
}

/// The text is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a job id is a UUID such as 0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d, not `{0}`")]
pub struct NotAJobId(String);

impl FromStr for JobId {
    type Err = NotAJobId;

    fn from_str(text: &str) -> Result<Self, NotAJobId> {
        Uuid::try_parse(text).map(Self).map_err(|_| NotAJobId(text.to_owned()))
    }
}
