//! The cursor of a stream of all jobs: for each partition of the events the offset to go on with. It says the same to
//! every instance. Callers see an opaque text.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use crate::query::{TENANT_BYTES, digest};

/// The first byte of a cursor: its form.
const FORM: u8 = 1;
/// Partitions that a cursor may name. Beyond it is no cursor of ours.
const PARTITIONS_MAX: usize = 1_024;

/// The next offset by partition; of a partition that is not named, the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor(Vec<i64>);

impl Cursor {
    /// The next offset of a partition.
    pub(super) fn next(&self, partition: i32) -> i64 {
        usize::try_from(partition).ok().and_then(|index| self.0.get(index)).copied().unwrap_or(0)
    }

    /// Goes on behind this place; it never goes back.
    pub(super) fn raise(&mut self, partition: i32, next: i64) {
        let Ok(index) = usize::try_from(partition) else { return };
        if self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        self.0[index] = self.0[index].max(next);
    }

    /// Goes on behind both.
    pub(super) fn raise_to(&mut self, other: &Self) {
        (0..).zip(&other.0).for_each(|(partition, next)| self.raise(partition, *next));
    }

    /// By partition, of those that it names.
    pub(super) fn offsets(&self) -> &[i64] {
        &self.0
    }

    /// As the tenant's callers get it.
    pub(crate) fn text(&self, tenant: &str) -> String {
        let mut bytes = vec![FORM];
        bytes.extend(digest(tenant));
        for next in &self.0 {
            let mut rest = next.unsigned_abs();
            while rest >= 0x80 {
                bytes.push((rest & 0x7f) as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push((rest & 0x7f) as u8);
        }
        BASE64.encode(bytes)
    }

    /// None for what [`Cursor::text`] has not made for this tenant.
    pub(crate) fn parse(tenant: &str, text: &str) -> Option<Self> {
        let bytes = BASE64.decode(text).ok()?;
        let (form, bytes) = bytes.split_first()?;
        let (of, mut bytes) = bytes.split_at_checked(TENANT_BYTES)?;
        if *form != FORM || of != digest(tenant) {
            return None;
        }
        let mut nexts = Vec::new();
        while !bytes.is_empty() && nexts.len() < PARTITIONS_MAX {
            let length = bytes.iter().position(|byte| byte & 0x80 == 0)? + 1;
            let (number, rest) = bytes.split_at(length);
            let shifted = |sum: Option<i64>, (place, byte): (u32, &u8)| {
                let part = i64::from(byte & 0x7f).checked_mul(1_i64.checked_shl(7 * place)?)?;
                sum?.checked_add(part)
            };
            // Nine times seven bits are all that an offset can have.
            let next = (0..).zip(number).take(10).fold(Some(0), shifted).filter(|_| length <= 9)?;
            nexts.push(next);
            bytes = rest;
        }
        bytes.is_empty().then_some(Self(nexts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_whatever_its_offsets_are() {
        for nexts in [vec![], vec![0], vec![127, 128, 0, 1 << 40, i64::MAX], vec![7; 12]] {
            let cursor = Cursor(nexts);
            assert_eq!(Cursor::parse("acme", &cursor.text("acme")), Some(cursor));
        }
    }

    #[test]
    fn what_is_not_a_cursor_of_this_tenant_is_none() {
        let text = Cursor(vec![300]).text("acme");
        assert_eq!(Cursor::parse("other", &text), None);
        assert_eq!(Cursor::parse("acme", &text[..text.len() - 1]), None, "cut off in the middle of a number");
        let endless = BASE64.encode([&[FORM][..], &digest("acme"), &[0xff; 30], &[1]].concat());
        for text in ["", "?", "4711", "AAAA", &endless] {
            assert_eq!(Cursor::parse("acme", text), None, "{text}");
        }
    }

    #[test]
    fn a_cursor_never_goes_back() {
        let mut cursor = Cursor(vec![5]);
        cursor.raise_to(&Cursor(vec![3, 9]));
        assert_eq!((cursor.next(0), cursor.next(1), cursor.next(2)), (5, 9, 0));
    }
}
