//! How to reach the registry, beside its address.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

/// User and password for the registry.
#[derive(Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// The user, or the API key.
    pub user: String,
    /// The password, or the API secret.
    pub password: String,
}

impl std::fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BasicAuth").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How to reach the registry, beside its address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryAccess {
    /// User and password; they may be in the URL instead.
    pub auth: Option<BasicAuth>,
    /// The authorities that are trusted beside the system's own: a file, in PEM.
    pub authorities: Option<PathBuf>,
}

/// The URL without a slash at its end, and without the user and the password that it may hold: URLs are told.
pub(crate) fn without_login(url: &str) -> (String, Option<BasicAuth>) {
    let plain = || url.trim_end_matches('/').to_owned();
    let Ok(mut parsed) = reqwest::Url::parse(url) else { return (plain(), None) };
    if parsed.username().is_empty() && parsed.password().is_none() {
        return (plain(), None);
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let auth = BasicAuth { user: decoded(parsed.username()), password: decoded(parsed.password().unwrap_or_default()) };
    // Both fail for URLs without a host only, which have no user.
    let _ = parsed.set_username("").and_then(|()| parsed.set_password(None));
    (parsed.as_str().trim_end_matches('/').to_owned(), Some(auth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_url_is_taken_out_of_it() {
        let ada = BasicAuth { user: "ada".to_owned(), password: "p@ss".to_owned() };
        assert_eq!(without_login("https://ada:p%40ss@r/apis/"), ("https://r/apis".to_owned(), Some(ada)));
        assert_eq!(without_login("http://r:8081/"), ("http://r:8081".to_owned(), None));
    }
}
