//! Checks that the position in Kafka fits the server at the other end of the stream.
//!
//! Always holds: the slot's own acknowledged position is never ahead of the record in Kafka. So a slot that is ahead
//! was made anew or moved by another hand, and the rows between would be skipped: the relay refuses.

use events::position::{LastRow, Lsn, Position};
use store::relayed::History;

/// The server at the other end of the stream, and the slot as it was before the stream took it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// The cluster's identity.
    pub(crate) system_identifier: u64,
    /// Its present timeline.
    pub(crate) timeline: u32,
    /// The timelines before it, each with the end of what it has of that one.
    pub(crate) forks: Vec<(u32, Lsn)>,
    /// The end of its flushed log.
    pub(crate) flushed_lsn: Lsn,
    /// The slot's name.
    pub(crate) slot: String,
    /// The slot keeps nothing before this; the stream begins there.
    pub(crate) confirmed_lsn: Lsn,
}

/// The reason for which the position does not fit the server. To go on would lose rows or deliver them twice, so the
/// relay does not.
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
        "the position in Kafka is of timeline {position}, but this server is on {server}: it was promoted or restored, \
         and lacks the last of what was delivered"
    )]
    Timeline {
        /// As the position says.
        position: u32,
        /// As the server says.
        server: u32,
    },
    /// The server has lost rows that were delivered.
    #[error("Kafka holds rows up to {position}, but this server's log ends at {server}: it was restored from a backup")]
    Ahead {
        /// Delivered up to here.
        position: Lsn,
        /// The server ends here.
        server: Lsn,
    },
    /// The slot skips rows that were not delivered.
    #[error("Kafka holds rows up to {position}, but slot `{slot}` begins at {confirmed}: it was made anew or moved")]
    Gap {
        /// The slot's name.
        slot: String,
        /// Delivered up to here.
        position: Lsn,
        /// The slot begins here.
        confirmed: Lsn,
    },
    /// The outbox has lost rows that were delivered.
    #[error("Kafka holds rows up to {0}, which this outbox does not have: it was restored from a backup")]
    Unknown(LastRow),
    /// Kafka has lost rows that were delivered.
    #[error(
        "this outbox was delivered up to {confirmed}, but the position in Kafka is {position}: Kafka was restored from \
         a backup, or the position was moved"
    )]
    Behind {
        /// Delivered up to here, as the database knows.
        confirmed: LastRow,
        /// As the position says.
        position: LastRow,
    },
    /// An earlier look found one of these, or somebody has begun to settle it and not come to the end.
    #[error("{0}")]
    Unsettled(String),
}

/// The remedy, for a person.
pub(crate) const REMEDY: &str = "run `meanwhile relay recover`, which compares the outbox with Kafka and sends what is \
                                 missing (`--dry-run` only says what it would do); docs/operating.md, Failover and \
                                 restore";

/// The first position of a relay that has none: the slot's own consistent point, before any delivery.
pub(crate) fn first(server: &Server) -> Position {
    Position {
        system_identifier: server.system_identifier,
        timeline: server.timeline,
        end_lsn: server.confirmed_lsn,
        partial: None,
        last_row: None,
        relayed: 0,
        at_ms: 0,
    }
}

/// The first position of a relay that polls and has none: what the database knows to be on Kafka.
pub(crate) fn first_row(history: History, confirmed: LastRow) -> Position {
    let History { system_identifier, timeline } = history;
    let (end_lsn, last_row) = (Lsn(0), Some(confirmed));
    Position { system_identifier, timeline, end_lsn, partial: None, last_row, relayed: 0, at_ms: 0 }
}

/// Checks that the position is of this cluster and timeline. A relay that polls cannot read where a timeline began, so
/// it never goes on across a promotion by itself.
pub(crate) fn check_history(position: &Position, server: History) -> Result<(), Mismatch> {
    if position.system_identifier != server.system_identifier {
        return Err(Mismatch::System { position: position.system_identifier, server: server.system_identifier });
    }
    if position.timeline != server.timeline {
        return Err(Mismatch::Timeline { position: position.timeline, server: server.timeline });
    }
    Ok(())
}

/// Checks that the server's log, which ends at this place, has come as far as the position.
pub(crate) fn check_place(position: &Position, end: u64) -> Result<(), Mismatch> {
    let server = Lsn(end);
    if position.end_lsn > server { Err(Mismatch::Ahead { position: position.end_lsn, server }) } else { Ok(()) }
}

/// Checks that the outbox, which `knows` that very row or not, continues where the position ends.
///
/// The row of a position is never dropped ([`crate::maintain`]), and a restored server that has given its ids again has
/// another one in its place. A position before the first row of a transaction is only ever written after the database
/// has noted the same.
pub(crate) fn check_row(position: LastRow, knows: bool, confirmed: LastRow) -> Result<(), Mismatch> {
    let key = |row: LastRow| (row.txid, row.seq);
    if key(confirmed) > key(position) {
        return Err(Mismatch::Behind { confirmed, position });
    }
    if knows || position == confirmed { Ok(()) } else { Err(Mismatch::Unknown(position)) }
}

/// Checks that the stream of this server continues where the position ends.
pub(crate) fn check(position: &Position, server: &Server) -> Result<(), Mismatch> {
    if position.system_identifier != server.system_identifier {
        return Err(Mismatch::System { position: position.system_identifier, server: server.system_identifier });
    }
    if position.timeline != server.timeline && !is_before_fork(position, server) {
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

/// True if all that was delivered is in the log that this server has in common with the one of the position.
fn is_before_fork(position: &Position, server: &Server) -> bool {
    let reached = |fork: Lsn| match position.partial {
        // A record that begins before the fork ends there at the latest.
        Some(partial) => partial.commit_lsn < fork,
        None => position.end_lsn <= fork,
    };
    server.forks.iter().any(|(timeline, fork)| *timeline == position.timeline && reached(*fork))
}

/// Reads a timeline's history as Postgres writes it: for each timeline before it, its number, the place of its end and
/// a reason.
pub(crate) fn forks(history: &str) -> Vec<(u32, Lsn)> {
    let fork = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    history.lines().filter_map(fork).collect()
}

#[cfg(test)]
mod tests {
    use events::position::Partial;

    use super::*;

    fn server() -> Server {
        Server {
            system_identifier: 7300,
            timeline: 1,
            forks: Vec::new(),
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
    }

    #[test]
    fn a_promoted_server_fits_if_it_has_all_that_was_delivered() {
        let history = "1\t0/190\tno recovery target specified\n\n2\t1/0\tbefore 2026-11-29\n";
        assert_eq!(forks(history), [(1, Lsn(0x190)), (2, Lsn(1 << 32))]);
        let promoted = Server { timeline: 3, forks: forks(history), ..server() };
        let place = |end_lsn, partial: Option<u64>| {
            let partial = partial.map(|lsn| Partial { commit_lsn: Lsn(lsn), rows: 1 });
            check(&Position { end_lsn: Lsn(end_lsn), partial, ..first(&server()) }, &promoted).is_ok()
        };
        assert!(place(0x190, None) && !place(0x191, None));
        assert!(place(0x150, Some(0x18f)) && !place(0x150, Some(0x190)));
        let unknown = Position { timeline: 4, end_lsn: Lsn(0x150), ..first(&server()) };
        assert_eq!(check(&unknown, &promoted), Err(Mismatch::Timeline { position: 4, server: 3 }));
        let later = Server { confirmed_lsn: Lsn(0x160), ..promoted.clone() };
        let position = Position { end_lsn: Lsn(0x150), ..first(&server()) };
        assert!(
            matches!(check(&position, &later), Err(Mismatch::Gap { .. })),
            "a slot that was made after the promotion"
        );
    }
}
