//! A record's headers in one piece of memory, which is also how the outbox stores them: a record of ten headers costs
//! one allocation in place of twenty, and is read where it lies.

use std::fmt::{self, Debug, Display, Write};

/// One header: a name and what it holds. Kafka knows an absent value beside an empty one.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// The length of a value that is absent.
const ABSENT: u32 = u32::MAX;

/// The bytes are no headers as [`Headers`] writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the headers of a record cannot be read")]
pub struct BadHeaders;

/// Headers in order, repeated names and absent values included. For each: length of name (u32, big-endian), name
/// (UTF-8), length of value (u32, big-endian; `u32::MAX` for an absent one), value.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers(Vec<u8>);

impl Headers {
    /// No headers yet, with room for so many bytes of them.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Reads what [`Self::as_bytes`] gave.
    ///
    /// # Errors
    /// A part is cut off, or a name is absent or not UTF-8.
    pub fn read(bytes: Vec<u8>) -> Result<Self, BadHeaders> {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let name = take_part(&mut rest).flatten().ok_or(BadHeaders)?;
            std::str::from_utf8(name).map_err(|_| BadHeaders)?;
            take_part(&mut rest).ok_or(BadHeaders)?;
        }
        Ok(Self(bytes))
    }

    /// The bytes, as they are stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of headers.
    pub fn len(&self) -> usize {
        self.parts().count()
    }

    /// Adds one at the end.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        self.push_part(Some(name.as_bytes()));
        self.push_part(value);
    }

    /// Adds one whose value is a text, written in place.
    pub fn push_text(&mut self, name: &str, value: impl Display) {
        self.push_part(Some(name.as_bytes()));
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        write!(Text(&mut self.0), "{value}").expect("a vector takes all that is written");
        let length = u32::try_from(self.0.len() - at - 4).unwrap_or(ABSENT);
        self.0[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// The headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = Header<'_>> {
        self.parts().map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// The value of the last one of that name (docs/contract.md, Kafka: the last one counts); none if it is absent.
    pub fn last(&self, name: &str) -> Option<&[u8]> {
        self.parts().filter(|(known, _)| *known == name.as_bytes()).last()?.1
    }

    /// Adds all of the others at the end.
    pub fn append(&mut self, others: &Self) {
        self.0.extend_from_slice(&others.0);
    }

    /// Keeps those of which this is true.
    pub fn retain(&mut self, keeps: impl Fn(Header<'_>) -> bool) {
        if self.iter().any(|header| !keeps(header)) {
            *self = self.iter().filter(|header| keeps(*header)).collect();
        }
    }

    /// True if these begin with the others.
    pub fn starts_with(&self, others: &Self) -> bool {
        self.0.starts_with(&others.0)
    }

    /// The bytes of names and values.
    pub fn content_bytes(&self) -> usize {
        self.parts().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum()
    }

    fn parts(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let name = take_part(&mut rest)??;
            Some((name, take_part(&mut rest)?))
        })
    }

    fn push_part(&mut self, part: Option<&[u8]>) {
        // Kafka takes no part of more than 2 GiB, so one too long to count cannot be sent, let alone misread.
        let length = part.map_or(ABSENT, |part| u32::try_from(part.len()).unwrap_or(ABSENT));
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(part.unwrap_or_default());
    }
}

/// The next part of the bytes: none if it is cut off, none within if it is absent.
fn take_part<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length);
    if length == ABSENT {
        *bytes = rest;
        return Some(None);
    }
    let (part, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(Some(part))
}

/// Text that is written to the end of bytes.
struct Text<'a>(&'a mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readable = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        f.debug_list().entries(self.iter().map(|(name, value)| (name, value.map(readable)))).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Extend<(N, Option<V>)> for Headers {
    fn extend<I: IntoIterator<Item = (N, Option<V>)>>(&mut self, more: I) {
        for (name, value) in more {
            self.push(name.as_ref(), value.as_ref().map(AsRef::as_ref));
        }
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, Option<V>)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, Option<V>)>>(headers: I) -> Self {
        let mut all = Self::default();
        all.extend(headers);
        all
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>, const COUNT: usize> From<[(N, Option<V>); COUNT]> for Headers {
    fn from(headers: [(N, Option<V>); COUNT]) -> Self {
        headers.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some() -> Headers {
        let twice = [("twice", Some("a")), ("twice", Some("b"))];
        let [one, two] = twice;
        Headers::from([("traceparent", Some("00-1-2-01")), ("", Some("")), ("null", None), one, two])
    }

    #[test]
    fn the_last_of_a_name_counts_and_an_absent_value_is_none() {
        let mut headers = some();
        assert_eq!(headers.last("twice"), Some(&b"b"[..]));
        assert_eq!((headers.last("null"), headers.last("nowhere"), headers.last("")), (None, None, Some(&b""[..])));
        headers.push("twice", None);
        assert_eq!((headers.last("twice"), headers.len()), (None, 6));
    }

    #[test]
    fn a_text_is_written_in_place_as_if_it_had_been_pushed() {
        let (mut written, mut pushed) = (some(), some());
        written.push_text("place", format_args!("{}:{}", 7, "é"));
        written.push_text("empty", "");
        pushed.push("place", Some("7:é".as_bytes()));
        pushed.push("empty", Some(b""));
        assert_eq!(written, pushed);
    }

    #[test]
    fn those_that_are_not_kept_go_and_the_others_stay_in_order() {
        let mut headers = some();
        headers.retain(|(name, _)| name != "twice" && !name.is_empty());
        assert_eq!(headers, Headers::from([("traceparent", Some("00-1-2-01")), ("null", None)]));
        assert!(some().starts_with(&Headers::default()) && !headers.starts_with(&some()));
    }

    #[test]
    fn torn_headers_and_names_that_are_no_text_are_refused() {
        let bytes = some().into_bytes();
        let whole = |end: &usize| Headers::read(bytes[..*end].to_vec()).is_ok();
        let read: Vec<usize> = (0..=bytes.len()).filter(whole).collect();
        assert_eq!((read.first(), read.last(), read.len()), (Some(&0), Some(&bytes.len()), 6), "{read:?}");
        assert_eq!(Headers::read(vec![0, 0, 0, 1, 0xff, 0, 0, 0, 0]), Err(BadHeaders));
        assert_eq!(Headers::read(vec![0xff; 8]), Err(BadHeaders), "a name is never absent");
    }

    proptest! {
        #[test]
        fn headers_read_back_as_they_were_written(
            all in proptest::collection::vec((".{0,9}", proptest::option::of(any::<Vec<u8>>())), 0..9),
        ) {
            let headers: Headers = all.iter().cloned().collect();
            prop_assert_eq!(Headers::read(headers.as_bytes().to_vec()), Ok(headers.clone()));
            let owned = |(name, value): Header<'_>| (name.to_owned(), value.map(<[u8]>::to_vec));
            let read: Vec<_> = headers.iter().map(owned).collect();
            let bytes: usize = all.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
            prop_assert_eq!(headers.content_bytes(), bytes);
            prop_assert_eq!(read, all);
        }
    }
}
