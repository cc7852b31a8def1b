//! Numbers of a flow file as YAML 1.2 has them (section 10.3.2), with all the digits that were written.

use serde_json::Number;

use super::node::{Content, Node};
use super::reader::Reader;

/// Reads each number again from the text of the document. A number with leading zeros gets a hint: it may be a text.
pub(super) fn settle(reader: &mut Reader<'_>, node: &mut Node, document: &str) {
    let place = node.place;
    match &mut node.content {
        Content::Number(number) => {
            let Some(text) = document.get(node.bytes.clone()) else { return };
            if let Some(written) = parse(text) {
                *number = written;
            }
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                reader.hint(
                    place,
                    format!("`{text}` is the number {number}"),
                    format!("as a text it needs quotes: \"{text}\""),
                );
            }
        }
        Content::List(items) => items.iter_mut().for_each(|item| settle(reader, item, document)),
        Content::Map(entries) => entries.iter_mut().for_each(|(_, value)| settle(reader, value, document)),
        Content::Null | Content::Bool(_) | Content::Text(_) => {}
    }
}

/// The number; none where YAML 1.2 knows none (`1_000`).
fn parse(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u128::from_str_radix(digits, 16).ok().and_then(Number::from_u128);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u128::from_str_radix(digits, 8).ok().and_then(Number::from_u128);
    }
    let (sign, text) = match text.strip_prefix(['-', '+']) {
        Some(unsigned) => (if text.starts_with('-') { "-" } else { "" }, unsigned),
        None => ("", text),
    };
    let at = text.find(['e', 'E']).unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(at);
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(whole, rest)| (whole, Some(rest)));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !fraction.is_none_or(is_digits) || (whole.is_empty() && fraction.is_none_or(str::is_empty))
    {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let fraction = fraction.map(|digits| format!(".{}", if digits.is_empty() { "0" } else { digits }));
    serde_json::from_str(&format!("{sign}{whole}{}{exponent}", fraction.unwrap_or_default())).ok()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn numbers_are_those_of_yaml_1_2_with_all_their_digits() {
        for (text, number) in [
            ("01234", Some("1234")),
            ("-007", Some("-7")),
            ("+12", Some("12")),
            ("00", Some("0")),
            ("0o14", Some("12")),
            ("0xC", Some("12")),
            ("123456789012345678901234567890", Some("123456789012345678901234567890")),
            ("1.10", Some("1.10")),
            (".5", Some("0.5")),
            ("5.", Some("5.0")),
            ("012e03", Some("12e+03")),
            ("1_000", None),
            ("", None),
            (".", None),
            ("-", None),
            ("e5", None),
        ] {
            assert_eq!(parse(text).map(|number| number.to_string()).as_deref(), number, "{text}");
        }
    }
}
