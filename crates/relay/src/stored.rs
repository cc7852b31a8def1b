//! The position as it stands on Kafka: one record per transaction of the relay, the newest counts. Its headers name the
//! rows of that transaction ([`crate::manifest`]), and say where needed that somebody has to settle it first.

use anyhow::anyhow;
use events::position::Position;
use events::topic::Topics;
use events::{Inbound, Record, header};

/// Stands on the position while a recovery is under way.
pub(crate) const BEGUN: &str = "`meanwhile relay recover` was begun and has not come to its end";
/// Why rows of a time cannot be streamed, though the publication is there again: Postgres decodes the log as things
/// were then. Any relay recovers from this by itself.
pub(crate) const UNPUBLISHED: &str = "the publication was missing for a time, whose rows cannot be streamed";
/// Where a relay goes on from that reads in another way than the one before it: what the other way did not deliver is
/// found by comparing. Any relay does that by itself.
pub(crate) const SWITCHED: &str = "relays are to read the outbox in another way";

/// The reason, if a relay can settle it without a person.
pub(crate) fn settled_by_relays(reason: &str) -> Option<&'static str> {
    [UNPUBLISHED, SWITCHED].into_iter().find(|known| *known == reason)
}

/// The newest position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) position: Position,
    /// The id of the publication that it was streamed by. Another one of that name has not published what came before.
    pub(crate) publication: Option<u32>,
    /// The reason for which no relay may deliver from it, whatever server it finds.
    pub(crate) unsettled: Option<String>,
}

impl Stored {
    /// Reads one record of the relay's topic; none for a tombstone.
    pub(crate) fn of(record: &Inbound) -> anyhow::Result<Option<Self>> {
        let Some(value) = &record.value else { return Ok(None) };
        let position =
            Position::parse(value).map_err(|error| anyhow!("{}[0] offset {}: {error}", record.topic, record.offset))?;
        let publication = record.header_text(header::RELAY_PUBLICATION).and_then(|id| id.parse().ok());
        let unsettled = record.header_text(header::RELAY_UNSETTLED).map(str::to_owned);
        Ok(Some(Self { position, publication, unsettled }))
    }

    /// The record, with the names of the rows that its transaction carries.
    pub(crate) fn record(&self, topics: &Topics, slot: &str, manifest: Option<Vec<u8>>) -> Record {
        let unsettled = self.unsettled.as_ref().map(|reason| reason.clone().into_bytes());
        let publication = self.publication.map(|id| id.to_string().into_bytes());
        let headers = [
            (header::RELAY_ROWS, manifest),
            (header::RELAY_PUBLICATION, publication),
            (header::RELAY_UNSETTLED, unsettled),
        ];
        let headers = headers.into_iter().filter(|(_, value)| value.is_some());
        Record {
            topic: topics.relay(),
            key: Some(slot.to_owned().into_bytes()),
            value: Some(self.position.to_json()),
            headers: headers.collect(),
        }
    }
}
