//! The version of a flow, which follows from its document.

use std::io;

use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

use crate::document::sha256;

/// The version has this number of hexadecimal digits of the digest.
const VERSION_DIGITS: usize = 12;

pub(super) fn of(document: &Value) -> String {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, Canonical);
    document.serialize(&mut serializer).expect("text keys and JSON values always serialise into memory");
    let mut digits = sha256(&text);
    digits.truncate(VERSION_DIGITS);
    digits
}

/// Compact JSON. The parser writes the sign of an exponent out (`1e+20`), which was not so in the first documents.
struct Canonical;

impl Formatter for Canonical {
    fn write_number_str<W: ?Sized + io::Write>(&mut self, writer: &mut W, number: &str) -> io::Result<()> {
        writer.write_all(number.replace('+', "").as_bytes())
    }
}
