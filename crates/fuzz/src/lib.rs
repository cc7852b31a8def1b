//! Inputs for tests of parsers that meet the outside: valid ones, damaged in every way.
//!
//! A parser that gets nothing but noise refuses it at its first byte. One that gets what was valid a moment ago is
//! tried to its last line. `PROPTEST_CASES` says how many inputs each test tries.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Inputs of a test, at least.
const CASES: u32 = 2_000;
/// Damages of one input.
const DAMAGES_MAX: usize = 6;
/// The longest input, in bytes: repetitions stop there.
const BYTES_MAX: usize = 64 * 1024;
/// Pieces that parsers have stumbled over elsewhere: ends, quotes, numbers at their limits, other scripts, depth.
const PIECES: [&[u8]; 32] = [
    b"\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x92\xa9",
    b"\r\n",
    b"\"",
    b"\\",
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b";",
    b"=",
    b"%00",
    b"%2e%2e/",
    b"{{",
    b"}}",
    b"{% ",
    b"&a *a",
    b"<<: ",
    b"!!",
    b"-9223372036854775809",
    b"18446744073709551616",
    b"1e999999",
    b"NaN",
    b"\xe2\x80\xae",
];

/// A damage to an input.
#[derive(Debug, Clone)]
enum Damage {
    Byte(Index, u8),
    Bit(Index, u8),
    Insert(Index, u8),
    Piece(Index, Index),
    Remove(Index, u8),
    /// A part of it once more, many times.
    Repeat(Index, u8, u16),
    /// A part of another input.
    Splice(Index, Index, Index, u8),
    Cut(Index),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let place = any::<Index>;
        prop_oneof![
            (place(), any::<u8>()).prop_map(|(at, byte)| Self::Byte(at, byte)),
            (place(), 0..8_u8).prop_map(|(at, bit)| Self::Bit(at, bit)),
            (place(), any::<u8>()).prop_map(|(at, byte)| Self::Insert(at, byte)),
            (place(), place()).prop_map(|(at, piece)| Self::Piece(at, piece)),
            (place(), any::<u8>()).prop_map(|(at, length)| Self::Remove(at, length)),
            (place(), 1..32_u8, 1..400_u16).prop_map(|(at, length, times)| Self::Repeat(at, length, times)),
            (place(), place(), place(), any::<u8>())
                .prop_map(|(at, other, from, length)| Self::Splice(at, other, from, length)),
            place().prop_map(Self::Cut),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let between = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
        let part = |at: &Index, length: u8, bytes: &[u8]| {
            let from = between(at, bytes);
            from..bytes.len().min(from + usize::from(length))
        };
        match self {
            Self::Byte(..) | Self::Bit(..) if bytes.is_empty() => {}
            Self::Byte(at, byte) => {
                let place = at.index(bytes.len());
                bytes[place] = *byte;
            }
            Self::Bit(at, bit) => {
                let place = at.index(bytes.len());
                bytes[place] ^= 1 << bit;
            }
            Self::Insert(at, byte) => bytes.insert(between(at, bytes), *byte),
            Self::Piece(at, piece) => {
                let place = between(at, bytes);
                bytes.splice(place..place, piece.get(&PIECES).iter().copied());
            }
            Self::Remove(at, length) => drop(bytes.drain(part(at, *length, bytes))),
            Self::Repeat(at, length, times) => {
                let part = part(at, *length, bytes);
                let more = bytes[part.clone()].repeat(usize::from(*times));
                bytes.splice(part.start..part.start, more);
            }
            Self::Splice(at, other, from, length) => {
                let other = other.get(seeds);
                let (place, more) = (between(at, bytes), other[part(from, *length, other)].to_vec());
                bytes.splice(place..place, more);
            }
            Self::Cut(at) => bytes.truncate(between(at, bytes)),
        }
        bytes.truncate(BYTES_MAX);
    }
}

/// One of these inputs, with some damages; now and then with none.
///
/// # Panics
/// Without seeds.
pub fn damaged<S: AsRef<[u8]>>(seeds: &[S]) -> impl Strategy<Value = Vec<u8>> {
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_ref().to_vec()).collect();
    assert!(!seeds.is_empty(), "no seeds");
    (any::<Index>(), vec(Damage::any(), 0..=DAMAGES_MAX)).prop_map(move |(seed, damages)| {
        let mut bytes = seed.get(&seeds).clone();
        for damage in damages {
            damage.apply(&mut bytes, &seeds);
        }
        bytes
    })
}

/// As [`damaged`], with what is no UTF-8 replaced.
///
/// # Panics
/// Without seeds.
pub fn damaged_text<S: AsRef<[u8]>>(seeds: &[S]) -> impl Strategy<Value = String> {
    damaged(seeds).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Enough inputs to find what is easily found, and as many as `PROPTEST_CASES` says where that is more.
pub fn config() -> ProptestConfig {
    let given = ProptestConfig::default();
    ProptestConfig { cases: given.cases.max(CASES), ..given }
}

#[cfg(test)]
mod tests {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;

    #[test]
    fn inputs_are_valid_ones_and_damaged_ones_and_none_is_longer_than_the_limit() {
        let mut runner = TestRunner::deterministic();
        let seeds = [&b"one"[..], b"another"];
        let inputs: Vec<Vec<u8>> =
            (0..2_000).map(|_| damaged(&seeds).new_tree(&mut runner).unwrap().current()).collect();
        let valid = inputs.iter().filter(|input| seeds.contains(&input.as_slice())).count();
        assert!((100..1_000).contains(&valid), "{valid} of them are undamaged");
        assert!(inputs.iter().all(|input| input.len() <= BYTES_MAX));
        assert!(inputs.iter().any(Vec::is_empty) && inputs.iter().any(|input| input.len() > 500));
    }
}
