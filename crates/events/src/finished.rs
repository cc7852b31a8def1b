//! The metadata beside a committed offset of a steps topic: the slips above it that are finished already.
//!
//! Slips finish out of order. All slips below the committed offset are finished; the metadata of the commit names, as a
//! bitmap, the finished slips from there on. Workers write and read it; the orchestrator reads it to count queues.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// A broker takes this much metadata of a committed offset (`offset.metadata.max.bytes`, default).
pub const METADATA_BYTES_MAX: usize = 4096;
/// The prefix of the metadata: the version of its format.
const PREFIX: &str = "m1:";
/// A finished offset can be this far above the committed one, so that the bitmap still fits.
pub const WINDOW_OFFSETS: i64 = ((METADATA_BYTES_MAX - PREFIX.len()) * 3 / 4 * 8) as i64;

/// The metadata of a committed offset was not written by a worker that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the committed offset's metadata `{0}` is not of this version: to skip it could run steps twice")]
pub struct UnknownMetadata(String);

/// The metadata for a committed offset; empty when nothing from there on is finished.
///
/// # Panics
/// A finished offset is below the committed one, or further than [`WINDOW_OFFSETS`] above it.
pub fn encode(offset: i64, finished: impl Iterator<Item = i64>) -> String {
    let mut bits = Vec::new();
    for finished in finished {
        let distance = usize::try_from(finished - offset).expect("it is not below the position");
        let byte = distance / 8;
        if byte >= bits.len() {
            bits.resize(byte + 1, 0_u8);
        }
        bits[byte] |= 1 << (distance % 8);
    }
    let metadata = if bits.is_empty() { String::new() } else { PREFIX.to_owned() + &STANDARD_NO_PAD.encode(bits) };
    assert!(metadata.len() <= METADATA_BYTES_MAX, "only offsets that fit may be finished");
    metadata
}

/// The offsets that the metadata of a committed offset names as finished.
///
/// # Errors
/// It was not written by this version.
pub fn decode(offset: i64, metadata: &str) -> Result<BTreeSet<i64>, UnknownMetadata> {
    if metadata.is_empty() {
        return Ok(BTreeSet::new());
    }
    let unknown = || UnknownMetadata(metadata.chars().take(40).collect());
    let bits = metadata.strip_prefix(PREFIX).ok_or_else(unknown)?;
    let bits = STANDARD_NO_PAD.decode(bits).map_err(|_| unknown())?;
    let set = |index: &usize| bits[index / 8] & (1 << (index % 8)) != 0;
    Ok((0..bits.len() * 8).filter(set).map(|distance| offset + distance as i64).collect())
}

/// How many these are, for figures. In metadata of another version: as if none were finished.
pub fn count(offset: i64, metadata: &str) -> u64 {
    decode(offset, metadata).map_or(0, |finished| finished.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_finished_is_read_back() {
        let finished = BTreeSet::from([12, 13, 99]);
        let metadata = encode(10, finished.iter().copied());
        assert_eq!(decode(10, &metadata).unwrap(), finished);
        assert_eq!(encode(10, std::iter::empty()), "");
        assert_eq!(decode(10, "").unwrap(), BTreeSet::new());
    }

    #[test]
    fn what_is_furthest_away_still_fits() {
        assert!(encode(0, std::iter::once(WINDOW_OFFSETS - 1)).len() <= METADATA_BYTES_MAX);
    }

    #[test]
    fn another_version_is_refused_not_ignored() {
        for metadata in ["m2:AAAA", "hello", "m1:***"] {
            assert!(decode(0, metadata).is_err(), "{metadata}");
        }
    }
}
