//! Errors, sorted by the caller's reaction.

use std::borrow::Cow;

/// A failed call. The text describes this layer only; Postgres' own message is in the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, shutting down, starting, overloaded, read-only, deadlock: the same call may succeed later.
    #[error("Postgres is not available")]
    Unavailable(#[source] sqlx::Error),
    /// Schemas, tables or roles are missing; the same call succeeds after a migration.
    #[error("the database is not migrated: run `meanwhile migrate`")]
    NotMigrated(#[source] sqlx::Error),
    /// One of the rows cannot be stored, ever. Others of the same batch may be fine: try them one by one.
    #[error("Postgres refuses a row")]
    Row(#[source] sqlx::Error),
    /// Another process has moved this position (rule 3): the effects that belong to it must not be written.
    #[error("the position of {topic}[{partition}] is not where it was expected")]
    Conflict {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A stored value that this build cannot read.
    #[error("cannot read a stored value: {0}")]
    Corrupt(String),
    /// The settings do not name a database.
    #[error("DATABASE_URL is not a Postgres URL such as postgres://user@host/database")]
    Url(#[source] sqlx::Error),
    /// A migration failed; nothing of it was kept.
    #[error("a migration failed")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// Any other answer of Postgres: wrong rights, a mistake in our query.
    #[error("Postgres answered with an error")]
    Database(#[source] sqlx::Error),
}

impl Error {
    /// True if the same call may succeed later, unchanged: pause and retry, drop nothing.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::NotMigrated(_) => true,
            Self::Migrate(sqlx::migrate::MigrateError::Execute(source)) => is_transient(source),
            Self::Migrate(_)
            | Self::Row(_)
            | Self::Conflict { .. }
            | Self::Corrupt(_)
            | Self::Url(_)
            | Self::Database(_) => false,
        }
    }

    /// True if the batch failed because of one of its rows: try them one by one.
    pub fn is_row_error(&self) -> bool {
        matches!(self, Self::Row(_))
    }

    /// True if another process has moved a position: the effects that belong to it must not be written.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// True if a lock was not available in time, or two transactions waited for each other's: trying again may help.
    pub(crate) fn is_lock_refused(&self) -> bool {
        matches!(self.sqlstate().as_deref(), Some("55P03" | "40P01"))
    }

    /// The SQLSTATE, when Postgres gave one.
    pub fn sqlstate(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Unavailable(source) | Self::NotMigrated(source) | Self::Row(source) | Self::Database(source) => {
                source.as_database_error()?.code()
            }
            Self::Conflict { .. } | Self::Corrupt(_) | Self::Url(_) | Self::Migrate(_) => None,
        }
    }
}

/// [`Error::is_unavailable`], as a function to hand on.
pub fn is_unavailable(error: &Error) -> bool {
    error.is_unavailable()
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        if is_transient(&source) {
            return Self::Unavailable(source);
        }
        let code = source.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
        match code.as_str() {
            // Schema, table, function, column or (at connect, as a parameter) role that does not exist.
            "3F000" | "42P01" | "42883" | "42703" => Self::NotMigrated(source),
            "22023" if source.to_string().contains("role \"meanwhile_") => Self::NotMigrated(source),
            // 54: a row or an index entry beyond Postgres' limits.
            _ if ["22", "23", "54"].iter().any(|class| code.starts_with(class)) => Self::Row(source),
            _ => Self::Database(source),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for Error {
    fn from(source: sqlx::migrate::MigrateError) -> Self {
        Self::Migrate(source)
    }
}

fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_transient_code(&code)),
        _ => false,
    }
}

/// By class: 08 connection, 28 login, 53 resources, 57 operator intervention (shutdown, starting up, time-outs), 58
/// system. By code: database or password not there yet, read-only after a failover, deadlock, lock not available,
/// idle in transaction for too long.
fn is_transient_code(code: &str) -> bool {
    ["08", "28", "53", "57", "58"].iter().any(|class| code.starts_with(class))
        || ["3D000", "25006", "25P03", "40001", "40P01", "55P03", "55006"].contains(&code)
}
