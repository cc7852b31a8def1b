//! The log of deliveries, newest first. Every query is of one tenant.

use uuid::Uuid;

use crate::{Error, Pool};

/// The status of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// An attempt is under way, or will be.
    Pending,
    Delivered,
    /// Given up.
    Failed,
}

impl Status {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    /// The word used in Postgres and over HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    /// The reverse of [`Status::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// The choice of deliveries; what is none chooses all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice {
    pub endpoint: Option<Uuid>,
    pub job: Option<Uuid>,
    pub status: Option<Status>,
    /// Older than this one.
    pub below: Option<Uuid>,
}

/// A delivery in the log. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: Uuid,
    pub endpoint: Uuid,
    /// To the job's own webhook: `endpoint` is its receiver.
    pub of_job: bool,
    pub job: Option<Uuid>,
    pub kind: String,
    pub status: Status,
    pub attempts: i32,
    pub created_at_ms: i64,
    /// While it is pending: the next attempt, or the end of the lease of the one under way.
    pub due_at_ms: Option<i64>,
    pub ended_at_ms: Option<i64>,
    /// The receiver's body, as it is sent.
    pub body: Vec<u8>,
}

/// An attempt, as it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub attempt: i32,
    pub ended_at_ms: i64,
    pub duration_ms: i64,
    pub status: Option<i32>,
    pub error: Option<String>,
    pub detail: Option<String>,
    pub answer: Vec<u8>,
}

struct Row {
    id: Uuid,
    endpoint: Uuid,
    of_job: bool,
    job: Option<Uuid>,
    kind: String,
    status: String,
    attempts: i32,
    created_at_ms: i64,
    due_at_ms: Option<i64>,
    ended_at_ms: Option<i64>,
    body: Vec<u8>,
}

impl Row {
    fn delivery(self) -> Result<Delivery, Error> {
        let status = Status::parse(&self.status);
        Ok(Delivery {
            id: self.id,
            endpoint: self.endpoint,
            of_job: self.of_job,
            job: self.job,
            kind: self.kind,
            status: status.ok_or_else(|| Error::Corrupt(format!("status of a delivery `{}`", self.status)))?,
            attempts: self.attempts,
            created_at_ms: self.created_at_ms,
            due_at_ms: self.due_at_ms,
            ended_at_ms: self.ended_at_ms,
            body: self.body,
        })
    }
}

/// The tenant's deliveries that are chosen, so many at most.
pub async fn list_deliveries(
    pool: &Pool,
    tenant: &str,
    choice: Choice,
    deliveries_max: u32,
) -> Result<Vec<Delivery>, Error> {
    let rows = sqlx::query_file_as!(
        Row,
        "queries/list_deliveries.sql",
        tenant,
        choice.endpoint,
        choice.job,
        choice.status.map(Status::as_str),
        choice.below.unwrap_or_else(Uuid::max),
        i64::from(deliveries_max),
    )
    .fetch_all(pool.raw())
    .await?;
    rows.into_iter().map(Row::delivery).collect()
}

/// One of the tenant's deliveries.
pub async fn find_delivery(pool: &Pool, tenant: &str, id: Uuid) -> Result<Option<Delivery>, Error> {
    // The newest one below the next id is this one, if it is there.
    let below = Uuid::from_u128(id.as_u128().saturating_add(1));
    let found = list_deliveries(pool, tenant, Choice { below: Some(below), ..Choice::default() }, 1).await?;
    Ok(found.into_iter().find(|delivery| delivery.id == id))
}

/// The attempts of a delivery that have ended, in order: so many of the last ones at most.
pub async fn attempts(pool: &Pool, delivery: Uuid, attempts_max: u32) -> Result<Vec<Attempt>, Error> {
    let mut found = sqlx::query_as!(
        Attempt,
        r#"select attempt, (extract(epoch from ended_at) * 1000)::bigint as "ended_at_ms!", duration_ms, status,
                  error, detail, answer
           from notifier.attempts where delivery = $1 order by attempt desc limit $2"#,
        delivery,
        i64::from(attempts_max),
    )
    .fetch_all(pool.raw())
    .await?;
    found.reverse();
    Ok(found)
}
