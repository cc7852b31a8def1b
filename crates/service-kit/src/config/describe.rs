//! Settings as `meanwhile config` shows them: each with where it came from, and no secrets.

use toml::Value;

use super::error::ConfigError;
use super::kafka::kafka_properties;
use super::log::log_level_variable;
use super::merge::{self, DEFAULT_SOURCE};
use super::proxy::{describe_proxies, proxies};
use super::redact::{redact, shown};
use super::section::defaults_of;
use super::sources::Sources;
use super::top_level::{INSTANCE, TOP_LEVEL, instance_or_host};

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its path, such as `workers.queue_slips_max`.
    pub key: String,
    /// Its value; secrets are redacted.
    pub value: String,
    /// `default`, the file's name, or the variable.
    pub source: String,
}

/// All settings in force: the shared ones, then each of these sections `(name, default_toml)`.
///
/// # Errors
/// As [`super::load`].
pub fn describe(sources: &Sources, sections: &[(&str, &str)]) -> Result<Vec<Setting>, ConfigError> {
    let mut settings = Vec::new();
    for setting in TOP_LEVEL {
        let (value, source) = match setting.find(sources)? {
            Some(found) => (redact(&found.value), found.source),
            None if setting.key == INSTANCE.key => (instance_or_host(None, sources), DEFAULT_SOURCE.to_owned()),
            None => (String::new(), format!("not set ({})", setting.variable)),
        };
        settings.push(Setting { key: setting.key.to_owned(), value, source });
    }
    for (key, value, source) in describe_proxies(&proxies(sources)?) {
        settings.push(Setting { key: key.to_owned(), value, source });
    }
    for (key, (value, source)) in kafka_properties(sources)? {
        let value = shown(&key, &Value::String(value));
        settings.push(Setting { key: format!("kafka.{key}"), value, source });
    }
    for section in ["topics", "log", "api", "tls", "schema_registry", "auth", "callbacks", "webhooks", "documents"] {
        describe_section(section, &defaults_of(section), sources, &mut settings)?;
    }
    if let Some((by, level)) = log_level_variable(sources) {
        for setting in settings.iter_mut().filter(|setting| setting.key == "log.level") {
            level.clone_into(&mut setting.value);
            by.clone_into(&mut setting.source);
        }
    }
    for (section, default_toml) in sections {
        describe_section(section, default_toml, sources, &mut settings)?;
    }
    Ok(settings)
}

fn describe_section(
    section: &str,
    default_toml: &str,
    sources: &Sources,
    settings: &mut Vec<Setting>,
) -> Result<(), ConfigError> {
    let merged = merge::section(section, default_toml, sources)?;
    let mut tables = vec![(String::new(), &merged.table)];
    while let Some((prefix, table)) = tables.pop() {
        for (key, value) in table {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            if let Value::Table(inside) = value {
                tables.push((path, inside));
                continue;
            }
            let source = merged.origins.get(&path).map_or(DEFAULT_SOURCE, String::as_str).to_owned();
            settings.push(Setting { key: format!("{section}.{path}"), value: shown(key, value), source });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_shown_with_where_it_came_from() {
        let sources = Sources::from_env([
            ("DATABASE_URL", "postgres://me:hunter2@db/x"),
            ("MEANWHILE__WORKERS__RETRY__ATTEMPTS", "9"),
            ("MEANWHILE__KAFKA__SASL_PASSWORD", "hunter2"),
            ("RUST_LOG", "warn"),
            ("http_proxy", "me:hunter2@proxy:3128"),
            ("NO_PROXY", "example.com"),
        ])
        .with_file("meanwhile.toml", "[workers]\nsigning_secret = \"hunter2\"")
        .unwrap();
        let default_toml = "slips_max = 5\nsigning_secret = \"\"\n[retry]\nattempts = 3";
        let settings = describe(&sources, &[("workers", default_toml)]).unwrap();
        let row = |key: &str| {
            let setting = settings.iter().find(|setting| setting.key == key).unwrap();
            (setting.value.as_str(), setting.source.as_str())
        };
        assert_eq!(row("database_url"), ("postgres://me:***@db/x", "DATABASE_URL"));
        assert_eq!(row("kafka_brokers"), ("", "not set (KAFKA_BROKERS)"));
        assert_eq!(row("kafka.sasl.password"), ("***", "MEANWHILE__KAFKA__SASL_PASSWORD"));
        assert_eq!(row("http_proxy"), ("http://me:***@proxy:3128/", "http_proxy"));
        assert_eq!(row("https_proxy"), ("", "not set (HTTPS_PROXY, ALL_PROXY)"));
        let (value, source) = row("no_proxy");
        assert!(value.starts_with("localhost,") && value.ends_with(",example.com"), "{value}");
        assert_eq!(source, "default and NO_PROXY");
        assert_eq!(row("topics.prefix"), ("meanwhile", "default"));
        assert_eq!(row("log.level"), ("warn", "RUST_LOG"));
        assert_eq!(row("workers.slips_max"), ("5", "default"));
        assert_eq!(row("workers.signing_secret"), ("***", "meanwhile.toml"));
        assert_eq!(row("workers.retry.attempts"), ("9", "MEANWHILE__WORKERS__RETRY__ATTEMPTS"));
    }
}
