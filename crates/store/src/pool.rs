//! Connections, each acting as the service's own role.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, Postgres};

use crate::Error;
use crate::announce::Announcer;

/// The time after which Postgres ends a statement; ours take milliseconds.
const STATEMENT_TIMEOUT_MS: u64 = 30_000;
/// The time after which waiting for a lock is an error.
const LOCK_TIMEOUT_MS: u64 = 10_000;
/// The time after which Postgres ends an idle transaction. Without it, the transaction of a paused process would hold
/// back vacuum, the outbox's watermark and locks.
const IDLE_IN_TRANSACTION_TIMEOUT_MS: u64 = 30_000;
/// The idle time after which a connection is tested before use: Postgres may have been restarted meanwhile.
const IDLE_UNCHECKED_MS: u128 = 500;

/// The role that connects. Every service has one role in Postgres, and grants enforce its ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Owns schema `ingest`.
    Ingest,
    /// Owns schema `outbox`.
    Relay,
    /// Owns schema `orchestrator`.
    Orchestrator,
    /// Owns schema `notifier`.
    Notifier,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Relay, Self::Orchestrator, Self::Notifier];

    /// The role's name in Postgres.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "meanwhile_ingest",
            Self::Relay => "meanwhile_relay",
            Self::Orchestrator => "meanwhile_orchestrator",
            Self::Notifier => "meanwhile_notifier",
        }
    }
}

/// The settings of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `DATABASE_URL`. The login must be a member of the service's role (or a superuser).
    pub url: String,
    /// The most connections held at once.
    pub connections_max: u32,
    /// The time that a caller waits for a connection before the database counts as unavailable.
    pub acquire_timeout_ms: u64,
}

impl Settings {
    /// A database, with the usual bounds.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), connections_max: 8, acquire_timeout_ms: 3_000 }
    }
}

/// Connections under one role, made when needed: a pool can be opened while Postgres is unavailable.
#[derive(Debug, Clone)]
pub struct Pool {
    pool: PgPool,
    login: PgConnectOptions,
    role: Role,
    announcer: Announcer,
}

impl Pool {
    /// A pool for that role. Connects lazily; needs a tokio runtime around it.
    ///
    /// The role is set as each connection starts (as `SET ROLE` would), so grants hold even when all services share
    /// one login.
    pub fn open(settings: &Settings, role: Role) -> Result<Self, Error> {
        let login = parse_url(&settings.url)?.application_name(role.name());
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections_max)
            .acquire_timeout(Duration::from_millis(settings.acquire_timeout_ms))
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for.as_millis() >= IDLE_UNCHECKED_MS {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(as_role(&login, role));
        let announcer = Announcer::new(pool.clone());
        Ok(Self { pool, login, role, announcer })
    }

    /// The role that its connections act as.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Begins a transaction. It is rolled back when dropped without [`Tx::commit`].
    pub async fn begin(&self) -> Result<Tx, Error> {
        let announcer = self.announcer.clone();
        Ok(Tx { inner: self.pool.begin().await?, role: self.role, announcer, has_appended: false })
    }

    /// Succeeds when Postgres answers.
    pub async fn ping(&self) -> Result<(), Error> {
        Ok(self.pool.acquire().await?.ping().await?)
    }

    /// Closes every connection, waiting for those in use.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) const fn raw(&self) -> &PgPool {
        &self.pool
    }

    pub(crate) const fn announcer(&self) -> &Announcer {
        &self.announcer
    }

    /// A connection outside of the pool, under the role, that Postgres ends after so long without a statement (0:
    /// never).
    pub(crate) async fn own_connection(&self, silence_ms: u64) -> Result<PgConnection, Error> {
        use sqlx::ConnectOptions;
        let options = as_role(&self.login, self.role).options([("idle_session_timeout", silence_ms.to_string())]);
        Ok(options.connect().await?)
    }

    /// A connection as the login itself, not as the role: attributes such as REPLICATION belong to the login.
    pub(crate) async fn login_connection(&self) -> Result<PgConnection, Error> {
        use sqlx::ConnectOptions;
        Ok(self.login.connect().await?)
    }
}

fn as_role(login: &PgConnectOptions, role: Role) -> PgConnectOptions {
    login.clone().options([
        ("role", role.name().to_owned()),
        // A 202 promises that the job is on disk, whatever the server's or the login's default is.
        ("synchronous_commit", "on".to_owned()),
        ("statement_timeout", STATEMENT_TIMEOUT_MS.to_string()),
        ("lock_timeout", LOCK_TIMEOUT_MS.to_string()),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT_MS.to_string()),
    ])
}

/// Parses the URL and checks its scheme. sqlx accepts any scheme, so `mysql://` would be a Postgres that never answers.
pub(crate) fn parse_url(url: &str) -> Result<PgConnectOptions, Error> {
    if ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        PgConnectOptions::from_str(url).map_err(Error::Url)
    } else {
        Err(Error::Url(sqlx::Error::Configuration("it does not start with postgres://".into())))
    }
}

/// A transaction under the role of its pool.
#[derive(Debug)]
pub struct Tx {
    inner: sqlx::Transaction<'static, Postgres>,
    role: Role,
    announcer: Announcer,
    has_appended: bool,
}

impl Tx {
    /// Makes everything in it durable at once. After an error the outcome is unknown: it may be durable.
    pub async fn commit(self) -> Result<(), Error> {
        self.inner.commit().await?;
        if self.has_appended {
            self.announcer.announce().await;
        }
        Ok(())
    }

    /// Notes that it has written to the outbox.
    pub(crate) const fn note_appended(&mut self) {
        self.has_appended = true;
    }

    /// Rolls the transaction back.
    pub async fn rollback(self) -> Result<(), Error> {
        Ok(self.inner.rollback().await?)
    }

    /// The role that it acts as.
    pub const fn role(&self) -> Role {
        self.role
    }

    pub(crate) fn raw(&mut self) -> &mut PgConnection {
        &mut self.inner
    }
}
