//! The sources of settings, handed in.

use std::collections::BTreeMap;

use super::error::ConfigError;

/// The prefix of `MEANWHILE__SECTION__KEY`.
pub(super) const PREFIX: &str = "MEANWHILE__";

/// The environment and the configuration file of this process, or of a test.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    env: BTreeMap<String, String>,
    file_name: String,
    file: toml::Table,
    host_name: String,
}

impl Sources {
    /// This process's environment, the file that `MEANWHILE_CONFIG` names, and this machine's name. For `main` only.
    ///
    /// # Errors
    /// The file cannot be read or is no TOML.
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub fn of_process() -> Result<Self, ConfigError> {
        let env =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut sources = Self::from_env(env);
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        host_name.trim().clone_into(&mut sources.host_name);
        let Some(file) = sources.var("MEANWHILE_CONFIG").map(ToOwned::to_owned) else { return Ok(sources) };
        let text = std::fs::read_to_string(&file).map_err(|error| ConfigError::File {
            file: file.clone(),
            detail: format!("{error} (from MEANWHILE_CONFIG)"),
        })?;
        sources.with_file(&file, &text)
    }

    /// An environment, and no file.
    pub fn from_env<N: Into<String>, V: Into<String>>(env: impl IntoIterator<Item = (N, V)>) -> Self {
        let env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { env, ..Self::default() }
    }

    /// The same with this file.
    ///
    /// # Errors
    /// The text is no TOML: the message has line and column.
    pub fn with_file(mut self, name: &str, text: &str) -> Result<Self, ConfigError> {
        self.file = toml::from_str(text).map_err(|error| ConfigError::File {
            file: name.to_owned(),
            detail: error.to_string().trim_end().to_owned(),
        })?;
        name.clone_into(&mut self.file_name);
        Ok(self)
    }

    /// All variables of the environment that are text.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A variable that is set and not empty.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) const fn file(&self) -> &toml::Table {
        &self.file
    }

    pub(super) fn file_name(&self) -> &str {
        &self.file_name
    }

    pub(super) fn host_name(&self) -> &str {
        &self.host_name
    }

    /// All `MEANWHILE__...` variables: name, path in lower case, value.
    pub(super) fn overrides(&self) -> impl Iterator<Item = (&str, Vec<String>, &str)> {
        self.env.iter().filter_map(|(name, value)| {
            let path = name.strip_prefix(PREFIX)?.split("__").map(str::to_ascii_lowercase).collect();
            Some((name.as_str(), path, value.as_str()))
        })
    }
}
