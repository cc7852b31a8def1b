//! The proxies of HTTP clients. Their variables are those of all programs, so no file of ours sets them.

use proxies::{EXPECTED, Found, Proxies};

use super::error::ConfigError;
use super::merge::DEFAULT_SOURCE;
use super::redact::{quoted, redact};
use super::sources::Sources;

/// Reads the variables, so that one which names no proxy is told before anything starts.
pub(super) fn proxies(sources: &Sources) -> Result<Proxies, ConfigError> {
    Proxies::read(|variable| sources.var(variable).map(ToOwned::to_owned)).map_err(|error| ConfigError::WrongType {
        key: error.variable.to_ascii_lowercase(),
        found: quoted(sources.var(&error.variable).unwrap_or_default()),
        source_name: format!("the variable {}", error.variable),
        expected: EXPECTED.to_owned(),
    })
}

/// The rows of `meanwhile config`: key, value, source.
pub(super) fn describe_proxies(proxies: &Proxies) -> Vec<(&'static str, String, String)> {
    let mut rows = Vec::new();
    for (key, found) in [("http_proxy", &proxies.http), ("https_proxy", &proxies.https)] {
        let (value, source) = match found {
            Some(Found { variable, value }) => (redact(value.as_str()), variable.clone()),
            None => (String::new(), format!("not set ({}, ALL_PROXY)", key.to_ascii_uppercase())),
        };
        rows.push((key, value, source));
    }
    let source = match &proxies.except {
        Some(except) => format!("{DEFAULT_SOURCE} and {}", except.variable),
        None => DEFAULT_SOURCE.to_owned(),
    };
    rows.push(("no_proxy", proxies.exceptions(), source));
    rows
}
