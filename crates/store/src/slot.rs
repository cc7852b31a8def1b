//! The logical replication slot by which the relay reads the outbox, and the identity of the Postgres server.
//!
//! These calls act as the login, not as the role of the service: replication is an attribute of the login.

use sqlx::Connection;

use crate::outbox::PUBLICATION;
use crate::{Error, Pool};

/// As the migration makes it.
const PUBLISH: &str = "create publication meanwhile_outbox for table outbox.messages
     with (publish = 'insert', publish_via_partition_root = true)";
/// From this version on, standbys keep slots that are made for it: a promotion loses none.
const FAILOVER_SINCE: i32 = 170_000;

/// The way without a slot.
const POLL: &str = "`meanwhile migrate --outbox-reader polling`";

/// The reason for which the outbox cannot be streamed. Each text names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The server's `wal_level` does not allow logical decoding.
    #[error("{}; set wal_level=logical in postgresql.conf and restart Postgres, or run {POLL}", self.cause())]
    WalLevel {
        /// The level.
        wal_level: String,
    },
    /// The login lacks the attribute.
    #[error("{}; run as a superuser: ALTER ROLE \"{login}\" REPLICATION; or run {POLL}", self.cause())]
    MayNotReplicate {
        /// The login.
        login: String,
    },
    /// No slots are left.
    #[error("all replication slots are in use; raise max_replication_slots or drop a slot that nobody needs")]
    NoSlotLeft,
    /// The publication is not there.
    #[error("the publication meanwhile_outbox is missing; run `meanwhile migrate`")]
    PublicationMissing,
    /// The publication leaves rows out, or names them otherwise. Those that were streamed meanwhile may be undelivered.
    #[error(
        "the publication meanwhile_outbox does not publish the inserts of outbox.messages under the table's own name; \
         drop it, run `meanwhile migrate`, then `meanwhile relay recover --force`"
    )]
    PublicationWrong,
    /// The slot does not exist: it was never created, or was lost together with undelivered rows.
    #[error("replication slot {slot} is missing; run `meanwhile migrate`, or if it was lost `meanwhile relay recover`")]
    Missing {
        /// The slot.
        slot: String,
    },
    /// The slot fell behind `max_slot_wal_keep_size`, and the log it needs is gone. The rows are still in the outbox.
    #[error("the replication slot {slot} is invalidated (wal_status lost); run `meanwhile relay recover`")]
    Invalidated {
        /// The slot.
        slot: String,
    },
    /// Another database's slot, or one of another kind, has the name.
    #[error("replication slot {slot} belongs to database {database}, plugin {plugin}; choose another topics.prefix")]
    Foreign {
        /// The slot.
        slot: String,
        /// Its database.
        database: String,
        /// Its plugin.
        plugin: String,
    },
    /// Anything else, transient or not.
    #[error(transparent)]
    Store(#[from] Error),
}

impl SlotError {
    /// The text without the remedy, where that is another one than polling.
    pub fn cause(&self) -> String {
        match self {
            Self::WalLevel { wal_level } => format!("Postgres runs with wal_level={wal_level}"),
            Self::MayNotReplicate { login } => format!("the login {login} may not replicate"),
            other => other.to_string(),
        }
    }
}

impl From<sqlx::Error> for SlotError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The state of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotStatus {
    /// True while a connection streams from it.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` (about to be lost) or `lost`.
    pub wal_status: String,
    /// The acknowledged position; never ahead of the delivered one.
    pub confirmed_flush_lsn: u64,
    /// The size of the log between that position and its end.
    pub lag_bytes: u64,
}

/// The identity of a Postgres server, and the end of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Given to a cluster by `initdb`; replicas and restores share it.
    pub system_identifier: u64,
    /// Rises with every promotion.
    pub timeline: u32,
    /// The end of the log.
    pub current_lsn: u64,
}

/// The slot's name for a topic prefix: `meanwhile_outbox`. Slot names have lower-case letters, digits and underscores
/// only.
pub fn name(prefix: &str) -> String {
    let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let name = prefix.to_lowercase().replace(|letter| !fits(letter), "_");
    format!("{name}_outbox")
}

/// Checks all that streaming needs but the slot: the level of the log, the login's right, the publication. Returns the
/// publication's id, which another one of that name does not have.
pub async fn check_server(pool: &Pool) -> Result<u32, SlotError> {
    let mut connection = pool.login_connection().await?;
    let row = sqlx::query!(
        r#"select current_setting('wal_level') as "wal_level!",
                  session_user::text as "login!",
                  (select rolreplication or rolsuper from pg_roles where rolname = session_user) as "may_replicate!",
                  (select oid::bigint from pg_publication where pubname = $1) as "publication?",
                  exists (
                      select from pg_publication left join pg_publication_rel on prpubid = pg_publication.oid
                      where pubname = $1 and pubinsert and pubviaroot and prqual is null and prattrs is null
                        and (puballtables or prrelid = to_regclass('outbox.messages'))
                  ) as "published_whole!""#,
        PUBLICATION,
    )
    .fetch_one(&mut connection)
    .await?;
    connection.close().await?;
    if row.wal_level != "logical" {
        Err(SlotError::WalLevel { wal_level: row.wal_level })
    } else if !row.may_replicate {
        Err(SlotError::MayNotReplicate { login: row.login })
    } else if let Some(publication) = row.publication {
        // An oid has 32 bits.
        let publication = u32::try_from(publication).unwrap_or_default();
        if row.published_whole { Ok(publication) } else { Err(SlotError::PublicationWrong) }
    } else {
        Err(SlotError::PublicationMissing)
    }
}

/// Creates the publication unless it exists; true when it was created. The login must be a member of the outbox's
/// owner, and may create in the database.
pub async fn publish(pool: &Pool) -> Result<bool, SlotError> {
    let mut connection = pool.login_connection().await?;
    let exists = sqlx::query_scalar!(
        r#"select exists (select from pg_publication where pubname = $1) as "exists!""#,
        PUBLICATION
    )
    .fetch_one(&mut connection)
    .await?;
    let created = match exists {
        true => Ok(false),
        false => match sqlx::raw_sql(PUBLISH).execute(&mut connection).await {
            Ok(_) => Ok(true),
            // Another process was faster.
            Err(error) if error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("42710")) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        },
    };
    connection.close().await?;
    created
}

/// Creates the slot unless it exists; true when it was created. Call it where a fresh start is meant (`migrate`, dev
/// mode, a relay without a position): a slot that was lost must not be replaced silently, since what it had not
/// delivered would be skipped.
pub async fn create(pool: &Pool, slot: &str) -> Result<bool, SlotError> {
    check_server(pool).await?;
    match status(pool, slot).await {
        Ok(_) => return Ok(false),
        Err(SlotError::Missing { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut connection = pool.login_connection().await?;
    let version = sqlx::query_scalar!(r#"select current_setting('server_version_num')::integer as "version!""#)
        .fetch_one(&mut connection)
        .await?;
    let creating = if version >= FAILOVER_SINCE {
        "select from pg_create_logical_replication_slot($1, 'pgoutput', failover => true)"
    } else {
        "select from pg_create_logical_replication_slot($1, 'pgoutput')"
    };
    let created = sqlx::query(creating).bind(slot).execute(&mut connection).await;
    connection.close().await?;
    match created {
        Ok(_) => Ok(true),
        Err(error) => match error.as_database_error().and_then(|error| error.code()).as_deref() {
            // Another process was faster.
            Some("42710") => Ok(false),
            Some("53400") => Err(SlotError::NoSlotLeft),
            _ => Err(error.into()),
        },
    }
}

/// Drops the slot, which keeps log as long as it is there; false if there is none of ours, or if somebody streams from
/// it.
pub async fn drop_unused(pool: &Pool, slot: &str) -> Result<bool, SlotError> {
    let mut connection = pool.login_connection().await?;
    let dropped = sqlx::query_scalar!(
        r#"select true as "dropped!" from (
               select pg_drop_replication_slot(slot_name) from pg_replication_slots
               where slot_name = $1 and database = current_database() and plugin = 'pgoutput' and not active
           ) as dropped"#,
        slot,
    )
    .fetch_optional(&mut connection)
    .await?;
    connection.close().await?;
    Ok(dropped.is_some())
}

/// The state of the slot. [`SlotError::Missing`], [`SlotError::Invalidated`] or [`SlotError::Foreign`] if it cannot be
/// used.
pub async fn status(pool: &Pool, slot: &str) -> Result<SlotStatus, SlotError> {
    let mut connection = pool.login_connection().await?;
    let row = sqlx::query!(
        r#"select coalesce(database = current_database(), false) as "ours!", coalesce(database, '') as "database!",
                  coalesce(plugin, '') as "plugin!", active as "active!",
                  coalesce(wal_status, 'reserved') as "wal_status!",
                  coalesce(confirmed_flush_lsn - '0/0'::pg_lsn, 0)::bigint as "confirmed!",
                  coalesce(pg_current_wal_lsn() - confirmed_flush_lsn, 0)::bigint as "lag!"
           from pg_replication_slots where slot_name = $1"#,
        slot,
    )
    .fetch_optional(&mut connection)
    .await?;
    connection.close().await?;
    let slot = slot.to_owned();
    let Some(row) = row else { return Err(SlotError::Missing { slot }) };
    if !row.ours || row.plugin != "pgoutput" {
        return Err(SlotError::Foreign { slot, database: row.database, plugin: row.plugin });
    }
    if row.wal_status == "lost" {
        return Err(SlotError::Invalidated { slot });
    }
    Ok(SlotStatus {
        active: row.active,
        wal_status: row.wal_status,
        confirmed_flush_lsn: row.confirmed.unsigned_abs(),
        lag_bytes: u64::try_from(row.lag).unwrap_or(0),
    })
}

/// The identity of this Postgres. Compare it with the saved position before streaming: a position ahead of the server,
/// or on another history, would skip commits silently.
pub async fn identity(pool: &Pool) -> Result<Identity, SlotError> {
    let mut connection = pool.login_connection().await?;
    let row = sqlx::query!(
        r#"select (select system_identifier from pg_control_system()) as "system_identifier!",
                  ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer as "timeline!",
                  (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint as "lsn!""#
    )
    .fetch_one(&mut connection)
    .await?;
    connection.close().await?;
    Ok(Identity {
        system_identifier: u64::from_ne_bytes(row.system_identifier.to_ne_bytes()),
        timeline: u32::from_ne_bytes(row.timeline.to_ne_bytes()),
        current_lsn: row.lsn.unsigned_abs(),
    })
}
