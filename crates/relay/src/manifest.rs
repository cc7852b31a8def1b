//! The rows that a Kafka transaction carries, by name: a header of the position that ends it.
//!
//! The positions of the last day say of each transaction of Postgres how many of its rows are on Kafka, also of rows
//! that Kafka holds no more. After a failover, a restore or a lost slot, `recover` compares the outbox with them.
//!
//! Form: a version; for each transaction of Postgres its id, the microseconds between its start and that of the one
//! before, the count of its rows (all varints); for each row a tag, the job's id where the tag is [`JOB`], and eight
//! bytes that stand for topic and message id (0: it has none).

use std::hash::Hasher;

use events::{Record, header};
use store::unrelayed::Origin;
use uuid::Uuid;

/// The most rows of one manifest: at 38 bytes each they fit into a record of 1 MiB.
pub(crate) const ROWS_MAX: usize = 20_000;

const VERSION: u8 = 1;
const NO_JOB: u8 = 0;
const JOB: u8 = 1;
const SAME_JOB: u8 = 2;

/// The rows of one transaction of Postgres, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) origin: Origin,
    pub(crate) rows: Vec<RowName>,
}

/// A row, as far as it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowName {
    pub(crate) job: Option<Uuid>,
    /// Stands for topic and message id; none where the record has no message id.
    pub(crate) message: Option<u64>,
}

/// The bytes are no manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a manifest of the relay cannot be read; it may be of a newer version")]
pub(crate) struct NotAManifest;

impl RowName {
    pub(crate) fn of(record: &Record) -> Self {
        let job = record.header(header::JOB_ID).and_then(|id| Uuid::try_parse_ascii(id).ok());
        let message = record.header(header::MESSAGE_ID).map(|id| {
            let mut hash = Fnv::default();
            hash.write(record.topic.as_bytes());
            hash.write(&[0]);
            hash.write(id);
            hash.finish().max(1)
        });
        Self { job, message }
    }
}

/// FNV-1a: the same in every version and on every machine.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The header's value for these rows, in their order.
pub(crate) fn encode(rows: impl Iterator<Item = (Origin, RowName)>) -> Vec<u8> {
    let mut carried: Vec<Carried> = Vec::new();
    for (origin, row) in rows {
        match carried.last_mut() {
            Some(last) if last.origin == origin => last.rows.push(row),
            _ => carried.push(Carried { origin, rows: vec![row] }),
        }
    }
    let (mut bytes, mut before_micros) = (vec![VERSION], 0);
    for Carried { origin, rows } in carried {
        put(&mut bytes, origin.txid);
        put(&mut bytes, zigzag(origin.began_micros.wrapping_sub(before_micros)));
        put(&mut bytes, rows.len() as u64);
        before_micros = origin.began_micros;
        let mut job_before = None;
        for row in rows {
            match row.job {
                None => bytes.push(NO_JOB),
                Some(job) if job_before == Some(job) => bytes.push(SAME_JOB),
                Some(job) => {
                    bytes.push(JOB);
                    bytes.extend_from_slice(job.as_bytes());
                }
            }
            job_before = row.job;
            bytes.extend_from_slice(&row.message.unwrap_or_default().to_be_bytes());
        }
    }
    bytes
}

/// The reverse of [`encode`].
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Carried>, NotAManifest> {
    let (&[VERSION], mut bytes) = bytes.split_at_checked(1).ok_or(NotAManifest)? else { return Err(NotAManifest) };
    let (mut carried, mut before_micros) = (Vec::new(), 0_i64);
    while !bytes.is_empty() {
        let txid = take(&mut bytes)?;
        let began_micros = before_micros.wrapping_add(unzigzag(take(&mut bytes)?));
        let (count, mut rows, mut job_before) = (take(&mut bytes)?, Vec::new(), None);
        for _ in 0..count {
            let job = match take_array::<1>(&mut bytes)? {
                [NO_JOB] => None,
                [JOB] => Some(Uuid::from_bytes(take_array(&mut bytes)?)),
                [SAME_JOB] => Some(job_before.ok_or(NotAManifest)?),
                _ => return Err(NotAManifest),
            };
            job_before = job;
            let message = u64::from_be_bytes(take_array(&mut bytes)?);
            rows.push(RowName { job, message: (message != 0).then_some(message) });
        }
        before_micros = began_micros;
        carried.push(Carried { origin: Origin { txid, began_micros }, rows });
    }
    Ok(carried)
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u64, NotAManifest> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take_array(bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(NotAManifest)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], NotAManifest> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(NotAManifest)?;
    *bytes = rest;
    Ok(*taken)
}

const fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63).cast_unsigned()
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use events::headers::Headers;
    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = (Origin, RowName)> {
        // Few jobs and transactions, so that they repeat.
        let origin = (prop_oneof![0..3_u64, any::<u64>()], prop_oneof![0..3_i64, any::<i64>()]);
        let row = (proptest::option::of(0..3_u128), proptest::option::of(1..u64::MAX));
        (origin, row).prop_map(|((txid, began_micros), (job, message))| {
            (Origin { txid, began_micros }, RowName { job: job.map(Uuid::from_u128), message })
        })
    }

    proptest! {
        #[test]
        fn a_manifest_reads_back_as_it_was_written(rows in proptest::collection::vec(row(), 0..40)) {
            let carried = decode(&encode(rows.iter().copied())).unwrap();
            let read = carried.into_iter().flat_map(|carried| {
                carried.rows.into_iter().map(move |row| (carried.origin, row))
            });
            prop_assert_eq!(read.collect::<Vec<_>>(), rows);
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_manifest_of_another_version_is_refused() {
        assert_eq!(decode(&[]), Err(NotAManifest));
        assert_eq!(decode(&[2]), Err(NotAManifest));
        assert_eq!(decode(&[VERSION]), Ok(vec![]));
    }

    #[test]
    fn the_largest_manifest_fits_into_a_record() {
        let rows = (0..ROWS_MAX as u64).map(|row| {
            let origin = Origin { txid: u64::MAX - row, began_micros: if row % 2 == 0 { i64::MAX / 2 } else { 0 } };
            (origin, RowName { job: Some(Uuid::from_u128(row.into())), message: Some(row + 1) })
        });
        let bytes = encode(rows).len();
        assert!(bytes < 1_000_000, "{bytes}");
    }

    #[test]
    fn a_row_is_named_by_its_topic_and_message_id() {
        let record = |topic: &str, id: &str| {
            let job = "0190a5c1-0000-7000-8000-000000000000";
            let headers = Headers::from([(header::JOB_ID, Some(job)), (header::MESSAGE_ID, Some(id))]);
            RowName::of(&Record { topic: topic.to_owned(), headers, ..Record::default() })
        };
        assert_eq!(record("a", "1"), record("a", "1"));
        assert_ne!(record("a", "1").message, record("b", "1").message);
        assert_ne!(record("a", "1").message, record("a", "2").message);
        assert_eq!(record("a", "1").job.unwrap().to_string(), "0190a5c1-0000-7000-8000-000000000000");
        assert_eq!(RowName::of(&Record::default()), RowName { job: None, message: None });
    }
}
