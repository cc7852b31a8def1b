//! The webhook that a request asks for its own job: `callback` in an item of a batch or a command, three headers of any
//! other request.
//!
//! Invariant: its secret is stored with the job, for the notifier, and is in nothing that anybody is shown.

use std::fmt;

use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use events::command::{Callback, CallbackSecret};
use flow::definition::InputError;
use flow::event::EventKind;
use outbound::Guard;
use outbound::signature::HMAC_BYTES;
use sha2::{Digest, Sha256};
use store::webhooks::JobWebhook;
use url::Url;
use uuid::{Builder, Uuid, Version};
use web::problem::{self, Problem};

use super::form::{EVENTS_MAX, GROUPS_OF_JOBS, usual};
use crate::violations::violations;

/// Three headers, so that OpenAPI's `callbacks` can name the URL, and proxies can leave the secret out of their logs.
const URL: HeaderName = HeaderName::from_static("meanwhile-callback-url");
const SECRET: HeaderName = HeaderName::from_static("meanwhile-callback-secret");
const EVENTS: HeaderName = HeaderName::from_static("meanwhile-callback-events");
/// All of them: they are meant for us, not for an old service.
pub(crate) const HEADERS: [HeaderName; 3] = [URL, SECRET, EVENTS];

/// The reason for which a webhook is not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The URL may not be called.
    Url(String),
    /// Members are not as they must be.
    Members(Vec<InputError>),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(why) => write!(f, "`callback`: its `url` is not taken: {why}"),
            Self::Members(errors) => {
                let told: Vec<String> =
                    errors.iter().map(|error| format!("#{}: {}", error.pointer, error.detail)).collect();
                f.write_str(&told.join("; "))
            }
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Url(_) => Self::new(problem::Kind::UrlRefused, format!("{refused}.")),
            Refused::Members(errors) => violations("The callback", errors),
        }
    }
}

/// The webhook that these headers ask for; none where they ask for none.
///
/// # Errors
/// The problem that says why it is not taken.
pub(crate) fn asked(headers: &HeaderMap, tenant: &str, guard: &Guard) -> Result<Option<JobWebhook>, Problem> {
    let bad = |detail: String| violations("The callback", vec![InputError { pointer: "/callback".to_owned(), detail }]);
    let one = |name: &HeaderName| {
        let mut lines = headers.get_all(name).iter();
        let (line, further) = (lines.next(), lines.next());
        match (line.map(|line| line.to_str()), further) {
            (None, _) => Ok(None),
            (Some(Ok(text)), None) => Ok(Some(text.trim().to_owned())),
            (Some(_), _) => Err(bad(format!("expected one `{name}`, of ASCII"))),
        }
    };
    let (url, secret) = (one(&URL)?, one(&SECRET)?);
    let mut events: Option<Vec<String>> = None;
    for line in headers.get_all(EVENTS) {
        let line = line.to_str().map_err(|_| bad(format!("expected `{EVENTS}` of ASCII")))?;
        events.get_or_insert_default().extend(line.split(',').map(|event| event.trim().to_owned()));
    }
    let Some(url) = url else {
        let needless =
            [(SECRET, secret.is_some()), (EVENTS, events.is_some())].into_iter().find(|(_, is_there)| *is_there);
        return match needless {
            None => Ok(None),
            Some((name, _)) => Err(bad(format!("`{name}` belongs to `{URL}`, which is missing"))),
        };
    };
    let callback = Callback { url, secret: secret.map(CallbackSecret::new), events };
    Ok(Some(checked(callback, tenant, guard)?))
}

/// The webhook in a form that can be stored.
///
/// # Errors
/// The first reason for which it is not taken; of wrong members all.
pub(crate) fn checked(callback: Callback, tenant: &str, guard: &Guard) -> Result<JobWebhook, Refused> {
    let url = guard.read(&callback.url).map_err(|refused| Refused::Url(refused.to_string()))?;
    let mut wrong = Vec::new();
    let mut say = |pointer: &str, detail: String| {
        wrong.push(InputError { pointer: format!("/callback/{pointer}"), detail });
    };
    let events = callback.events.unwrap_or_else(usual);
    if !(1..=EVENTS_MAX).contains(&events.len()) {
        say("events", format!("expected 1 to {EVENTS_MAX} types"));
    }
    let is_type = |text: &str| EventKind::parse(text).is_some() || GROUPS_OF_JOBS.contains(&text);
    for (at, event) in events.iter().enumerate().filter(|(_, event)| !is_type(event)) {
        let known = "a type of event such as `job.failed`, a group such as `job.*`, or `*`";
        say(&format!("events/{at}"), format!("expected {known}, found `{event}`"));
    }
    let secret = callback.secret.as_deref().map(key);
    if secret == Some(None) {
        let (least, most) = (HMAC_BYTES.start(), HMAC_BYTES.end());
        say("secret", format!("expected `whsec_` and {least} to {most} random bytes in base64"));
    }
    if !wrong.is_empty() {
        return Err(Refused::Members(wrong));
    }
    Ok(JobWebhook { receiver: receiver(tenant, &url), url: url.into(), events, secret: secret.flatten() })
}

/// The key that a secret holds.
fn key(text: &str) -> Option<Vec<u8>> {
    let key = BASE64.decode(text.strip_prefix("whsec_")?).ok()?;
    HMAC_BYTES.contains(&key.len()).then_some(key)
}

/// The same for all webhooks of a tenant's jobs that lead to one host. No endpoint has such an id.
fn receiver(tenant: &str, url: &Url) -> Uuid {
    let mut hasher = Sha256::new();
    hasher.update(tenant.as_bytes());
    hasher.update(b"\0");
    hasher.update(url.origin().ascii_serialization().as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize()[..16]);
    Builder::from_bytes(bytes).with_variant(uuid::Variant::RFC4122).with_version(Version::Custom).into_uuid()
}

/// The webhook as a fingerprint sees it: a request that asks for another one is another request.
pub(crate) fn told(webhook: &JobWebhook) -> String {
    let secret = webhook.secret.as_deref().map(|key| BASE64.encode(key)).unwrap_or_default();
    format!("callback {} {} {secret}", webhook.url, webhook.events.join(","))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use outbound::Allowed;

    use super::*;

    const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn ask(lines: &[(HeaderName, &'static str)]) -> Result<Option<JobWebhook>, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        asked(&headers, "acme", &Guard::new(Allowed::default()))
    }

    #[test]
    fn headers_ask_for_a_webhook_of_the_ends_of_the_job_unless_they_say_otherwise() {
        assert_eq!(ask(&[]).unwrap(), None);
        let plain = ask(&[(URL, "https://example.com/a b?c")]).unwrap().unwrap();
        assert_eq!(plain.events, ["job.succeeded", "job.failed", "job.cancelled"]);
        assert_eq!((plain.url.as_str(), &plain.secret), ("https://example.com/a%20b?c", &None));
        let full =
            ask(&[(URL, "https://example.com/b"), (SECRET, WHSEC), (EVENTS, "job.parked, step.*"), (EVENTS, "*")]);
        let full = full.unwrap().unwrap();
        assert_eq!((full.events.join(" ").as_str(), full.secret.as_ref().unwrap().len()), ("job.parked step.* *", 24));
        assert_eq!(plain.receiver, full.receiver, "the host is the same");
        let guard = Guard::new(Allowed::default());
        let of = |tenant, url: &str| {
            let callback = Callback { url: url.to_owned(), secret: None, events: None };
            checked(callback, tenant, &guard).unwrap().receiver
        };
        assert_eq!(of("acme", "https://EXAMPLE.com:443/c"), plain.receiver);
        assert!(
            of("other", "https://example.com") != plain.receiver && of("acme", "http://example.com") != plain.receiver
        );
        assert!(told(&plain) != told(&full) && !format!("{full:?}").contains("MfKQ"), "{full:?}");
    }

    #[test]
    fn all_that_is_wrong_is_named_and_no_secret_is_shown() {
        for (lines, kind, word) in [
            (vec![(SECRET, WHSEC)], problem::Kind::SchemaViolation, "meanwhile-callback-url"),
            (vec![(EVENTS, "*")], problem::Kind::SchemaViolation, "meanwhile-callback-url"),
            (vec![(URL, "https://a.b"), (URL, "https://a.c")], problem::Kind::SchemaViolation, "expected one"),
            (vec![(URL, "http://10.0.0.1/")], problem::Kind::UrlRefused, "not allowed"),
            (vec![(URL, "")], problem::Kind::UrlRefused, "no absolute URL"),
            (
                vec![(URL, "https://a.b"), (SECRET, "whsec_c2hvcnQ=")],
                problem::Kind::SchemaViolation,
                "/callback/secret",
            ),
            (
                vec![(URL, "https://a.b"), (SECRET, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
                problem::Kind::SchemaViolation,
                "whsec_",
            ),
            (vec![(URL, "https://a.b"), (EVENTS, "job.done")], problem::Kind::SchemaViolation, "/callback/events/0"),
            (vec![(URL, "https://a.b"), (EVENTS, "webhook.*")], problem::Kind::SchemaViolation, "/callback/events/0"),
        ] {
            let problem = ask(&lines).unwrap_err();
            let told = problem.document("").to_string();
            assert_eq!(problem.kind(), kind, "{lines:?}: {told}");
            assert!(told.contains(word), "{lines:?}: {told}");
            assert!(!told.contains("c2hvcnQ") && !told.contains("MfKQ"), "{told}");
        }
    }
}
