//! The words of a client and its token endpoint: client credentials, RFC 6749 sections 2.3.1, 4.4 and 5.
//!
//! Invariant: no text from here repeats a secret, a token, or the endpoint's own words.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::{Serializer, byte_serialize};
use serde_json::Value;

use super::authorize::{ClientAuth, TokenClient};
use super::{HttpAnswer, host_of};

/// The lifetime of a token whose endpoint does not say it, in seconds.
const LIFETIME_S_DEFAULT: u64 = 300;
/// The longest token: more would not fit into the head of a request.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// The errors of RFC 6749 section 5.2 that may be told: any other word may be anything.
const ERRORS: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// A request to a token endpoint: a POST.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// Names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// A form.
    pub body: String,
}

/// A token that was issued.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// The token: a word that a header can hold.
    pub value: String,
    /// Its lifetime from the request on, in seconds.
    pub lifetime_s: u64,
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("lifetime_s", &self.lifetime_s).finish_non_exhaustive()
    }
}

/// The reason for which no token was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRefused {
    /// The reason, for a person.
    pub cause: String,
    /// True if it may pass.
    pub passing: bool,
    /// The `Retry-After` of the endpoint, as it stands.
    pub retry_after: Option<String>,
}

impl TokenClient {
    /// The request that asks for a token.
    pub fn request(&self) -> TokenRequest {
        let mut headers = vec![
            ("accept", "application/json".to_owned()),
            ("content-type", "application/x-www-form-urlencoded".to_owned()),
        ];
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        match self.auth {
            ClientAuth::Header => {
                // Both are encoded before they are put together, so that a colon cannot end the first.
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let credentials = STANDARD.encode(format!("{}:{}", encoded(&self.id), encoded(&self.secret)));
                headers.push(("authorization", format!("Basic {credentials}")));
            }
            ClientAuth::Body => {
                form.append_pair("client_id", &self.id).append_pair("client_secret", &self.secret);
            }
        }
        for (name, value) in [("scope", &self.scope), ("audience", &self.audience)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        TokenRequest { headers, body: form.finish() }
    }

    /// The meaning of the endpoint's answer. A no for good fails the step: another attempt would get the same one.
    ///
    /// # Errors
    /// No token was issued.
    pub fn issued(&self, answer: HttpAnswer) -> Result<AccessToken, TokenRefused> {
        match answer {
            HttpAnswer::Response { status: 200..300, body, .. } => read(&body).map_err(|fault| {
                self.refused(&format!("its answer is not one with a token: {fault}; check `token_url`"), false, None)
            }),
            HttpAnswer::Response { status, retry_after, body, .. } => {
                let passing = matches!(status, 408 | 425 | 429 | 500..=599);
                let said = told(&body).map(|error| format!(", `{error}`")).unwrap_or_default();
                let advice = if passing { "" } else { "; check the client's id, secret, scope and audience" };
                Err(self.refused(&format!("it answered {status}{said}{advice}"), passing, retry_after))
            }
            HttpAnswer::TimedOut | HttpAnswer::Aborted => Err(self.out_of_time()),
            HttpAnswer::ConnectFailed(cause) => Err(self.refused(&format!("no connection: {cause}"), true, None)),
            HttpAnswer::ConnectionLost(cause) => {
                Err(self.refused(&format!("the connection broke: {cause}"), true, None))
            }
            HttpAnswer::Unsendable(cause) => {
                Err(self.refused(&format!("the request cannot be sent: {cause}"), false, None))
            }
            HttpAnswer::Undecodable { .. }
            | HttpAnswer::TooLarge { .. }
            | HttpAnswer::Kept { .. }
            | HttpAnswer::StoreFailed { .. }
            | HttpAnswer::NoToken { .. } => {
                Err(self.refused("its answer is not one with a token; check `token_url`", false, None))
            }
        }
    }

    /// No answer came in time.
    pub fn out_of_time(&self) -> TokenRefused {
        self.refused("no answer in time", true, None)
    }

    fn refused(&self, why: &str, passing: bool, retry_after: Option<String>) -> TokenRefused {
        let host = host_of(&self.token_url).unwrap_or_default();
        let cause = format!("no access token from `{host}`: {why}");
        TokenRefused { cause, passing, retry_after }
    }
}

fn read(body: &[u8]) -> Result<AccessToken, &'static str> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| "it is not JSON")?;
    let value = answer["access_token"].as_str().ok_or("it has no `access_token`")?;
    if answer
        .get("token_type")
        .is_some_and(|kind| !kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")))
    {
        return Err("its `token_type` is not `Bearer`");
    }
    if value.is_empty() || value.len() > TOKEN_BYTES_MAX || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its `access_token` is empty, too long, or has signs that no header can hold");
    }
    // Some write the number as a text.
    let seconds = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let lifetime_s = answer.get("expires_in").and_then(seconds).unwrap_or(LIFETIME_S_DEFAULT);
    Ok(AccessToken { value: value.to_owned(), lifetime_s })
}

/// The endpoint's error, if it is one of the standard's.
fn told(body: &[u8]) -> Option<&'static str> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let error = answer["error"].as_str()?;
    ERRORS.into_iter().find(|known| *known == error)
}
