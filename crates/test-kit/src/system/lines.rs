//! Lines between the roles and the servers.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::kafka::{KafkaOptions, Listener};
use crate::line::Line;
use crate::port::Port;
use crate::role::Role;

/// A server that roles talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// The broker.
    Kafka,
    /// The database.
    Postgres,
    /// The schema registry.
    Registry,
}

impl Server {
    /// Every server.
    pub const ALL: [Self; 3] = [Self::Kafka, Self::Postgres, Self::Registry];
}

/// A line of its own from each role to each server.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: BTreeMap<(Role, Server), Line>,
    _listeners: Vec<Port>,
}

impl Lines {
    /// Lines to a broker that is not started yet, if any: it tells each role the address of that role's line.
    pub(super) async fn to_kafka(options: Option<&mut KafkaOptions>) -> Result<Self> {
        let mut lines = Self::default();
        let Some(options) = options else { return Ok(lines) };
        for role in Role::ALL {
            let port = Port::take()?;
            let line = Line::to(port.number()).await?;
            let name = role.as_str().to_uppercase();
            options.listeners.push(Listener {
                name,
                protocol: "PLAINTEXT",
                port: port.number(),
                advertised: line.port(),
            });
            lines.lines.insert((role, Server::Kafka), line);
            lines._listeners.push(port);
        }
        Ok(lines)
    }

    /// Lines to another server.
    pub(super) async fn add(&mut self, server: Server, port: u16) -> Result<()> {
        for role in Role::ALL {
            self.lines.insert((role, server), Line::to(port).await?);
        }
        Ok(())
    }

    pub(super) fn get(&self, role: Role, server: Server) -> Option<&Line> {
        self.lines.get(&(role, server))
    }

    /// A role's environment, in which each server's address is that of the role's line to it.
    pub(super) fn lead(&self, role: Role, variables: &mut [(String, String)]) {
        for (name, value) in variables {
            let server = match name.as_str() {
                "KAFKA_BROKERS" => Server::Kafka,
                "DATABASE_URL" => Server::Postgres,
                "SCHEMA_REGISTRY_URL" => Server::Registry,
                _ => continue,
            };
            if let Some(line) = self.get(role, server) {
                *value = with_port(value, line.port());
            }
        }
    }
}

/// An address with another port; the port is what stands between the last colon and a slash or the end.
fn with_port(address: &str, port: u16) -> String {
    let (host, rest) = address.rsplit_once(':').unwrap_or((address, ""));
    let path = rest.find('/').map_or("", |slash| &rest[slash..]);
    format!("{host}:{port}{path}")
}

#[cfg(test)]
mod tests {
    use super::with_port;

    #[test]
    fn only_the_port_of_an_address_changes() {
        assert_eq!(with_port("127.0.0.1:9092", 7), "127.0.0.1:7");
        assert_eq!(with_port("postgres://me@127.0.0.1:5432/db", 7), "postgres://me@127.0.0.1:7/db");
        assert_eq!(with_port("http://127.0.0.1:8080/apis/ccompat/v7", 7), "http://127.0.0.1:7/apis/ccompat/v7");
    }
}
