//! Values as logs, error texts and `meanwhile config` may show them.

use toml::Value;
use url::Url;

/// Shown in place of a secret.
const REDACTED: &str = "***";
/// Shown in place of a text that may hold a secret somewhere.
const HIDDEN: &str = "(not shown: it may hold a password)";
/// A key that contains one of these words holds a secret.
const SECRET_WORDS: [&str; 7] =
    ["password", "secret", "token", "private", "credential", "key.pem", "oauthbearer.config"];

/// A value as it may be shown under this key.
pub(super) fn shown(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => String::new(),
        _ if is_secret(key) => REDACTED.to_owned(),
        Value::String(text) => redact(text),
        other => other.to_string(),
    }
}

/// A refused value as an error text may quote it. In a text that is no URL any part may be a password.
pub(super) fn quoted(value: &str) -> String {
    let shown = if value.contains("://") { redact(value) } else { hide(value) };
    if shown == HIDDEN { format!("something else {HIDDEN}") } else { format!("`{shown}`") }
}

/// A URL without its password: `postgres://me:***@db/x`. Text that is no URL stays as it is.
pub fn redact(text: &str) -> String {
    if !text.contains("://") {
        return text.to_owned();
    }
    let Ok(mut url) = Url::parse(text) else { return hide(text) };
    let has_password = url.password().is_some();
    let has_secret = url.query_pairs().any(|(name, _)| is_secret(&name));
    if !has_password && !has_secret {
        // Parsing may write the same URL in another way.
        return text.to_owned();
    }
    if has_password && url.set_password(Some(REDACTED)).is_err() {
        return HIDDEN.to_owned();
    }
    if has_secret {
        let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        for (name, value) in &mut pairs {
            if is_secret(name) {
                REDACTED.clone_into(value);
            }
        }
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    url.into()
}

fn hide(text: &str) -> String {
    if text.contains(['@', '=']) { HIDDEN.to_owned() } else { text.to_owned() }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_shows() {
        for (url, shown) in [
            ("postgres://me:hunter2@db:5432/x", "postgres://me:***@db:5432/x"),
            ("postgres://me:hun@ter:2@db/x?sslmode=require", "postgres://me:***@db/x?sslmode=require"),
            ("postgres://me@db/x?password=hunter2&a=b", "postgres://me@db/x?password=***&a=b"),
            ("http://localhost:8081", "http://localhost:8081"),
            ("localhost:9092", "localhost:9092"),
        ] {
            assert_eq!(redact(url), shown);
        }
    }
}
