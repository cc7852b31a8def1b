//! Commands: JSON that any producer may write to `meanwhile.commands` (docs/contract.md). Parsed strictly: a field
//! that is not understood is never passed over; the refusal names its place and the nearest known field.

use std::fmt;
use std::ops::Deref;

use flow::definition::limit::DEADLINE_MS_MAX;
use flow::definition::parse_duration_ms;
use flow::nearest::nearest;
use flow::time::{DAY_MS, read_rfc3339};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
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
    /// The job is to start after this time: `90s` (ms, s, m, h, d).
    #[serde(default)]
    pub delay: Option<String>,
    /// The job is to start at this instant (RFC 3339).
    #[serde(default)]
    pub start_at: Option<String>,
    /// The webhook for this job.
    #[serde(default, deserialize_with = "callback")]
    pub callback: Option<Callback>,
    /// The correlation id, which is passed on everywhere; made if absent.
    #[serde(default)]
    pub correlation_id: Option<String>,
}

/// A webhook for one job, as its request asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// The address of the receiver.
    pub url: String,
    /// The signing secret, `whsec_...`.
    #[serde(default)]
    pub secret: Option<CallbackSecret>,
    /// The types of events to tell of; none: the final ones.
    #[serde(default)]
    pub events: Option<Vec<String>>,
}

/// A secret as its owner writes it. Neither `Debug` nor an error shows it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct CallbackSecret(String);

impl CallbackSecret {
    /// The secret that this text is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl Deref for CallbackSecret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CallbackSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallbackSecret")
    }
}

impl TryFrom<Value> for CallbackSecret {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::String(text) => Ok(Self(text)),
            _ => Err("`secret` is a text"),
        }
    }
}

/// Reads the member `callback`. serde's errors show a value that is of another kind, and that might be a secret.
pub fn callback<'de, D: Deserializer<'de>>(member: D) -> Result<Option<Callback>, D::Error> {
    match Value::deserialize(member)? {
        Value::Null => Ok(None),
        object @ Value::Object(_) => serde_json::from_value(object).map(Some).map_err(D::Error::custom),
        _ => Err(D::Error::custom("`callback` is an object such as {\"url\": \"https://...\"}")),
    }
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

    /// The milliseconds until the job is to start; none: at once. An instant that is over is now.
    pub fn start_after_ms(&self, now_ms: i64) -> Result<Option<u64>, NotACommand> {
        start_after_ms(self.delay.as_deref(), self.start_at.as_deref(), now_ms).map_err(NotACommand)
    }
}

/// The milliseconds until a job is to start, from its `delay` or its `start_at`; the error says what is wrong with
/// them.
pub fn start_after_ms(delay: Option<&str>, start_at: Option<&str>, now_ms: i64) -> Result<Option<u64>, String> {
    let after_ms = match (delay, start_at) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err("`delay` and `start_at` exclude each other".to_owned()),
        (Some(delay), None) => parse_duration_ms(delay).ok_or_else(|| {
            format!("`delay` is a number and a unit such as 500ms, 90s, 15m, 2h or 3d, not {delay:?}")
        })?,
        (None, Some(start_at)) => {
            let at_ms = read_rfc3339(start_at).ok_or_else(|| {
                format!("`start_at` is a time such as 2026-01-05T09:30:00Z (RFC 3339), not {start_at:?}")
            })?;
            u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or_default()
        }
    };
    if after_ms > DEADLINE_MS_MAX {
        return Err(format!("the job would start in {} days, {DAYS_MAX} at most", after_ms / DAY_MS.unsigned_abs()));
    }
    Ok(Some(after_ms).filter(|after_ms| *after_ms > 0))
}

const DAYS_MAX: u64 = DEADLINE_MS_MAX / DAY_MS.unsigned_abs();
const FLOW_BYTES_MAX: usize = 255;
/// The longest message of the JSON reader that is told.
const REFUSAL_CHARACTERS_MAX: usize = 400;

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
    let message = match message.char_indices().nth(REFUSAL_CHARACTERS_MAX) {
        // It repeats what it does not know, which may be long.
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message,
    };
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (true, Some(unknown)) = (message.starts_with("unknown field"), quoted.next()) else { return message };
    match nearest(unknown, quoted) {
        Some(nearest) => format!("{message}; did you mean `{nearest}`?"),
        None => message,
    }
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
        assert_eq!(command.start_after_ms(0), Ok(None));
        assert_eq!((command.id, command.callback, command.correlation_id), (None, None, None));
    }

    #[test]
    fn every_optional_field_is_read() {
        let json = r#"{"flow":"order","input":null,"id":"a-1","delay":"90s","correlation_id":"c",
            "callback":{"url":"https://example.com/hook","secret":"whsec_x","events":["job.failed"]}}"#;
        let command = Command::parse(Some(json.as_bytes())).unwrap();
        assert_eq!((command.id.as_deref(), command.start_after_ms(0)), (Some("a-1"), Ok(Some(90_000))));
        assert_eq!(command.correlation_id.as_deref(), Some("c"));
        let callback = command.callback.unwrap();
        assert_eq!((callback.url.as_str(), callback.secret.as_deref()), ("https://example.com/hook", Some("whsec_x")));
        assert_eq!(callback.events, Some(vec!["job.failed".to_owned()]));
    }

    #[test]
    fn no_error_and_no_debug_output_shows_the_secret_of_a_callback() {
        for callback in [
            r#""whsec_x""#,
            r#"["whsec_x"]"#,
            r#"{"url":"u","secret":["whsec_x"]}"#,
            r#"{"url":"u","secret":{"whsec_x":1}}"#,
            r#"{"url":"u","secret":"whsec_x","event":[]}"#,
        ] {
            let refused = refusal(&format!(r#"{{"flow":"order","input":{{}},"callback":{callback}}}"#));
            assert!(refused.contains('`') && !refused.contains("whsec_x"), "{refused}");
        }
        assert!(!refusal(r#"{"flow":"order","input":{},"callback":{"url":"u","secret":4711}}"#).contains("4711"));
        let json = r#"{"flow":"order","input":{},"callback":{"url":"u","secret":"whsec_x"}}"#;
        let command = Command::parse(Some(json.as_bytes())).unwrap();
        assert!(command.callback.is_some() && !format!("{command:?}").contains("whsec_x"), "{command:?}");
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
            (r#"{"flow":"order","input":{}} x"#, "trailing characters"),
        ] {
            assert!(refusal(json).contains(wanted), "{json}: {}", refusal(json));
        }
        assert!(Command::parse(None).is_err());
        assert!(refusal(&format!(r#"{{"flow":"o","input":1,"id":"{}"}}"#, "x".repeat(256))).contains("255 at most"));
    }

    #[test]
    fn a_start_is_a_delay_or_an_instant_within_a_year() {
        let now_ms = 1_767_605_400_000; // 2026-01-05T09:30:00Z
        let start = |delay, start_at| start_after_ms(delay, start_at, now_ms);
        assert_eq!(start(Some("0s"), None), Ok(None));
        assert_eq!(start(None, Some("2026-01-05T10:30:00+01:00")), Ok(None), "now");
        assert_eq!(start(None, Some("2020-01-01T00:00:00Z")), Ok(None), "that is over");
        assert_eq!(start(None, Some("2026-01-05T09:30:01.500Z")), Ok(Some(1_500)));
        assert_eq!(start(Some("365d"), None), Ok(Some(DEADLINE_MS_MAX)));
        for (delay, start_at, wanted) in [
            (Some("soon"), None, "`delay` is a number and a unit such as"),
            (Some("99999999999999999d"), None, "`delay` is a number and a unit such as"),
            (Some("366d"), None, "in 366 days, 365 at most"),
            (None, Some("9999-12-31T00:00:00Z"), "365 at most"),
            (None, Some("tomorrow"), "`start_at` is a time such as"),
            (Some("1s"), Some("2026-01-05T09:30:00Z"), "exclude each other"),
        ] {
            let refused = start(delay, start_at).unwrap_err();
            assert!(refused.contains(wanted), "{delay:?} {start_at:?}: {refused}");
        }
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn a_damaged_command_is_read_or_refused_in_a_text_of_bounded_length(bytes in fuzz::damaged(&[
            r#"{"flow":"order","input":{"b":1,"a":[true,null,"\u00fc"]}}"#,
            r#"{"flow":"order","input":{},"id":"k-1","delay":"90s","correlation_id":"c"}"#,
            r#"{"flow":"order","input":1,"start_at":"2026-01-05T09:30:00Z",
                "callback":{"url":"https://example.com/","secret":"whsec_AAAA","events":["job.failed"]}}"#,
        ])) {
            match Command::parse(Some(&bytes)) {
                Ok(command) => drop(command.start_after_ms(0)),
                Err(refused) => prop_assert!(refused.to_string().len() <= 2_000, "{}", refused.to_string().len()),
            }
            let _ = flow_named(&bytes);
        }

        #[test]
        fn noise_is_refused_quietly(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Command::parse(Some(&bytes)).is_err());
        }
    }
}
