//! W3C Trace Context, as it is carried at rest and on the wire.

use std::fmt;
use std::str::FromStr;

use crate::header;
use crate::headers::Headers;

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

/// The trace flag that says that the caller may have recorded the trace.
pub const SAMPLED: u8 = 1;
/// The trace flag that says that the trace's id is random (Trace Context, level 2).
pub const RANDOM: u8 = 2;

/// A parsed `traceparent` (W3C Trace Context, version 00): who caused this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace, never zero.
    pub trace_id: TraceId,
    /// The span that caused this, never zero.
    pub span_id: u64,
    /// Trace flags: [`SAMPLED`] and [`RANDOM`]. All other bits are zero.
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
        // Bits that are not defined are not passed on (section 3.2.2.5.2).
        Ok(Self { trace_id: TraceId(id), span_id, flags: flags & (SAMPLED | RANDOM) })
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

    /// Parses the texts of `traceparent` and `tracestate`. None if the first is missing or invalid: then a new trace is
    /// begun, and a `tracestate` alone means nothing (W3C Trace Context, section 4.3). One that is invalid is left out.
    pub fn parse(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Self> {
        let context = traceparent?.parse().ok()?;
        Some(Self { context, state: tracestate.and_then(list).map(str::to_owned) })
    }

    /// Reads a record's headers; the last one of a name counts.
    pub fn from_headers(headers: &Headers) -> Option<Self> {
        let text = |name: &str| std::str::from_utf8(headers.last(name)?).ok();
        Self::parse(text(header::TRACEPARENT), text(header::TRACESTATE))
    }

    /// The trace as an HTTP request has it: names and values.
    pub fn texts(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let state = self.state.clone().map(|state| (header::TRACESTATE, state));
        std::iter::once((header::TRACEPARENT, self.context.to_string())).chain(state)
    }

    /// Adds the trace to a record's headers.
    pub fn write(&self, headers: &mut Headers) {
        headers.push_text(header::TRACEPARENT, self.context);
        if let Some(state) = &self.state {
            headers.push_text(header::TRACESTATE, state);
        }
    }
}

/// A longer `tracestate` is dropped (W3C Trace Context asks for 512 characters to be kept at least).
const STATE_BYTES_MAX: usize = 2048;
/// The most members of a `tracestate` (section 3.3.1.1).
const STATE_MEMBERS_MAX: usize = 32;
/// The most bytes of a member's key, and of its value.
const MEMBER_BYTES_MAX: usize = 256;

/// The `tracestate`, if it is a list of `key=value`, each of them as section 3.3.1.3 says.
fn list(state: &str) -> Option<&str> {
    let state = state.trim();
    let members = || state.split(',').map(str::trim).filter(|member| !member.is_empty());
    let count = members().count();
    let fits = state.len() <= STATE_BYTES_MAX && (1..=STATE_MEMBERS_MAX).contains(&count);
    (fits && members().all(is_member)).then_some(state)
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let key_character = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-*/@".contains(c);
    let fits = |text: &str| (1..=MEMBER_BYTES_MAX).contains(&text.len());
    fits(key)
        && key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && key.chars().all(key_character)
        && key.matches('@').count() <= 1
        && !key.ends_with('@')
        && fits(value)
        && value.chars().all(|c| (' '..='~').contains(&c) && c != '=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_trace_header_counts_and_a_state_alone_means_nothing() {
        let one = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let two = "00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b8-00";
        let read = |headers: &[(&str, Option<&[u8]>)]| Trace::from_headers(&headers.iter().copied().collect());
        let state = ("tracestate", Some(&b"a=1"[..]));
        let trace =
            read(&[("traceparent", Some(one.as_bytes())), state, ("traceparent", Some(two.as_bytes()))]).unwrap();
        assert_eq!((trace.context.to_string().as_str(), trace.state.as_deref()), (two, Some("a=1")));
        let mut written = Headers::default();
        trace.write(&mut written);
        assert_eq!(Trace::from_headers(&written), Some(trace));
        assert_eq!(read(&[state]), None);
        assert_eq!(read(&[("traceparent", None)]), None);
        assert_eq!(read(&[("traceparent", Some(&[0xff]))]), None);
    }

    #[test]
    fn flags_that_are_not_defined_are_not_passed_on() {
        let flags = |flags: &str| {
            let text = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
            text.parse::<TraceContext>().unwrap().flags
        };
        assert_eq!(["00", "01", "02", "03", "ff", "fc"].map(flags), [0, 1, 2, 3, 3, 0]);
    }

    #[test]
    fn a_state_is_passed_on_as_it_is_or_not_at_all() {
        let parent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let state = |state: &str| Trace::parse(parent, Some(state)).unwrap().state;
        let many = |count| (0..count).map(|number| format!("k{number}=1")).collect::<Vec<_>>().join(",");
        for good in ["a=1", "a=1 , b=2", "a=1,,b=2,", "0a/b@c=x y~", "a=1,a=1", &many(32)] {
            assert_eq!(state(good).as_deref(), Some(good));
        }
        for bad in ["", " ,", "a", "a=", "=1", "A=1", "a =1", "a=1=2", "a@=1", "a@b@c=1", "a=\u{e4}", &many(33)] {
            assert_eq!(state(bad), None, "{bad}");
        }
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
