//! The bodies of requests about endpoints: read, checked, and said what is wrong with them.

use std::ops::RangeInclusive;

use events::time::rfc3339;
use flow::definition::{InputError, parse_duration_ms};
use flow::event::EventKind;
use outbound::Guard;
use outbound::signature::{NotASecret, Secret};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value, json};
use store::webhooks::{Endpoint, Kind, Signing};
use web::problem::{self, Problem};

use super::{DELIVERIES, ENDPOINTS};
use crate::query::whole_of;
use crate::violations::violations;

/// Bytes of a description.
const DESCRIPTION_BYTES_MAX: usize = 1_000;
/// Entries of a filter.
pub(super) const EVENTS_MAX: usize = 50;
/// Types that are no job's.
const OWN_TYPES: [&str; 1] = ["webhook.endpoint.disabled"];
/// Groups of types that jobs have.
pub(super) const GROUPS_OF_JOBS: [&str; 3] = ["*", "job.*", "step.*"];
/// The group of others.
const OWN_GROUP: &str = "webhook.*";
/// What an endpoint hears of that says nothing about it.
const USUAL: [EventKind; 3] = [EventKind::JobSucceeded, EventKind::JobFailed, EventKind::JobCancelled];
/// Deliveries a second.
const RATES: RangeInclusive<i32> = 1..=1_000;
/// The time for which the secret before a rotation signs too.
const OVERLAP_MS: u64 = 24 * 3_600_000;
const OVERLAP_MS_MAX: u64 = 7 * OVERLAP_MS;

/// The form of a registration, for problems.
pub(super) const FORM: &str =
    r#"The body is `{"url": "https://...", "events": ["job.failed"], "rate": 50, "description": "..."}`"#;

/// What somebody registers, or registers anew.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    url: String,
    #[serde(default, deserialize_with = "present")]
    events: Option<Vec<String>>,
    #[serde(default)]
    description: String,
    #[serde(default, deserialize_with = "present")]
    kind: Option<String>,
    /// Deliveries a second; it may say that there is no such limit.
    #[serde(default)]
    rate: Option<Number>,
}

/// A registration that can be stored.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) url: String,
    pub(super) events: Vec<String>,
    pub(super) description: String,
    /// Where one was named.
    pub(super) kind: Option<Kind>,
    pub(super) rate: Option<i32>,
}

/// The body of a rotation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    #[serde(default, deserialize_with = "present")]
    overlap: Option<String>,
}

/// A member that may be missing, and is not null.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(member: D) -> Result<Option<T>, D::Error> {
    T::deserialize(member).map(Some)
}

impl Registration {
    /// Checks all of it.
    pub(super) fn checked(self, guard: &Guard) -> Result<Registered, Problem> {
        let url = guard
            .read(&self.url)
            .map_err(|refused| Problem::new(problem::Kind::UrlRefused, format!("`url` is not taken: {refused}.")))?;
        let mut wrong = Vec::new();
        let mut say = |pointer: &str, detail: String| wrong.push(InputError { pointer: pointer.to_owned(), detail });
        let events = self.events.unwrap_or_else(usual);
        if !(1..=EVENTS_MAX).contains(&events.len()) {
            say("/events", format!("expected 1 to {EVENTS_MAX} types"));
        }
        for (at, event) in events.iter().enumerate().filter(|(_, event)| !is_type(event)) {
            let known = "a type of event such as `job.failed`, a group such as `job.*`, or `*`";
            say(&format!("/events/{at}"), format!("expected {known}, found `{event}`"));
        }
        if self.description.len() > DESCRIPTION_BYTES_MAX || self.description.contains('\0') {
            say("/description", format!("expected at most {DESCRIPTION_BYTES_MAX} bytes, none of them NUL"));
        }
        let kind = self.kind.as_deref().map(|text| Kind::parse(text).ok_or(text));
        if let Some(Err(text)) = kind {
            say("/kind", format!("expected `hmac` or `ed25519`, found `{text}`"));
        }
        let rate_of = |number: &Number| whole_of(number).and_then(|rate| i32::try_from(rate).ok());
        let rate = self.rate.map(|rate| rate_of(&rate).filter(|known| RATES.contains(known)).ok_or(rate));
        if let Some(Err(rate)) = &rate {
            say("/rate", format!("expected {} to {} deliveries a second, found {rate}", RATES.start(), RATES.end()));
        }
        if !wrong.is_empty() {
            return Err(violations("The endpoint", wrong));
        }
        let rate = rate.and_then(Result::ok);
        let (kind, description) = (kind.and_then(Result::ok), self.description);
        Ok(Registered { url: url.into(), events, description, kind, rate })
    }
}

impl Rotation {
    /// The overlap in milliseconds.
    pub(super) fn overlap_ms(&self) -> Result<i64, Problem> {
        let Some(text) = &self.overlap else { return Ok(OVERLAP_MS.cast_signed()) };
        let parsed = parse_duration_ms(text).filter(|ms| *ms <= OVERLAP_MS_MAX);
        parsed.map(u64::cast_signed).ok_or_else(|| {
            let detail = format!("expected a duration such as `24h`, up to `7d`, found `{text}`");
            violations("The rotation", vec![InputError { pointer: "/overlap".to_owned(), detail }])
        })
    }
}

/// The types of which a webhook tells that does not say otherwise.
pub(super) fn usual() -> Vec<String> {
    USUAL.iter().map(|kind| kind.as_str().to_owned()).collect()
}

fn is_type(text: &str) -> bool {
    EventKind::parse(text).is_some() || OWN_TYPES.contains(&text) || GROUPS_OF_JOBS.contains(&text) || text == OWN_GROUP
}

/// The secret in a form that signs.
pub(super) fn secret(signing: &Signing) -> Secret<'_> {
    match signing.kind {
        Kind::Hmac => Secret::Hmac(&signing.secret),
        Kind::Ed25519 => Secret::Ed25519(&signing.secret),
    }
}

/// An endpoint as its tenant sees it: without its secret.
pub(super) fn shown(endpoint: &Endpoint, prefix: &str) -> Result<Value, NotASecret> {
    let Endpoint { id, state, signing, .. } = endpoint;
    let status = match state {
        state if state.disabled_at_ms.is_some() => "disabled",
        state if state.failing_since_ms.is_some() => "failing",
        _ => "enabled",
    };
    let at = format!("{prefix}{ENDPOINTS}/{id}");
    let mut body = json!({
        "id": id.to_string(),
        "version": endpoint.version,
        "url": endpoint.url,
        "description": endpoint.description,
        "events": endpoint.events,
        "kind": signing.kind.as_str(),
        "status": status,
        "created_at": rfc3339(endpoint.created_at_ms),
        "updated_at": rfc3339(endpoint.updated_at_ms),
        "links": { "self": at, "deliveries": format!("{prefix}{DELIVERIES}?endpoint={id}") },
    });
    let times = [
        ("failing_since", state.failing_since_ms),
        ("paused_until", state.paused_until_ms),
        ("disabled_at", state.disabled_at_ms),
        ("old_secret_until", endpoint.old_secret_until_ms),
    ];
    for (name, at_ms) in times {
        if let Some(at_ms) = at_ms {
            body[name] = rfc3339(at_ms).into();
        }
    }
    if let Some(rate) = endpoint.rate {
        body["rate"] = rate.into();
    }
    if let Some(reason) = &state.disabled_reason {
        body["disabled_reason"] = reason.as_str().into();
    }
    if let Some(key) = secret(signing).public_key()? {
        body["public_key"] = key.into();
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use outbound::Allowed;

    use super::*;

    fn check(text: &str) -> Result<Registered, Problem> {
        let registration: Registration = serde_json::from_str(text).unwrap();
        registration.checked(&Guard::new(Allowed::default()))
    }

    #[test]
    fn a_registration_hears_of_ends_unless_it_says_otherwise() {
        let registered = check(r#"{"url":"https://example.com/a b"}"#).unwrap();
        assert_eq!(registered.events, ["job.succeeded", "job.failed", "job.cancelled"]);
        assert_eq!((registered.url.as_str(), registered.kind), ("https://example.com/a%20b", None));
        for event in ["*", "job.*", "step.waiting", "webhook.endpoint.disabled"] {
            check(&format!(r#"{{"url":"https://example.com","events":["{event}"],"kind":"ed25519"}}"#)).unwrap();
        }
    }

    #[test]
    fn all_that_is_wrong_is_named() {
        let problem =
            check(r#"{"url":"https://example.com","events":["job.done"],"kind":"rsa","rate":0}"#).unwrap_err();
        let told = problem.document("")["errors"].to_string();
        assert!(told.contains("/events/0") && told.contains("/kind") && told.contains("/rate"), "{told}");
        for (rate, limit) in [("1", Some(1)), ("296.0", Some(296)), ("1000", Some(1_000)), ("null", None)] {
            let registered = check(&format!(r#"{{"url":"https://example.com","rate":{rate}}}"#)).unwrap();
            assert_eq!(registered.rate, limit);
        }
        for rate in ["1001", "-1", "1.5", "99999999999"] {
            check(&format!(r#"{{"url":"https://example.com","rate":{rate}}}"#)).unwrap_err();
        }
        assert_eq!(check(r#"{"url":"http://10.0.0.1/"}"#).unwrap_err().kind(), problem::Kind::UrlRefused);
        check(r#"{"url":"https://example.com","events":[]}"#).unwrap_err();
        for member in ["events", "kind", "description"] {
            let nothing = format!(r#"{{"url":"https://example.com","{member}":null}}"#);
            serde_json::from_str::<Registration>(&nothing).unwrap_err();
        }
    }

    #[test]
    fn an_overlap_is_a_duration() {
        let overlap = |text: Option<&str>| Rotation { overlap: text.map(str::to_owned) }.overlap_ms();
        assert_eq!(overlap(None).unwrap(), 86_400_000);
        assert_eq!((overlap(Some("0s")).unwrap(), overlap(Some("7d")).unwrap()), (0, 604_800_000));
        for wrong in ["8d", "1", "-1h", ""] {
            overlap(Some(wrong)).unwrap_err();
        }
    }
}
