//! Reading a section into its settings type.

use serde::de::DeserializeOwned;

use super::error::ConfigError;
use super::merge::{self, DEFAULT_SOURCE};
use super::sources::Sources;

/// The defaults of the sections that all roles share, commented.
const SHARED_DEFAULTS: &str = include_str!("shared.toml");

/// Reads one section: its `default_toml`, overridden by `[section]` of the file, overridden by
/// `MEANWHILE__SECTION__KEY`.
///
/// # Errors
/// An unknown key, a value of another type than its default, or a `T` that does not accept the whole.
pub fn load<T: DeserializeOwned>(section: &str, default_toml: &str, sources: &Sources) -> Result<T, ConfigError> {
    let merged = merge::section(section, default_toml, sources)?;
    let read = |table: toml::Table| T::deserialize(toml::Value::Table(table)).map_err(|error| error.to_string());
    read(merged.table).map_err(|detail| {
        let culprit = merge::culprit(section, default_toml, sources, |table| read(table).err());
        culprit.unwrap_or_else(|| ConfigError::Invalid { section: section.to_owned(), detail })
    })
}

/// Reads one of the sections that all roles share.
pub(super) fn load_shared<T: DeserializeOwned>(section: &str, sources: &Sources) -> Result<T, ConfigError> {
    load(section, &defaults_of(section), sources)
}

/// The part of the shared defaults that belongs to one section, as TOML.
pub(super) fn defaults_of(section: &str) -> String {
    let defaults: toml::Table = toml::from_str(SHARED_DEFAULTS).expect("shared.toml is compiled in and tested");
    toml::to_string(&defaults[section]).expect("a table that was just read can be written")
}

/// The error about a value of a shared section, with the file or variable that sets it.
pub(super) fn wrong_value(section: &str, key: &str, sources: &Sources, expected: &str, found: &str) -> ConfigError {
    let merged = merge::section(section, &defaults_of(section), sources).ok();
    let source_name = merged.and_then(|merged| merged.origins.get(key).cloned());
    ConfigError::WrongType {
        key: format!("{section}.{key}"),
        source_name: source_name.unwrap_or_else(|| DEFAULT_SOURCE.to_owned()),
        expected: expected.to_owned(),
        found: format!("`{found}`"),
    }
}
