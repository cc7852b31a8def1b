//! The settings of callbacks: workers make their URLs, and ingest knows them again.

use std::fmt;

use serde::Deserialize;

use super::error::ConfigError;
use super::secret::secret;
use super::section::load_shared;
use super::sources::Sources;

/// The section `[callbacks]`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CallbackSettings {
    /// The address at which services reach the API; empty: `api.public_url`.
    pub url: String,
    /// The secrets that certify the URLs: the first one signs, each of them is accepted.
    pub secrets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    url: String,
    secrets: Vec<String>,
    secrets_file: String,
}

impl CallbackSettings {
    pub(super) fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let Section { url, secrets, secrets_file } = load_shared("callbacks", sources)?;
        let in_file = secret("callbacks", "secrets", &secrets.concat(), &secrets_file)?;
        let secrets = match secrets_file.is_empty() {
            true => secrets,
            false => in_file.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect(),
        };
        Ok(Self { url, secrets })
    }

    /// The address at which services reach the API, without a slash at its end; empty where it is not known.
    pub fn api_url<'a>(&'a self, public_url: &'a str) -> &'a str {
        let url = if self.url.is_empty() { public_url } else { &self.url };
        url.trim_end_matches('/')
    }

    /// The error of secrets that cannot be used.
    pub fn refused(&self, reason: &dyn fmt::Display) -> ConfigError {
        let detail = format!("`secrets` (MEANWHILE__CALLBACKS__SECRETS): {reason}");
        ConfigError::Invalid { section: "callbacks".to_owned(), detail }
    }
}

impl fmt::Debug for CallbackSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackSettings").field("url", &self.url).field("secrets", &self.secrets.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Shared, Sources, describe};

    #[test]
    fn secrets_are_a_list_that_is_never_shown() {
        let sources = Sources::from_env([
            ("MEANWHILE__CALLBACKS__SECRETS", "hunter2hunter2hunter2hunter2hunt, older"),
            ("MEANWHILE__API__PUBLIC_URL", "https://api.example.com/"),
        ]);
        let shared = Shared::load(&sources).unwrap();
        assert_eq!(shared.callbacks.secrets, ["hunter2hunter2hunter2hunter2hunt", "older"]);
        assert_eq!(shared.callbacks.api_url(&shared.public_url), "https://api.example.com");
        assert!(!format!("{:?} {shared:?}", shared.callbacks).contains("hunter2"));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secrets");
        std::fs::write(&file, "first\n\n second\n").unwrap();
        let variable = ("MEANWHILE__CALLBACKS__SECRETS_FILE", file.to_str().unwrap());
        let shared = Shared::load(&Sources::from_env([variable])).unwrap();
        assert_eq!(shared.callbacks.secrets, ["first", "second"]);
        let rows = describe(&sources, &[]).unwrap();
        let row = rows.iter().find(|row| row.key == "callbacks.secrets").unwrap();
        assert_eq!((row.value.as_str(), row.source.as_str()), ("***", "MEANWHILE__CALLBACKS__SECRETS"));
    }
}
