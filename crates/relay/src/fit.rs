//! Whether the position that Kafka holds fits the server at the other end.
//!
//! Always holds: the slot's own acknowledged position is never ahead of the record in Kafka. So a slot that is ahead
//! was made anew or moved by another hand, and the rows between would be skipped: the relay refuses.

use events::position::{Lsn, Position};

/// The server at the other end of the stream, and the slot as it was before the stream took it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// The cluster's identity.
    pub(crate) system_identifier: u64,
    /// Its present timeline.
    pub(crate) timeline: u32,
    /// The end of its flushed log.
    pub(crate) flushed_lsn: Lsn,
    /// The slot's name.
    pub(crate) slot: String,
    /// The slot keeps nothing before this; the stream begins there.
    pub(crate) confirmed_lsn: Lsn,
}

/// Why the position does not fit the server. Going on would lose rows or deliver them twice, so the relay does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mismatch {
    /// Another cluster.
    #[error("the position in Kafka is of database system {position}, but this server is {server}")]
    System {
        /// As the position says.
        position: u64,
        /// As the server says.
        server: u64,
    },
    /// The same cluster after a failover or a restore.
    #[error(
        "the position in Kafka is of timeline {position}, but this server is on {server}: it was promoted or restored"
    )]
    Timeline {
        /// As the position says.
        position: u32,
        /// As the server says.
        server: u32,
    },
    /// The server has lost what was delivered.
    #[error("Kafka holds rows up to {position}, but this server's log ends at {server}: it was restored from a backup")]
    Ahead {
        /// Delivered up to here.
        position: Lsn,
        /// The server ends here.
        server: Lsn,
    },
    /// The slot forgot what was not delivered.
    #[error("Kafka holds rows up to {position}, but slot `{slot}` begins at {confirmed}: it was made anew or moved")]
    Gap {
        /// The slot's name.
        slot: String,
        /// Delivered up to here.
        position: Lsn,
        /// The slot begins here.
        confirmed: Lsn,
    },
}

impl Mismatch {
    /// The remedy, for a person.
    pub(crate) fn remedy(&self, topic: &str, slot: &str) -> String {
        format!(
            "`meanwhile relay recover` will compare the outbox with Kafka and send what is missing; it comes in a \
             later version. Until then: compare `outbox.messages` with Kafka by message id, produce what is missing, \
             then write a tombstone for key `{slot}` to topic `{topic}`; the relay then begins where the slot stands"
        )
    }
}

/// Where a relay without a position begins: at the slot's own consistent point, with nothing delivered.
pub(crate) fn first(server: &Server) -> Position {
    Position {
        system_identifier: server.system_identifier,
        timeline: server.timeline,
        end_lsn: server.confirmed_lsn,
        partial: None,
        relayed: 0,
        at_ms: 0,
    }
}

/// Whether the stream of this server continues where the position ends.
pub(crate) fn check(position: &Position, server: &Server) -> Result<(), Mismatch> {
    if position.system_identifier != server.system_identifier {
        return Err(Mismatch::System { position: position.system_identifier, server: server.system_identifier });
    }
    if position.timeline != server.timeline {
        return Err(Mismatch::Timeline { position: position.timeline, server: server.timeline });
    }
    if position.end_lsn > server.flushed_lsn {
        return Err(Mismatch::Ahead { position: position.end_lsn, server: server.flushed_lsn });
    }
    if server.confirmed_lsn > position.end_lsn {
        let (slot, confirmed) = (server.slot.clone(), server.confirmed_lsn);
        return Err(Mismatch::Gap { slot, position: position.end_lsn, confirmed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        Server {
            system_identifier: 7300,
            timeline: 1,
            flushed_lsn: Lsn(900),
            slot: "meanwhile_outbox".into(),
            confirmed_lsn: Lsn(100),
        }
    }

    #[test]
    fn only_the_server_that_it_was_read_from_fits_a_position() {
        let position = Position { end_lsn: Lsn(500), ..first(&server()) };
        assert_eq!(check(&position, &server()), Ok(()));
        let refusal = |server: Server| check(&position, &server).unwrap_err();
        let other = refusal(Server { system_identifier: 1, ..server() });
        assert_eq!(other, Mismatch::System { position: 7300, server: 1 });
        let promoted = refusal(Server { timeline: 2, ..server() });
        assert_eq!(promoted, Mismatch::Timeline { position: 1, server: 2 });
        let restored = refusal(Server { flushed_lsn: Lsn(499), ..server() });
        assert_eq!(restored, Mismatch::Ahead { position: Lsn(500), server: Lsn(499) });
        let remade = refusal(Server { confirmed_lsn: Lsn(501), ..server() });
        assert!(matches!(remade, Mismatch::Gap { .. }), "{remade}");
        assert!(remade.remedy("meanwhile.relay", "meanwhile_outbox").contains("later version"));
    }
}
