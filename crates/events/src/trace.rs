//! W3C Trace Context, as it is carried at rest and on the wire.

use std::fmt;
use std::str::FromStr;

use crate::header;
use crate::record::Header;

/// The id of a trace: 128 bits, shown as 32 hexadecimal digits everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

impl TraceId {
    /// The id with these bits.
    pub const fn new(id: u128) -> Self {
        Self(id)
    }

    /// The bits.
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A parsed `traceparent` (W3C Trace Context, version 00): who caused this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace, never zero.
    pub trace_id: TraceId,
    /// The span that caused this, never zero.
    pub span_id: u64,
    /// Trace flags; bit 0 is `sampled`.
    pub flags: u8,
}

impl TraceContext {
    /// The same trace, another span.
    pub const fn child(self, span_id: u64) -> Self {
        Self { span_id, ..self }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// The text is not a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent: want 00-<32 hex>-<16 hex>-<2 hex>")]
pub struct NotATraceparent;

impl FromStr for TraceContext {
    type Err = NotATraceparent;

    fn from_str(text: &str) -> Result<Self, NotATraceparent> {
        let lower_hex = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let mut parts = text.trim().split('-');
        let mut next = |length: usize| {
            let part = parts.next().ok_or(NotATraceparent)?;
            if part.len() == length && lower_hex(part) { Ok(part) } else { Err(NotATraceparent) }
        };
        let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        // A later version may append fields; version 00 has none, and ff is invalid.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return Err(NotATraceparent);
        }
        let id = u128::from_str_radix(trace, 16).map_err(|_| NotATraceparent)?;
        let span_id = u64::from_str_radix(span, 16).map_err(|_| NotATraceparent)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| NotATraceparent)?;
        if id == 0 || span_id == 0 {
            return Err(NotATraceparent);
        }
        Ok(Self { trace_id: TraceId(id), span_id, flags })
    }
}

/// The trace that travels with every record: its cause, and the vendors' part, which is passed on unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The `traceparent`.
    pub context: TraceContext,
    /// The `tracestate`.
    pub state: Option<String>,
}

impl Trace {
    /// A trace without a `tracestate`.
    pub const fn new(context: TraceContext) -> Self {
        Self { context, state: None }
    }

    /// The same trace, caused by another span.
    #[must_use]
    pub fn child(&self, span_id: u64) -> Self {
        Self { context: self.context.child(span_id), state: self.state.clone() }
    }

    /// From the texts of `traceparent` and `tracestate`. None when the first is missing or invalid: then a new trace is
    /// begun, and a `tracestate` alone means nothing (W3C Trace Context, section 4.3).
    pub fn parse(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Self> {
        let context = traceparent?.parse().ok()?;
        let fits = |state: &&str| !state.is_empty() && state.len() <= STATE_BYTES_MAX;
        Some(Self { context, state: tracestate.map(str::trim).filter(fits).map(str::to_owned) })
    }

    /// From a record's headers; the last one of a name counts.
    pub fn from_headers(headers: &[Header]) -> Option<Self> {
        let text = |name: &str| {
            let (_, value) = headers.iter().rev().find(|(known, _)| known == name)?;
            std::str::from_utf8(value.as_deref()?).ok()
        };
        Self::parse(text(header::TRACEPARENT), text(header::TRACESTATE))
    }

    /// As a record's headers.
    pub fn headers(&self) -> impl Iterator<Item = Header> + use<> {
        let parent = (header::TRACEPARENT.to_owned(), Some(self.context.to_string().into_bytes()));
        let state = self.state.clone().map(|state| (header::TRACESTATE.to_owned(), Some(state.into_bytes())));
        std::iter::once(parent).chain(state)
    }
}

/// A longer `tracestate` is dropped (W3C Trace Context asks for 512 characters to be kept at least).
const STATE_BYTES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_trace_header_counts_and_a_state_alone_means_nothing() {
        let one = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let two = "00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b8-00";
        let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        let repeated = [header("traceparent", one), header("tracestate", "a=1"), header("traceparent", two)];
        let trace = Trace::from_headers(&repeated).unwrap();
        assert_eq!((trace.context.to_string().as_str(), trace.state.as_deref()), (two, Some("a=1")));
        assert_eq!(Trace::from_headers(&trace.headers().collect::<Vec<_>>()), Some(trace));
        assert_eq!(Trace::from_headers(&[header("tracestate", "a=1")]), None);
        assert_eq!(Trace::from_headers(&[("traceparent".to_owned(), None)]), None);
        assert_eq!(Trace::from_headers(&[("traceparent".to_owned(), Some(vec![0xff]))]), None);
    }

    #[test]
    fn a_traceparent_reads_back_as_it_was_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(text.parse::<TraceContext>().unwrap().to_string(), text);
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(NotATraceparent), "{text}");
        }
    }
}
