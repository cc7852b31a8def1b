//! The relay's position, as it stands on `meanwhile.relay`: JSON, keyed by the outbox' name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place in Postgres' log. As text it is what Postgres writes: `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// The text is no place in a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an LSN is two hexadecimal numbers such as 16/B374D848, not `{0}`")]
pub struct NotAnLsn(String);

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let half = |half: &str| {
            let fits = (1..=8).contains(&half.len()) && half.bytes().all(|byte| byte.is_ascii_hexdigit());
            fits.then(|| u64::from_str_radix(half, 16).ok()).flatten()
        };
        let both = text.split_once('/').and_then(|(high, low)| Some((half(high)?, half(low)?)));
        both.map(|(high, low)| Self(high << 32 | low)).ok_or_else(|| NotAnLsn(text.to_owned()))
    }
}

impl TryFrom<String> for Lsn {
    type Error = NotAnLsn;

    fn try_from(text: String) -> Result<Self, NotAnLsn> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

/// All commits up to `end_lsn` in this database are on Kafka; of later ones, only the rows that `partial` counts.
///
/// Unknown fields are refused: a relay that keeps its place in another way must not be taken for this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The database cluster (`pg_control_system()`): another one has other commits at the same places.
    #[serde(with = "number_as_text")]
    pub system_identifier: u64,
    /// The cluster's timeline: after a failover the log may differ.
    pub timeline: u32,
    /// Every commit that ends here or before has been relayed whole.
    pub end_lsn: Lsn,
    /// The commit after it, where only a part of its rows is on Kafka yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
    /// Of a relay that polls the table: the last row that is on Kafka. `end_lsn` says nothing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_row: Option<LastRow>,
    /// The number of messages that were relayed in all.
    pub relayed: u64,
    /// The time of writing, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// A commit that is relayed in several Kafka transactions. Postgres repeats its rows in the same order, so a count is
/// enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partial {
    /// The begin of its commit record (pgoutput's Begin names it).
    pub commit_lsn: Lsn,
    /// The number of its rows that are on Kafka.
    pub rows: u64,
}

/// A row of the outbox, in the order of transaction ids, then of `seq`: it and all rows before it are on Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastRow {
    /// The id of its transaction.
    #[serde(with = "number_as_text")]
    pub txid: u64,
    /// Its `seq`; 0: none of this transaction, but all before it.
    pub seq: i64,
    /// The begin of its transaction, in microseconds since 2000-01-01: a restored server gives ids again.
    pub began_micros: i64,
}

impl fmt::Display for LastRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seq {
            0 => write!(f, "the begin of transaction {}", self.txid),
            seq => write!(f, "row {seq} of transaction {}", self.txid),
        }
    }
}

/// The bytes are not a position.
#[derive(Debug, thiserror::Error)]
#[error("not a relay position: {0}")]
pub struct NotAPosition(String);

impl Position {
    /// The record's value.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and strings are JSON")
    }

    /// The reverse of [`Position::to_json`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAPosition> {
        serde_json::from_slice(bytes).map_err(|error| NotAPosition(error.to_string()))
    }
}

/// JSON readers elsewhere keep 53 bits of a number; this one has 64.
mod number_as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_as_it_was_written() {
        let position = Position {
            system_identifier: u64::MAX,
            timeline: 3,
            end_lsn: "16/B374D848".parse().unwrap(),
            partial: None,
            last_row: None,
            relayed: 12,
            at_ms: 5,
        };
        let json = concat!(
            r#"{"system_identifier":"18446744073709551615","timeline":3,"end_lsn":"16/B374D848","#,
            r#""relayed":12,"at_ms":5}"#
        );
        assert_eq!(String::from_utf8(position.to_json()).unwrap(), json);
        assert_eq!(Position::parse(json.as_bytes()).unwrap(), position);
        let position = Position { partial: Some(Partial { commit_lsn: Lsn(171), rows: 2 }), ..position };
        assert_eq!(Position::parse(&position.to_json()).unwrap(), position);
        let polled = Position { last_row: Some(LastRow { txid: 9, seq: 2, began_micros: 5 }), ..position };
        assert_eq!(Position::parse(&polled.to_json()).unwrap(), polled);
        let other = json.replace("\"relayed\"", "\"txid\":9,\"relayed\"");
        assert!(Position::parse(other.as_bytes()).unwrap_err().to_string().contains("txid"));
    }

    #[test]
    fn an_lsn_is_what_postgres_writes() {
        assert_eq!("0/0".parse(), Ok(Lsn(0)));
        assert_eq!("FFFFFFFF/FFFFFFFF".parse(), Ok(Lsn(u64::MAX)));
        assert_eq!(Lsn(0x1_0000_000A).to_string(), "1/A");
        assert!(Lsn(0x1_0000_0000) > Lsn(0xffff_ffff));
        for text in ["", "/", "0", "1/", "1/+5", "1/123456789", "g/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
