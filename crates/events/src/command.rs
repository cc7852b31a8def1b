//! Commands: JSON that any producer may write to `meanwhile.commands` (docs/contract.md). Parsed strictly: a field
//! that is not understood is never passed over; the refusal names its place and the nearest known field.

use flow::nearest::nearest;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;

use crate::limit::{COMMAND_ID_BYTES_MAX, CORRELATION_ID_BYTES_MAX};

/// A request to start a job. The tenant is not in it: each commands topic belongs to one by configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The flow's name.
    pub flow: String,
    /// The job's input, as the flow's schema wants it.
    pub input: Value,
    /// The idempotency key, in the same key space as HTTP's `Idempotency-Key`.
    #[serde(default)]
    pub id: Option<String>,
    /// The delay before the job starts, in milliseconds; written as `"delay": "90s"` (ms, s, m, h, d).
    #[serde(default, rename = "delay", deserialize_with = "delay")]
    pub delay_ms: Option<u64>,
    /// The endpoint for webhooks of this job.
    #[serde(default)]
    pub callback: Option<Callback>,
    /// The correlation id, which is passed on everywhere; made if absent.
    #[serde(default)]
    pub correlation_id: Option<String>,
}

/// A webhook endpoint for one job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// The address of the endpoint.
    pub url: String,
    /// The signing secret, `whsec_...`.
    #[serde(default)]
    pub secret: Option<String>,
    /// The kinds of events to send; none: the final ones.
    #[serde(default)]
    pub events: Option<Vec<String>>,
}

/// The value is not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a command: {0}")]
pub struct NotACommand(String);

impl Command {
    /// Reads a record's value. Errors say line and column, and for an unknown field the nearest one.
    pub fn parse(value: Option<&[u8]>) -> Result<Self, NotACommand> {
        let bytes = value.filter(|bytes| !bytes.is_empty()).ok_or_else(|| NotACommand("the value is empty".into()))?;
        // serde would take an array of the fields' values, too.
        if bytes.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
            return Err(NotACommand("want a JSON object, not an array, at line 1".into()));
        }
        let command: Self =
            serde_json::from_slice(bytes).map_err(|error| NotACommand(with_nearest(error.to_string())))?;
        plain("flow", Some(&command.flow), FLOW_BYTES_MAX)?;
        plain("id", command.id.as_deref(), COMMAND_ID_BYTES_MAX)?;
        plain("correlation_id", command.correlation_id.as_deref(), CORRELATION_ID_BYTES_MAX)?;
        Ok(command)
    }
}

const FLOW_BYTES_MAX: usize = 255;

/// These end up in headers, keys and Postgres' `text`, none of which take every character.
fn plain(field: &str, text: Option<&str>, bytes_max: usize) -> Result<(), NotACommand> {
    match text {
        Some("") => Err(NotACommand(format!("`{field}` is empty"))),
        Some(text) if text.len() > bytes_max => {
            Err(NotACommand(format!("`{field}` is {} bytes long, {bytes_max} at most", text.len())))
        }
        Some(text) if text.chars().any(char::is_control) => {
            Err(NotACommand(format!("`{field}` holds a control character: {text:?}")))
        }
        _ => Ok(()),
    }
}

/// serde says: unknown field `flwo`, expected one of `flow`, `input`, ... at line 1 column 7.
fn with_nearest(message: String) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (true, Some(unknown)) = (message.starts_with("unknown field"), quoted.next()) else { return message };
    match nearest(unknown, quoted) {
        Some(nearest) => format!("{message}; did you mean `{nearest}`?"),
        None => message,
    }
}

fn delay<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let ms = unit_ms.and_then(|unit_ms: u64| number.parse::<u64>().ok()?.checked_mul(unit_ms));
    // A signed milliseconds column can hold no more.
    let ms = ms.filter(|ms| i64::try_from(*ms).is_ok());
    let wanted =
        || D::Error::custom(format!("`delay` is a number and a unit such as 500ms, 90s, 15m, 2h or 3d, not {text:?}"));
    ms.map(Some).ok_or_else(wanted)
}

/// The flow that a record of `meanwhile.commands` names, even if it is no command.
pub fn flow_named(value: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(value).ok()?;
    value.get("flow")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(json: &str) -> String {
        Command::parse(Some(json.as_bytes())).unwrap_err().to_string()
    }

    #[test]
    fn the_command_of_the_contract_is_read() {
        let command = Command::parse(Some(b"{\"flow\":\"order\",\"input\":{\"b\":1,\"a\":2}}\n")).unwrap();
        assert_eq!((command.flow.as_str(), command.input.to_string().as_str()), ("order", r#"{"b":1,"a":2}"#));
        assert_eq!((command.id, command.delay_ms, command.callback, command.correlation_id), (None, None, None, None));
    }

    #[test]
    fn every_optional_field_is_read() {
        let json = r#"{"flow":"order","input":null,"id":"a-1","delay":"90s","correlation_id":"c",
            "callback":{"url":"https://example.com/hook","secret":"whsec_x","events":["job.failed"]}}"#;
        let command = Command::parse(Some(json.as_bytes())).unwrap();
        assert_eq!((command.id.as_deref(), command.delay_ms), (Some("a-1"), Some(90_000)));
        assert_eq!(command.correlation_id.as_deref(), Some("c"));
        let callback = command.callback.unwrap();
        assert_eq!((callback.url.as_str(), callback.secret.as_deref()), ("https://example.com/hook", Some("whsec_x")));
        assert_eq!(callback.events, Some(vec!["job.failed".to_owned()]));
    }

    #[test]
    fn a_refusal_names_the_place_and_the_nearest_field() {
        for (json, wanted) in [
            ("", "the value is empty"),
            ("{\"flow\":\"order\",\n  \"input\": {,}}", "line 2 column"),
            (r#"{"flow":"order","inptu":{}}"#, "did you mean `input`?"),
            (r#"{"flow":"order","input":{},"corelation-id":"x"}"#, "did you mean `correlation_id`?"),
            (r#"{"flow":"order","input":{},"callback":{"uri":"x"}}"#, "did you mean `url`?"),
            (r#"{"flow":"order","input":{},"tenant":"acme"}"#, "unknown field `tenant`, expected one of"),
            (r#"{"input":{}}"#, "missing field `flow`"),
            (r#"{"flow":"order"}"#, "missing field `input`"),
            (r#"{"flow":"order","flow":"b","input":{}}"#, "duplicate field `flow`"),
            (r#"["order"]"#, "line 1"),
            (r#"{"flow":"","input":{}}"#, "`flow` is empty"),
            (r#"{"flow":"order","input":{},"id":"a\u0000b"}"#, "`id` holds a control character"),
            (r#"{"flow":"order","input":{},"delay":"soon"}"#, "`delay` is a number and a unit"),
            (r#"{"flow":"order","input":{},"delay":"99999999999999999d"}"#, "`delay` is a number and a unit"),
            (r#"{"flow":"order","input":{}} x"#, "trailing characters"),
        ] {
            assert!(refusal(json).contains(wanted), "{json}: {}", refusal(json));
        }
        assert!(Command::parse(None).is_err());
        assert!(refusal(&format!(r#"{{"flow":"o","input":1,"id":"{}"}}"#, "x".repeat(256))).contains("255 at most"));
    }

    proptest! {
        #[test]
        fn noise_is_refused_quietly(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Command::parse(Some(&bytes)).is_err());
        }
    }
}
