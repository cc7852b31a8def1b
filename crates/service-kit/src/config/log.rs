//! `[log]`: level and form of log lines.

use serde::Deserialize;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use super::error::ConfigError;
use super::section::{self, load_shared};
use super::sources::Sources;

/// The section `[log]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// A filter such as `info` or `info,relay=debug`.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl LogSettings {
    pub(super) fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut log: Self = load_shared("log", sources)?;
        if let Some((_, level)) = log_level_variable(sources) {
            level.clone_into(&mut log.level);
        }
        check_level(&log.level, sources)?;
        Ok(log)
    }
}

/// `RUST_LOG`, else `MEANWHILE_LOG`: its name and its value.
pub(super) fn log_level_variable(sources: &Sources) -> Option<(&'static str, &str)> {
    ["RUST_LOG", "MEANWHILE_LOG"].into_iter().find_map(|name| Some((name, sources.var(name)?)))
}

/// # Errors
/// The level is no filter. A word that is no level would be taken for the name of a target, and silence the rest.
fn check_level(level: &str, sources: &Sources) -> Result<(), ConfigError> {
    let names_a_level = |part: &str| part.contains(['=', '[']) || part.parse::<LevelFilter>().is_ok();
    if EnvFilter::try_new(level).is_ok() && level.split(',').map(str::trim).all(names_a_level) {
        return Ok(());
    }
    let expected = "error, warn, info, debug, trace or off, also for one part: `info,relay=debug`";
    let Some((variable, _)) = log_level_variable(sources) else {
        return Err(section::wrong_value("log", "level", sources, expected, level));
    };
    Err(ConfigError::WrongType {
        key: "log.level".to_owned(),
        source_name: variable.to_owned(),
        expected: expected.to_owned(),
        found: format!("`{level}`"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Shared;
    use super::*;

    #[test]
    fn a_log_level_is_a_level_and_not_any_word() {
        let told = |variable: &str, level: &str| {
            let sources = Sources::from_env([(variable, level)]);
            Shared::load(&sources).err().map(|error| error.to_string())
        };
        for level in ["info", "WARN", "off", "info,relay=debug", "warn,bus=trace"] {
            assert_eq!(told("MEANWHILE_LOG", level), None, "{level}");
        }
        for variable in ["MEANWHILE_LOG", "RUST_LOG", "MEANWHILE__LOG__LEVEL"] {
            let told = told(variable, "verbose").unwrap();
            assert!(told.starts_with(&format!("`log.level` in {variable}: expected error, warn,")), "{told}");
        }
        assert!(told("MEANWHILE_LOG", "info,relay=loud").is_some());
    }
}
