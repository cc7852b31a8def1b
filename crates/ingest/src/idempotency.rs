//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07) and the fingerprint of a request.
//!
//! The scope of a key is tenant + flow: the flow's own route, `/v1/flows/{flow}/jobs` and the Kafka door are three
//! ways to the same place, so a command's `id` and a header's key are one key space.

use events::limit::COMMAND_ID_BYTES_MAX as KEY_BYTES_MAX;
use serde_json::Value;
use sha2::{Digest, Sha256};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error(
        "Idempotency-Key must be a quoted string of printable ASCII, such as \"8e03978e-40d5-43dd-bc93-6894a57f9324\""
    )]
    Malformed,
    #[error("Idempotency-Key is empty")]
    Empty,
    #[error("Idempotency-Key is longer than {KEY_BYTES_MAX} bytes")]
    TooLong,
    #[error("Idempotency-Key holds a control character")]
    Control,
}

/// Reads the header's value: a structured string (RFC 9651) by the letter, or a bare value, which means the same.
pub(crate) fn parse_key(header: &[u8]) -> Result<String, KeyError> {
    let text = std::str::from_utf8(header).map_err(|_| KeyError::Malformed)?.trim_matches([' ', '\t']);
    let key = if text.starts_with('"') { quoted(text)? } else { bare(text)? };
    check(&key)?;
    Ok(key)
}

/// Checks a key, whichever door it came through. Postgres' `text` does not take every character.
pub(crate) fn check(key: &str) -> Result<(), KeyError> {
    if key.is_empty() {
        return Err(KeyError::Empty);
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(KeyError::TooLong);
    }
    if key.contains(char::is_control) {
        return Err(KeyError::Control);
    }
    Ok(())
}

fn quoted(text: &str) -> Result<String, KeyError> {
    let item: sfv::Item = sfv::Parser::new(text).parse().map_err(|_| KeyError::Malformed)?;
    match item.bare_item {
        sfv::GenericBareItem::String(string) => Ok(string.as_str().to_owned()),
        _ => Err(KeyError::Malformed),
    }
}

fn bare(text: &str) -> Result<String, KeyError> {
    let plain = text.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'"' && byte != b',');
    if plain { Ok(text.to_owned()) } else { Err(KeyError::Malformed) }
}

/// SHA-256 over method, flow, canonical body and its terms (the begin as it was written, the callback): equal for
/// requests that mean the same, whatever the order of their keys and the form of their numbers. A request without terms
/// has the fingerprint that it had before there were any.
pub(crate) fn fingerprint(flow_name: &str, input: &Value, terms: Option<&str>) -> Vec<u8> {
    let mut hasher = Sha256::new();
    hasher.update(b"POST\0");
    hasher.update(flow_name.as_bytes());
    hasher.update(b"\0");
    hasher.update(flow::canonical::canonical(input).as_bytes());
    if let Some(terms) = terms {
        hasher.update(b"\0");
        hasher.update(terms.as_bytes());
    }
    hasher.finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_quoted_and_a_bare_key_are_the_same_key() {
        assert_eq!(parse_key(b"\"order-17\"").unwrap(), "order-17");
        assert_eq!(parse_key(b"order-17").unwrap(), "order-17");
        assert_eq!(parse_key(b" \"order-17\";ignored=1 ").unwrap(), "order-17");
        assert_eq!(parse_key(br#""a \"quoted\" word""#).unwrap(), "a \"quoted\" word");
    }

    const SEEDS: [&str; 5] = [
        "\"order-17\"",
        "order-17",
        r#""a \"quoted\" \\ word""#,
        "\"a\";b=1;c=\"d\"",
        "8e03978e-40d5-43dd-bc93-6894a57f9324",
    ];

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn no_damage_makes_a_key_that_cannot_be_stored(header in fuzz::damaged(&SEEDS)) {
            let Ok(key) = parse_key(&header) else { return Ok(()) };
            prop_assert!((1..=KEY_BYTES_MAX).contains(&key.len()) && !key.contains(char::is_control), "{:?}", key);
            let quoted = format!("\"{}\"", key.replace('\\', r"\\").replace('"', "\\\""));
            prop_assert_eq!(parse_key(quoted.as_bytes()), Ok(key));
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused_with_the_reason() {
        assert_eq!(parse_key(b"\"\""), Err(KeyError::Empty));
        assert_eq!(parse_key(b""), Err(KeyError::Empty));
        assert_eq!(parse_key(b"\"open"), Err(KeyError::Malformed));
        assert_eq!(parse_key("\"caf\u{e9}\"".as_bytes()), Err(KeyError::Malformed));
        assert_eq!(parse_key(b"two words"), Err(KeyError::Malformed));
        assert_eq!(parse_key(b"\"a\", \"b\""), Err(KeyError::Malformed));
        assert_eq!(parse_key("x".repeat(256).as_bytes()), Err(KeyError::TooLong));
        assert!(parse_key("x".repeat(255).as_bytes()).is_ok());
    }

    #[test]
    fn a_key_of_any_door_is_plain_text() {
        for (key, error) in [("", KeyError::Empty), ("a\0b", KeyError::Control), ("a\nb", KeyError::Control)] {
            assert_eq!(check(key), Err(error), "{key:?}");
        }
        assert_eq!((check("caf\u{e9}"), check(&"x".repeat(256))), (Ok(()), Err(KeyError::TooLong)));
    }

    #[test]
    fn the_fingerprint_sees_another_begin_and_stays_what_it_was_without_one() {
        let input = json!({"a": 1});
        let plain = fingerprint("order", &input, None);
        let hex: String = plain.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "3a0716da5f5d1b636b13d00f8ff668266ec62230bb95c7e592b08c6f34778b6f");
        let of = |start| fingerprint("order", &input, Some(start));
        assert!(of("delay 1h") == of("delay 1h") && of("delay 1h") != of("delay 2h") && of("delay 1h") != plain);
    }

    #[test]
    fn the_fingerprint_sees_meaning_and_not_the_order_of_keys() {
        let one = fingerprint("order", &json!({"a": 1, "b": [{"x": 1, "y": "z"}]}), None);
        let same = fingerprint("order", &serde_json::from_str(r#"{"b":[{"y":"z","x":1}],"a":1}"#).unwrap(), None);
        assert_eq!(one, same);
        assert_ne!(one, fingerprint("order", &json!({"a": 2, "b": [{"x": 1, "y": "z"}]}), None));
        assert_ne!(one, fingerprint("other", &json!({"a": 1, "b": [{"x": 1, "y": "z"}]}), None));
        assert_ne!(fingerprint("order", &json!([1, [2]]), None), fingerprint("order", &json!([[1], 2]), None));
        let of = |text: &str| fingerprint("order", &serde_json::from_str(text).unwrap(), None);
        assert_eq!(of(r#"{"a":1}"#), of(r#"{"a":1.0}"#));
        assert_ne!(of(r#"{"a":100000000000000000001}"#), of(r#"{"a":100000000000000000002}"#));
    }
}
