//! The credentials of a call: a header, or a client of a token endpoint.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::HttpCall;
use crate::definition::Auth;
use crate::expression::{Evaluation, ExpressionError, Template};

const AUTHORIZATION: &str = "authorization";

/// A client that asks a token endpoint for its access token (RFC 6749 section 4.4).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenClient {
    /// The absolute URL of the token endpoint.
    pub token_url: String,
    /// Its name there.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// The scopes that it asks for, with spaces between them.
    pub scope: Option<String>,
    /// The service that the token is for.
    pub audience: Option<String>,
    /// The place of its credentials.
    pub auth: ClientAuth,
}

/// The place of a client's credentials in its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientAuth {
    /// `client_secret_basic`.
    Header,
    /// `client_secret_post`.
    Body,
}

impl fmt::Debug for TokenClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenClient").field("id", &self.id).field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("HttpCall")
            .field("method", &self.method)
            .field("headers", &names)
            .field("token_client", &self.token_client)
            .field("timeout_ms", &self.timeout_ms)
            .field("idempotency_key", &self.idempotency_key)
            .finish_non_exhaustive()
    }
}

/// Adds the credentials to the headers; returns the client, where a token has to be asked for.
pub(super) fn authorize(
    auth: Option<&Auth>,
    headers: &mut Vec<(String, String)>,
    evaluation: &Evaluation<'_>,
) -> Result<Option<Box<TokenClient>>, ExpressionError> {
    let value = match auth {
        None => return Ok(None),
        Some(Auth::OAuth2(oauth2)) => {
            let optional = |name: &str, template: &Option<Template>| {
                template.as_ref().map(|template| word(name, template, evaluation)).transpose()
            };
            return Ok(Some(Box::new(TokenClient {
                token_url: oauth2.token_url.render(evaluation)?,
                id: word("client_id", &oauth2.client_id, evaluation)?,
                secret: word("client_secret", &oauth2.client_secret, evaluation)?,
                scope: optional("scope", &oauth2.scope)?,
                audience: optional("audience", &oauth2.audience)?,
                auth: if oauth2.in_body { ClientAuth::Body } else { ClientAuth::Header },
            })));
        }
        Some(Auth::Basic { username, password }) => {
            let username = word("username", username, evaluation)?;
            if username.contains(':') {
                return Err(ExpressionError::new("`auth`: `username` has a colon in it, at which it would end"));
            }
            let password = word("password", password, evaluation)?;
            format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
        }
        Some(Auth::Bearer(token)) => {
            let token = word("bearer", token, evaluation)?;
            if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ExpressionError::new(
                    "`auth`: `bearer` is not a token: it has signs that no header can hold",
                ));
            }
            format!("Bearer {token}")
        }
    };
    headers.push((AUTHORIZATION.to_owned(), value));
    Ok(None)
}

/// White space at the ends is no part of a value: a secret's file ends with a newline.
fn word(name: &str, template: &Template, evaluation: &Evaluation<'_>) -> Result<String, ExpressionError> {
    let text = template.render_plain(evaluation)?.trim().to_owned();
    match text.is_empty() || text.chars().any(char::is_control) {
        true => Err(ExpressionError::new(format!("`auth`: `{name}` is empty or has a control character in it"))),
        false => Ok(text),
    }
}
