//! Tokens of the deployment's issuer (JWT, RFC 7519): signed with a key of its JWKS, for us, and valid now.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use service_kit::config::AuthSettings;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use web::caller::{Caller, Scope};
use web::context::Credential;
use web::problem::Problem;

use super::jwks::Jwks;
use super::jws::{Unverified, Why};
use super::{is_tenant, refused, unready};

/// Tokens that are known to be right: their signatures are not computed again.
const VERIFIED_MAX: usize = 10_000;
/// A token is looked at anew after this time, since its key may have been withdrawn.
const VERIFIED_MS: i64 = 60_000;
/// The longest `sub`, in bytes.
const SUBJECT_BYTES_MAX: usize = 200;

type Claims = Map<String, Value>;

struct Verified {
    caller: Caller,
    /// The token ends then, leeway included.
    until_ms: i64,
    /// Look at it anew from then on.
    fresh_until_ms: i64,
}

pub(crate) struct Tokens {
    issuer: String,
    audience: String,
    tenant_claim: String,
    leeway_ms: i64,
    jwks: Jwks,
    /// By the digest of the token.
    verified: Mutex<HashMap<[u8; 32], Verified>>,
}

impl Tokens {
    pub(super) fn new(settings: &AuthSettings) -> anyhow::Result<Self> {
        Ok(Self {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            tenant_claim: settings.tenant_claim.clone(),
            leeway_ms: i64::try_from(settings.leeway_s).unwrap_or(0).saturating_mul(1_000),
            jwks: Jwks::new(&settings.jwks)?,
            verified: Mutex::default(),
        })
    }

    /// Keeps the issuer's keys up to date.
    pub(super) async fn keep(&self) -> std::convert::Infallible {
        self.jwks.keep().await
    }

    /// The rights of a token, or the problem 401.
    pub(super) async fn credential(&self, token: &str, now_ms: i64) -> Result<(Caller, Credential), Problem> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.verified.lock().get(&digest)
            && now_ms < known.fresh_until_ms
        {
            return Ok(told(known));
        }
        let claims = self.claims(token).await?;
        let (caller, until_ms) = self.check(&claims, now_ms).map_err(refused)?;
        let known = Verified { caller, until_ms, fresh_until_ms: until_ms.min(now_ms + VERIFIED_MS) };
        let credential = told(&known);
        let mut verified = self.verified.lock();
        if verified.len() >= VERIFIED_MAX {
            verified.retain(|_, known| now_ms < known.fresh_until_ms);
        }
        if verified.len() < VERIFIED_MAX {
            verified.insert(digest, known);
        }
        Ok(credential)
    }

    /// The claims of a token that the issuer has signed.
    async fn claims(&self, token: &str) -> Result<Claims, Problem> {
        let mut unverified = Unverified::parse(token).map_err(refused)?;
        // The issuer may have another key since the keys were read.
        let is_there = |known: &[_]| known.iter().any(|key| unverified.may_be_of(key));
        if !self.jwks.known().is_some_and(|known| is_there(&known)) {
            self.jwks.refresh().await;
        }
        let Some(known) = self.jwks.known() else { return Err(unready("The issuer's keys")) };
        let claims = known.iter().find_map(|key| unverified.verified(key));
        claims.ok_or_else(|| refused("The token is not signed with a key of the issuer."))
    }

    /// The caller that the claims name, and when the token ends.
    fn check(&self, claims: &Claims, now_ms: i64) -> Result<(Caller, i64), Why> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(&self.issuer) {
            return Err("The token is of another issuer (`iss`).");
        }
        let is_us = |value: &Value| value.as_str() == Some(&self.audience);
        let among = |aud: &Value| aud.as_array().is_some_and(|all| all.iter().any(is_us));
        if !claims.get("aud").is_some_and(|aud| is_us(aud) || among(aud)) {
            return Err("The token is for others (`aud`).");
        }
        let until_ms = time_ms(claims, "exp")?.ok_or("The token has no end (`exp`).")?;
        let until_ms = until_ms.saturating_add(self.leeway_ms);
        if now_ms >= until_ms {
            return Err("The token has expired (`exp`).");
        }
        if time_ms(claims, "nbf")?.is_some_and(|from_ms| now_ms < from_ms.saturating_sub(self.leeway_ms)) {
            return Err("The token is not valid yet (`nbf`).");
        }
        let subject = text("sub").ok_or("The token does not say whose it is (`sub`).")?;
        if !(1..=SUBJECT_BYTES_MAX).contains(&subject.len()) || subject.contains(char::is_control) {
            return Err("The token's `sub` cannot be kept.");
        }
        let tenant = text(&self.tenant_claim).filter(|tenant| is_tenant(tenant));
        let tenant = tenant.ok_or("The token does not name a tenant that there can be.")?;
        let scopes = words(claims.get("scope")).chain(words(claims.get("scp"))).filter_map(Scope::parse).collect();
        let caller = Caller { tenant: tenant.to_owned(), scopes, subject: format!("token:{subject}") };
        Ok((caller, until_ms))
    }
}

fn told(known: &Verified) -> (Caller, Credential) {
    (known.caller.clone(), Credential { until_ms: Some(known.until_ms), ended: CancellationToken::new() })
}

/// A time of the claims (`NumericDate`), in milliseconds since the Unix epoch.
fn time_ms(claims: &Claims, name: &str) -> Result<Option<i64>, Why> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) if (0.0..1e12).contains(&seconds) => Ok(Some((seconds * 1_000.0) as i64)),
            _ => Err("A time of the token is no number of seconds (`exp`, `nbf`)."),
        },
    }
}

/// The words of a claim: a text with blanks between them, or a list.
fn words(claim: Option<&Value>) -> impl Iterator<Item = &str> {
    let text = claim.and_then(Value::as_str).into_iter().flat_map(str::split_whitespace);
    let list = claim.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    text.chain(list)
}

#[cfg(test)]
mod tests;
