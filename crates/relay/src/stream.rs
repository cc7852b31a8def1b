//! The stream of the log: waits for the slot and takes it, or gives the reason for which it cannot be taken.
//!
//! The questions before the stream begins are asked on the very session that will stream. So the answers describe the
//! server that the rows come from, even behind a proxy.

use std::time::Duration;

use events::position::Lsn;
use pgwire_replication::{PgWireError, QueryRow, ReplicationClient, ReplicationConfig};
use store::outbox::PUBLICATION;

use crate::config::Config;
use crate::database::Database;
use crate::fit::{self, Server};

/// Events that wait in the client. Each may hold a row of the largest size, so there are few.
const BUFFER_EVENTS: usize = 256;

/// The time that making the slot anew may take. It waits for the end of each transaction that runs when it begins.
const RENEW_TIMEOUT: Duration = Duration::from_secs(120);
/// From this version on, standbys keep slots that are made for it.
const FAILOVER_SINCE: u32 = 170_000;

/// The reason for which there is no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// Postgres is unreachable, starting, or full: a later attempt may succeed.
    #[error("Postgres is not reachable")]
    Unreachable(#[source] anyhow::Error),
    /// Another relay has the slot.
    #[error("another relay streams from the slot")]
    InUse,
    /// Postgres lacks something that streaming needs. Names the remedy for the operator.
    #[error("{0}")]
    Refused(String),
}

/// A stream that holds the slot, not read yet.
pub(crate) struct Stream {
    pub(crate) client: ReplicationClient,
    pub(crate) server: Server,
}

impl Stream {
    /// Waits until no relay streams from the slot, then takes it. Calls `standing_by` each time another relay has it.
    pub(crate) async fn take(
        database: &Database,
        slot: &str,
        config: &Config,
        standing_by: impl Fn(),
    ) -> Result<Self, StreamError> {
        let mut client = ReplicationClient::connect_gated(replication(database, slot, config)).await?;
        let confirmed_lsn = loop {
            match confirmed_when_free(&mut client, slot).await? {
                Some(lsn) => break lsn,
                None => standing_by(),
            }
            tokio::time::sleep(Duration::from_millis(config.standby_interval_ms)).await;
        };
        let server = identify(&mut client, slot, confirmed_lsn).await?;
        client.start().await?;
        client.wait_started().await?;
        Ok(Self { client, server })
    }
}

/// A slot that was made anew. While this lives, its snapshot can be read from: it has what the slot will not stream.
pub(crate) struct Fresh {
    _client: ReplicationClient,
    pub(crate) snapshot: String,
    /// The slot streams every commit after this.
    pub(crate) begins_at: Lsn,
}

/// Makes the slot anew, in place of the one of that name, if any. A relay may have that one for a moment.
pub(crate) async fn renew(database: &Database, slot: &str, config: &Config) -> Result<Fresh, StreamError> {
    let renewing = tokio::time::timeout(RENEW_TIMEOUT, async {
        loop {
            let mut client = ReplicationClient::connect_gated(replication(database, slot, config)).await?;
            if drop_unless_active(&mut client, slot).await?
                && let Some((begins_at, snapshot)) = create(&mut client, slot).await?
            {
                return Ok(Fresh { _client: client, snapshot, begins_at });
            }
            tokio::time::sleep(Duration::from_millis(config.standby_interval_ms)).await;
        }
    });
    renewing.await.unwrap_or_else(|_| {
        Err(StreamError::Refused(format!(
            "slot {slot} could not be made anew within {} s: a process streams from it (pg_replication_slots), or a \
             transaction that began before stays open (pg_stat_activity, pg_prepared_xacts): end it",
            RENEW_TIMEOUT.as_secs()
        )))
    })
}

/// False while a process streams from the slot.
async fn drop_unless_active(client: &mut ReplicationClient, slot: &str) -> Result<bool, StreamError> {
    // Safe, as below. Another database's slot of that name is left alone; making ours fails then.
    let query = format!(
        "select pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots
         where slot_name = '{slot}' and database = pg_catalog.current_database() and plugin = 'pgoutput'"
    );
    match client.simple_query(&query).await.map_err(StreamError::from) {
        Ok(_) => Ok(true),
        Err(StreamError::InUse) => Ok(false),
        Err(error) => Err(error),
    }
}

/// None when another process was faster.
async fn create(client: &mut ReplicationClient, slot: &str) -> Result<Option<(Lsn, String)>, StreamError> {
    let version = client.simple_query("select pg_catalog.current_setting('server_version_num')").await?;
    let version = cell(&version, 0).and_then(|version| version.parse::<u32>().ok()).unwrap_or_default();
    let failover = if version >= FAILOVER_SINCE { ", FAILOVER" } else { "" };
    let create = format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput (SNAPSHOT 'export'{failover})");
    let made = match client.simple_query(&create).await {
        Err(PgWireError::Server(text)) if sqlstate(&text) == "42710" => return Ok(None),
        made => made?,
    };
    let place = cell(&made, 1).and_then(|lsn| lsn.parse().ok());
    let snapshot = cell(&made, 2).map(str::to_owned);
    let made = place.zip(snapshot);
    made.map(Some).ok_or_else(|| StreamError::Refused("a new slot came without place or snapshot".to_owned()))
}

/// A column of the first row, as text.
fn cell(rows: &[QueryRow], column: usize) -> Option<&str> {
    rows.first()?.get(column)?.as_deref().and_then(|value| str::from_utf8(value).ok())
}

/// The server as it is now, asked on a session of its own.
pub(crate) async fn look(database: &Database, slot: &str, config: &Config) -> Result<Server, StreamError> {
    let mut client = ReplicationClient::connect_gated(replication(database, slot, config)).await?;
    identify(&mut client, slot, Lsn(0)).await
}

fn replication(database: &Database, slot: &str, config: &Config) -> ReplicationConfig {
    let Database { host, port, user, password, name, tls } = database;
    let interval = Duration::from_millis(config.status_interval_ms);
    ReplicationConfig::new(host, user, password, name, slot, PUBLICATION)
        .with_port(*port)
        .with_tls(tls.clone())
        .with_binary(true)
        .with_status_interval(interval)
        .with_wakeup_interval(interval)
        .with_buffer_size(BUFFER_EVENTS)
        .with_application_name("meanwhile_relay")
        .with_options(format!("-c wal_sender_timeout={}", config.wal_sender_timeout_ms))
}

async fn identify(client: &mut ReplicationClient, slot: &str, confirmed_lsn: Lsn) -> Result<Server, StreamError> {
    let system = client.identify_system().await?;
    let system_identifier = system.system_id.parse();
    // The first timeline has no history.
    let forks = match system.timeline {
        ..=1 => Vec::new(),
        timeline => fit::forks(&String::from_utf8_lossy(&client.timeline_history(timeline).await?.content)),
    };
    Ok(Server {
        system_identifier: system_identifier.map_err(|_| StreamError::Refused("no system identifier".to_owned()))?,
        timeline: system.timeline,
        forks,
        flushed_lsn: Lsn(system.xlogpos.as_u64()),
        slot: slot.to_owned(),
        confirmed_lsn,
    })
}

/// The begin of the stream; none while another relay streams.
async fn confirmed_when_free(client: &mut ReplicationClient, slot: &str) -> Result<Option<Lsn>, StreamError> {
    // Safe: slot names have letters, digits and underscores only (`slot_name`).
    let query = format!(
        "select active::int, confirmed_flush_lsn from pg_catalog.pg_replication_slots where slot_name = '{slot}'"
    );
    let rows = client.simple_query(&query).await?;
    if rows.is_empty() {
        return Err(missing(slot));
    }
    if cell(&rows, 0) == Some("1") {
        return Ok(None);
    }
    // Without a confirmed place it is being created at this moment.
    Ok(cell(&rows, 1).and_then(|lsn| lsn.parse().ok()))
}

fn missing(slot: &str) -> StreamError {
    StreamError::Refused(format!("replication slot `{slot}` is missing; {}", remedy("42704")))
}

/// The remedy for a refusal, by SQLSTATE.
fn remedy(code: &str) -> &'static str {
    match code {
        "42704" => {
            "run `meanwhile migrate`, which makes the slot and the publication; if the slot was lost, `meanwhile \
             relay recover`, which also sends what it had not delivered"
        }
        "55000" => {
            "set wal_level=logical and restart Postgres; or, if the slot was invalidated (wal_status lost), run \
             `meanwhile relay recover` and raise max_slot_wal_keep_size"
        }
        "42501" | "28000" => "the login of DATABASE_URL needs the right to stream: ALTER ROLE <login> REPLICATION",
        "28P01" | "3D000" => "check DATABASE_URL",
        _ => "see the server's log",
    }
}

/// `... (SQLSTATE 55006)`, as the client words it.
fn sqlstate(text: &str) -> &str {
    text.rsplit_once("(SQLSTATE ").map_or("", |(_, rest)| rest.trim_end_matches(')'))
}

impl From<PgWireError> for StreamError {
    fn from(error: PgWireError) -> Self {
        let text = match &error {
            PgWireError::Server(text) => text,
            PgWireError::Auth(_) | PgWireError::Tls(_) => return Self::Refused(format!("{error}; check DATABASE_URL")),
            _ => return Self::Unreachable(anyhow::Error::msg(error)),
        };
        match sqlstate(text) {
            "55006" => Self::InUse,
            // Connection, resources, operator intervention (shutdown, starting up), system.
            code if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
                Self::Unreachable(anyhow::Error::msg(text.clone()))
            }
            code => Self::Refused(format!("{text}; {}", remedy(code))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgres_answers_says_what_to_do() {
        let seen = |text: &str| StreamError::from(PgWireError::Server(text.to_owned()));
        let active = seen("replication slot \"x\" is active for PID 7 (SQLSTATE 55006)");
        assert!(matches!(active, StreamError::InUse));
        let starting = seen("the database system is starting up (SQLSTATE 57P03)");
        assert!(matches!(starting, StreamError::Unreachable(_)));
        for (text, remedy) in [
            ("replication slot \"x\" does not exist (SQLSTATE 42704)", "meanwhile migrate"),
            ("logical decoding requires wal_level >= logical (SQLSTATE 55000)", "wal_level=logical"),
            ("must be superuser or replication role to start walsender (SQLSTATE 42501)", "ALTER ROLE"),
            ("no code", "server's log"),
        ] {
            let StreamError::Refused(said) = seen(text) else { panic!("{text}") };
            assert!(said.contains(remedy) && said.contains(text), "{said}");
        }
    }
}
