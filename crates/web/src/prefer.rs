//! `Prefer` (RFC 7240): the form of answer that a caller would like.
//!
//! Several header lines are one list. Names are case-insensitive, values may be quoted, parameters are read and
//! ignored, and so are preferences that are not known here. Of a preference that is named twice the first one counts,
//! even if its value is of no use. An element that the grammar does not allow is passed over, up to the next comma
//! outside of quotes, or to the end of its line where a quote stays open; the rest of the list counts. No request is
//! refused for its preferences (section 2).

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

use crate::problem::Problem;

/// The header of a request.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The header of an answer, which names the preferences that were honoured.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The preferences that a door may honour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preferences {
    /// `respond-async`: an answer 202 is welcome.
    pub respond_async: bool,
    /// `wait=N`: the longest time that the caller would like to wait for the outcome, in seconds.
    pub wait_s: Option<u64>,
    /// `return=minimal`: no more than is needed.
    pub minimal: bool,
}

impl Preferences {
    /// The preferences of a request.
    pub fn of(headers: &HeaderMap) -> Self {
        let named = list(headers.get_all(PREFER).iter().map(HeaderValue::as_bytes));
        let value = |name: &str| Some(named.iter().find(|(known, _)| known == name)?.1.as_str());
        Self {
            respond_async: value("respond-async") == Some(""),
            wait_s: value("wait").and_then(delta_seconds),
            minimal: value("return") == Some("minimal"),
        }
    }

    /// The time to wait, at most `max_s` seconds.
    pub fn wait(&self, max_s: u64) -> Option<Duration> {
        self.wait_s.map(|seconds| Duration::from_secs(seconds.min(max_s)))
    }
}

/// Says of an answer that it depends on the request's preferences.
///
/// # Errors
/// The problem that it was, which says so too.
pub fn vary(answer: Result<Response, Problem>) -> Result<Response, Problem> {
    let value = HeaderValue::from_static("Prefer");
    match answer {
        Ok(mut response) => {
            response.headers_mut().append(header::VARY, value);
            Ok(response)
        }
        Err(problem) => Err(problem.with_header(header::VARY, value)),
    }
}

/// `delta-seconds`, whatever their number of digits (RFC 9110, section 10.2.3).
fn delta_seconds(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Names in lower case with their values, empty where there is none; each name once.
fn list<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<(String, String)> {
    let mut named: Vec<(String, String)> = Vec::new();
    for line in lines {
        let mut rest = Rest(line);
        while !rest.0.is_empty() {
            let begin = rest.0;
            match rest.element() {
                Some((name, value)) if named.iter().all(|(known, _)| *known != name) => named.push((name, value)),
                Some(_) => {}
                None => {
                    rest.0 = begin;
                    rest.pass_over();
                }
            }
            rest.eat(b',');
        }
    }
    named
}

/// The part of a header line that has not been read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// `[ token [ BWS "=" BWS word ] *( OWS ";" [ OWS parameter ] ) ]` up to a comma or the end. An empty element is
    /// none, which a list may have.
    fn element(&mut self) -> Option<(String, String)> {
        self.skip_blanks();
        let name = self.token()?.to_ascii_lowercase();
        let value = self.value()?;
        loop {
            self.skip_blanks();
            if !self.eat(b';') {
                break;
            }
            self.skip_blanks();
            if self.token().is_some() {
                self.value()?;
            }
        }
        matches!(self.0.first(), None | Some(b',')).then_some((name, value))
    }

    /// The value behind a name. An empty one is the same as none.
    fn value(&mut self) -> Option<String> {
        self.skip_blanks();
        if !self.eat(b'=') {
            return Some(String::new());
        }
        self.skip_blanks();
        match self.0.first() {
            None | Some(b',' | b';') => Some(String::new()),
            Some(b'"') => self.quoted(),
            Some(_) => self.token(),
        }
    }

    fn token(&mut self) -> Option<String> {
        let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let length = self.0.iter().take_while(|byte| is_of_token(byte)).count();
        let (token, rest) = self.0.split_at(length);
        self.0 = rest;
        (length > 0).then(|| String::from_utf8_lossy(token).into_owned())
    }

    /// `quoted-string` (RFC 9110, section 5.6.4), unescaped.
    fn quoted(&mut self) -> Option<String> {
        let mut text = Vec::new();
        let mut bytes = self.0.iter().enumerate().skip(1);
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(String::from_utf8_lossy(&text).into_owned());
                }
                b'\\' => text.push(*bytes.next()?.1),
                byte => text.push(*byte),
            }
        }
        None
    }

    fn skip_blanks(&mut self) {
        let blanks = self.0.iter().take_while(|byte| [b' ', b'\t'].contains(byte)).count();
        self.0 = &self.0[blanks..];
    }

    fn eat(&mut self, wanted: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == wanted => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// Passes over an element that is malformed, quotes and all.
    fn pass_over(&mut self) {
        while let Some((first, rest)) = self.0.split_first() {
            match first {
                b',' => return,
                b'"' if self.quoted().is_some() => {}
                // It is open to the end.
                b'"' => self.0 = &[],
                _ => self.0 = rest,
            }
        }
    }
}

#[cfg(test)]
mod tests;
