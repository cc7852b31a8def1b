//! The callers of the API. A credential comes as `Authorization: Bearer`: an API key of ours, or a token of the
//! deployment's issuer. The tenant, the scopes and the subject of a caller come from there and from nowhere else.
//!
//! Promise: no request asks the database who its caller is, known or not. All keys are in memory (`known_keys`).

pub mod api_key;
mod guesses;
mod jwks;
mod jws;
pub(crate) mod known_keys;
mod tokens;

use std::collections::HashSet;
use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, header};
use parking_lot::RwLock;
use service_kit::config::AuthSettings;
use store::Pool;
pub use web::caller::Scope;
use web::caller::{Caller, Scopes};
use web::context::Credential;
use web::problem::{Kind, Problem};

use self::api_key::{HashKey, PREFIX};
use self::guesses::Guesses;
use self::known_keys::KnownKeys;
use self::tokens::Tokens;

/// A WebSocket of a browser sends no header but this: a protocol that begins so is the credential.
const BEARER_PROTOCOL: &str = "bearer.";
/// The longest credential, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 8 * 1024;
/// The longest name of a tenant, in bytes.
pub const TENANT_BYTES_MAX: usize = 64;

/// Knows callers.
pub(crate) struct Auth {
    pub(crate) is_required: bool,
    pub(crate) keys: KnownKeys,
    /// Tenants whose credentials open nothing.
    disabled: RwLock<HashSet<String>>,
    /// None where no issuer is configured.
    pub(crate) tokens: Option<Tokens>,
    guesses: Guesses,
}

impl Auth {
    /// # Errors
    /// No HTTP client for the issuer's keys can be made.
    pub(crate) fn new(settings: &AuthSettings) -> anyhow::Result<Self> {
        let tokens = (!settings.issuer.is_empty()).then(|| Tokens::new(settings)).transpose()?;
        Ok(Self {
            is_required: settings.is_required(),
            keys: KnownKeys::new(HashKey::new(&settings.keys_secret)),
            disabled: RwLock::default(),
            tokens,
            guesses: Guesses::new(settings.wrong_per_minute),
        })
    }

    /// Keeps the keys of the issuer up to date, where there is one.
    pub(crate) async fn keep_issuer(&self) {
        if let Some(tokens) = &self.tokens {
            match tokens.keep().await {}
        }
    }

    /// Reads which keys have changed, and which tenants are disabled.
    pub(crate) async fn refresh(&self, pool: &Pool) -> Result<(), store::Error> {
        // Tenants first: no key is known before it is known whether its tenant is disabled.
        let disabled = store::tenants::disabled(pool).await?.into_iter().collect();
        *self.disabled.write() = disabled;
        self.keys.refresh(pool).await
    }

    /// What a request shows, or the problem 401; 429 for an address that has shown too many wrong credentials, 403
    /// where the tenant is disabled.
    pub(crate) async fn credential(
        &self,
        headers: &HeaderMap,
        client: Option<IpAddr>,
        now_ms: i64,
    ) -> Result<(Caller, Credential), Problem> {
        let (caller, credential) = self.not_guessed(headers, client, now_ms).await?;
        if self.disabled.read().contains(&caller.tenant) {
            let detail = format!("The tenant `{}` is disabled: nothing is open to it.", caller.tenant);
            return Err(Problem::new(Kind::Forbidden, detail).with_remediation("Ask the operators of the deployment."));
        }
        Ok((caller, credential))
    }

    async fn not_guessed(
        &self,
        headers: &HeaderMap,
        client: Option<IpAddr>,
        now_ms: i64,
    ) -> Result<(Caller, Credential), Problem> {
        let text = bearer(headers)?;
        let Some(client) = client else { return self.shown(text, now_ms).await };
        self.guesses.check(client, text)?;
        let shown = self.shown(text, now_ms).await;
        match &shown {
            Ok(_) => self.guesses.note_right(client, text),
            Err(problem) if problem.kind() == Kind::Unauthorized => self.guesses.note_wrong(client),
            Err(_) => {}
        }
        shown
    }

    async fn shown(&self, text: &str, now_ms: i64) -> Result<(Caller, Credential), Problem> {
        if !text.starts_with(PREFIX) {
            let Some(tokens) = &self.tokens else {
                return Err(refused("The credential is no API key, and no tokens are taken here."));
            };
            return tokens.credential(text, now_ms).await;
        }
        let known = self.keys.find(text, now_ms)?;
        Ok((known.caller.clone(), Credential { until_ms: known.expires_at_ms, ended: known.ended.clone() }))
    }
}

/// The caller of a request before it was asked who it is: it may do nothing.
pub(crate) fn nobody() -> Caller {
    Caller { tenant: String::new(), scopes: Scopes::default(), subject: String::new() }
}

/// True if a request shows an API key.
pub(crate) fn is_api_key(headers: &HeaderMap) -> bool {
    bearer(headers).is_ok_and(|text| text.starts_with(PREFIX))
}

/// The credential of a request, or the problem 401.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let text = match (lines.next(), lines.next()) {
        (None, _) => return of_socket(headers).ok_or_else(missing).and_then(of_length),
        (Some(_), Some(_)) => return Err(refused("There are several `Authorization` headers.")),
        (Some(line), None) => line.to_str().map_err(|_| refused("The credential is not printable ASCII."))?,
    };
    let (scheme, credential) = text.split_once(' ').unwrap_or((text, ""));
    let credential = credential.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || credential.is_empty() {
        return Err(refused("`Authorization` has no `Bearer` credential."));
    }
    of_length(credential)
}

fn of_length(credential: &str) -> Result<&str, Problem> {
    if credential.len() <= CREDENTIAL_BYTES_MAX {
        return Ok(credential);
    }
    Err(refused(&format!("The credential has more than {CREDENTIAL_BYTES_MAX} bytes.")))
}

/// The credential among the protocols that a WebSocket offers.
fn of_socket(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).find_map(|protocol| protocol.trim().strip_prefix(BEARER_PROTOCOL))
}

/// True for a name that a tenant may have: it is a part of keys on Kafka and of paths.
pub fn is_tenant(text: &str) -> bool {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    (1..=TENANT_BYTES_MAX).contains(&text.len()) && text.chars().all(fits) && !text.starts_with('.')
}

/// The problem 401 of a request without a credential (RFC 6750 section 3.1).
fn missing() -> Problem {
    let detail = "The request has no `Authorization: Bearer` header.";
    challenged(Problem::new(Kind::Unauthorized, detail), "Bearer realm=\"meanwhile\"")
}

/// The problem 401 of a credential that opens nothing. All keys that are wrong are wrong in the same words.
pub(crate) fn refused(why: &str) -> Problem {
    let challenge = "Bearer realm=\"meanwhile\", error=\"invalid_token\"";
    metrics::counter!("meanwhile_credentials_refused_total").increment(1);
    challenged(Problem::new(Kind::Unauthorized, why), challenge)
}

fn challenged(problem: Problem, challenge: &'static str) -> Problem {
    problem.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

/// The problem 503 while credentials cannot be checked.
pub(crate) fn unready(what: &str) -> Problem {
    Problem::new(Kind::NotReady, format!("{what} cannot be read yet.")).retry_after_s(1)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    fn read(lines: &[&'static str]) -> Result<String, Problem> {
        let headers = lines.iter().map(|line| (header::AUTHORIZATION, HeaderValue::from_static(line))).collect();
        bearer(&headers).map(str::to_owned)
    }

    #[test]
    fn a_credential_is_one_bearer_of_one_header() {
        assert_eq!(read(&["Bearer abc"]).unwrap(), "abc");
        assert_eq!(read(&["bearer  abc"]).unwrap(), "abc");
        for wrong in [&[][..], &["Bearer"], &["Bearer "], &["Basic abc"], &["abc"], &["Bearer a", "Bearer b"]] {
            let problem = read(wrong).unwrap_err();
            assert_eq!(problem.kind(), Kind::Unauthorized, "{wrong:?}");
            let challenge = problem.into_response().headers()["www-authenticate"].to_str().unwrap().to_owned();
            assert_eq!(challenge.contains("invalid_token"), !wrong.is_empty(), "{wrong:?}: {challenge}");
        }
    }

    #[test]
    fn a_socket_shows_its_credential_as_a_protocol_where_it_can_send_no_other_header() {
        let read = |protocols: &'static str, more: &[&'static str]| {
            let more = more.iter().map(|line| (header::AUTHORIZATION, HeaderValue::from_static(line)));
            let protocols = (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocols));
            bearer(&std::iter::once(protocols).chain(more).collect()).ok().map(str::to_owned)
        };
        assert_eq!(read("meanwhile.events, bearer.abc", &[]).as_deref(), Some("abc"));
        assert_eq!(read("bearer.abc", &["Bearer def"]).as_deref(), Some("def"));
        assert_eq!(read("meanwhile.events", &[]), None);
    }

    /// Prints a figure: `cargo test --release -p ingest --lib a_known_key -- --ignored --nocapture`.
    #[tokio::test]
    #[ignore = "prints a figure"]
    async fn a_known_key_costs_microseconds() {
        let auth = Auth::new(&AuthSettings::default()).unwrap();
        let ids = service_kit::Ids::seeded(1);
        let keys: Vec<String> = (0..10_000).map(|_| api_key::draw(&ids)).collect();
        auth.keys.learn_all(&keys);
        let headers = |key: &String| {
            let value = HeaderValue::try_from(format!("Bearer {key}")).unwrap();
            HeaderMap::from_iter([(header::AUTHORIZATION, value)])
        };
        let all: Vec<HeaderMap> = keys.iter().map(headers).collect();
        let mut took = Vec::new();
        for headers in all.iter().cycle().take(100_000) {
            let begun = std::time::Instant::now();
            assert!(auth.credential(headers, Some([192, 0, 2, 1].into()), 1).await.is_ok());
            took.push(begun.elapsed());
        }
        took.sort();
        println!("p50 {:?}, p99 {:?}", took[took.len() / 2], took[took.len() * 99 / 100]);
    }

    #[test]
    fn a_tenant_has_a_name_that_can_be_a_part_of_keys_and_paths() {
        for name in ["default", "acme-1", "a.b_c"] {
            assert!(is_tenant(name), "{name}");
        }
        for other in ["", "a/b", "..", ".a", "a b", "\u{fc}", &"x".repeat(65)] {
            assert!(!is_tenant(other), "{other}");
        }
    }
}
