//! The stream of the log: waits for the slot, takes it, and tells apart why it cannot be had.
//!
//! The questions before the stream begins are asked on the very session that will stream. So the answers describe the
//! server that the rows come from, even behind a proxy.

use std::time::Duration;

use events::position::Lsn;
use pgwire_replication::{PgWireError, ReplicationClient, ReplicationConfig};
use store::outbox::PUBLICATION;

use crate::config::Config;
use crate::database::Database;
use crate::fit::Server;

/// Events that wait in the client. Each may hold a row of the largest size, so there are few.
const BUFFER_EVENTS: usize = 256;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// Postgres is away, starting, or full. It will be back.
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
    /// Waits until no relay streams from the slot, then takes it. Calls `standing_by` each time the slot is taken.
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
    Ok(Server {
        system_identifier: system_identifier.map_err(|_| StreamError::Refused("no system identifier".to_owned()))?,
        timeline: system.timeline,
        flushed_lsn: Lsn(system.xlogpos.as_u64()),
        slot: slot.to_owned(),
        confirmed_lsn,
    })
}

/// The place where the stream would begin; none while another relay streams.
async fn confirmed_when_free(client: &mut ReplicationClient, slot: &str) -> Result<Option<Lsn>, StreamError> {
    // Safe: slot names have letters, digits and underscores only (`slot_name`).
    let query = format!(
        "select active::int, confirmed_flush_lsn from pg_catalog.pg_replication_slots where slot_name = '{slot}'"
    );
    let rows = client.simple_query(&query).await?;
    let row = rows.into_iter().next().ok_or_else(|| missing(slot))?;
    let text = |index: usize| row.get(index)?.as_ref().and_then(|value| str::from_utf8(value).ok());
    if text(0) == Some("1") {
        return Ok(None);
    }
    // Without a confirmed place it is being created at this moment.
    Ok(text(1).and_then(|lsn| lsn.parse().ok()))
}

fn missing(slot: &str) -> StreamError {
    StreamError::Refused(format!("replication slot `{slot}` is missing; {}", remedy("42704")))
}

/// The remedy for a refusal, by SQLSTATE.
fn remedy(code: &str) -> &'static str {
    match code {
        "42704" => {
            "run `meanwhile migrate`, which makes the slot and the publication. If they were lost, rows may be \
             undelivered: `meanwhile relay recover` will send those in a later version; until then compare \
             outbox.messages with Kafka by message id"
        }
        "55000" => {
            "set wal_level=logical and restart Postgres; or, if the slot was invalidated (wal_status lost), drop it, \
             run `meanwhile migrate` and raise max_slot_wal_keep_size"
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
