//! What the settings at the top of the file accept. What is wrong is told at the start, not by the first connection.

use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use super::describe::redact;
use super::error::ConfigError;
use super::merge::{self, DEFAULT_SOURCE};
use super::shared::{defaults_of, log_level_variable, top_level};
use super::sources::Sources;

/// What `KAFKA_BROKERS` may have before a host.
const KAFKA_SCHEMES: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
/// The longest name of a topic is 249 characters; ours are a prefix and what comes after it.
const PREFIX_CHARACTERS_MAX: usize = 100;

struct Accepted {
    key: &'static str,
    fits: fn(&str) -> bool,
    /// For a person.
    expected: &'static str,
}

const ACCEPTED: [Accepted; 4] = [
    Accepted {
        key: "database_url",
        fits: is_database_url,
        expected: "a URL such as postgres://user:password@host:5432/database",
    },
    Accepted { key: "kafka_brokers", fits: are_brokers, expected: "host:port, several separated by commas" },
    Accepted { key: "schema_registry_url", fits: is_http_url, expected: "a URL such as http://localhost:8081" },
    Accepted { key: "listen", fits: is_address, expected: "host:port, such as 127.0.0.1:8080 or 0.0.0.0:8080" },
];

/// # Errors
/// The first setting that does not fit, with the variable or file that says it, and what would do.
pub(super) fn check(sources: &Sources) -> Result<(), ConfigError> {
    for Accepted { key, fits, expected } in &ACCEPTED {
        if let Some((value, source_name)) = top_level(key, sources)?
            && !fits(&value)
        {
            return Err(ConfigError::WrongType {
                key: (*key).to_owned(),
                source_name,
                expected: (*expected).to_owned(),
                found: shown(&value),
            });
        }
    }
    Ok(())
}

/// # Errors
/// No topic's name may begin so.
pub(super) fn check_topics_prefix(prefix: &str, sources: &Sources) -> Result<(), ConfigError> {
    if is_topic_prefix(prefix) {
        return Ok(());
    }
    let expected = format!("up to {PREFIX_CHARACTERS_MAX} letters, digits, `.`, `_` and `-`");
    Err(wrong("topics", "prefix", sources, expected, prefix))
}

/// # Errors
/// The level is no filter. A word that is no level would be taken for the name of a target, and silence the rest.
pub(super) fn check_log_level(level: &str, sources: &Sources) -> Result<(), ConfigError> {
    let names_a_level = |part: &str| part.contains(['=', '[']) || part.parse::<LevelFilter>().is_ok();
    if EnvFilter::try_new(level).is_ok() && level.split(',').map(str::trim).all(names_a_level) {
        return Ok(());
    }
    let expected = "error, warn, info, debug, trace or off, also for one part: `info,relay=debug`".to_owned();
    match log_level_variable(sources) {
        None => Err(wrong("log", "level", sources, expected, level)),
        Some((variable, _)) => Err(ConfigError::WrongType {
            key: "log.level".to_owned(),
            source_name: variable.to_owned(),
            expected,
            found: format!("`{level}`"),
        }),
    }
}

fn wrong(section: &str, key: &str, sources: &Sources, expected: String, found: &str) -> ConfigError {
    let merged = merge::section(section, &defaults_of(section), sources).ok();
    let source_name = merged.and_then(|merged| merged.origins.get(key).cloned());
    ConfigError::WrongType {
        key: format!("{section}.{key}"),
        source_name: source_name.unwrap_or_else(|| DEFAULT_SOURCE.to_owned()),
        expected,
        found: format!("`{found}`"),
    }
}

fn is_topic_prefix(text: &str) -> bool {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    (1..=PREFIX_CHARACTERS_MAX).contains(&text.len()) && text.chars().all(fits)
}

/// What stands there, without a password: in a text that is no URL nobody can say which part is one.
fn shown(value: &str) -> String {
    match value.contains(['@', '=']) && !value.contains("://") {
        true => "something else (not shown: it may hold a password)".to_owned(),
        false => format!("`{}`", redact(value)),
    }
}

fn is_database_url(text: &str) -> bool {
    ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme)).is_some_and(has_host)
}

fn is_http_url(text: &str) -> bool {
    ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme)).is_some_and(has_host)
}

/// What comes after a URL's scheme. The host may be left out where parameters name one, as Postgres' sockets need it.
fn has_host(rest: &str) -> bool {
    let (authority, after) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let named_later = host.is_empty() && after.contains("host=");
    named_later || split(host).is_some_and(|(_, port)| port.is_none_or(is_port))
}

fn are_brokers(text: &str) -> bool {
    text.split(',').map(str::trim).all(|broker| {
        let address = match broker.split_once("://") {
            Some((scheme, address)) if KAFKA_SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) => address,
            Some(_) => return false,
            None => broker,
        };
        split(address).is_some_and(|(_, port)| port.is_none_or(is_port))
    })
}

fn is_address(text: &str) -> bool {
    split(text).is_some_and(|(_, port)| port.is_some_and(is_port))
}

/// Host and port; an IPv6 address stands in brackets.
fn split(address: &str) -> Option<(&str, Option<&str>)> {
    let (host, port) = match address.rfind(']').map(|end| address.split_at(end + 1)) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    let is_host = !host.is_empty() && !host.contains(|character: char| character.is_whitespace() || character == '/');
    is_host.then_some((host, port))
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::Shared;
    use super::*;

    fn told(variable: &str, value: &str) -> Option<String> {
        check(&Sources::from_env([(variable, value)])).err().map(|error| error.to_string())
    }

    #[test]
    fn what_works_is_accepted() {
        for (variable, value) in [
            ("DATABASE_URL", "postgres://me:p%40ss@db:5432/x?sslmode=require"),
            ("DATABASE_URL", "postgresql://localhost"),
            ("DATABASE_URL", "postgres:///x?host=/var/run/postgresql"),
            ("DATABASE_URL", "postgres://me:hun@ter@[::1]:5432/x"),
            ("KAFKA_BROKERS", "a:9092, b:9093"),
            ("KAFKA_BROKERS", "kafka"),
            ("KAFKA_BROKERS", "SASL_SSL://kafka.example.com:9093"),
            ("KAFKA_BROKERS", "[::1]:9092"),
            ("SCHEMA_REGISTRY_URL", "http://registry:8080/apis/ccompat/v7"),
            ("SCHEMA_REGISTRY_URL", "https://me:secret@registry"),
            ("MEANWHILE_LISTEN", "0.0.0.0:8080"),
            ("MEANWHILE_LISTEN", "localhost:0"),
            ("MEANWHILE_LISTEN", "[::]:8080"),
        ] {
            assert_eq!(told(variable, value), None, "{variable}={value}");
        }
    }

    #[test]
    fn what_cannot_work_names_its_variable_and_what_would_do() {
        for (variable, value) in [
            ("DATABASE_URL", "mysql://me@db/x"),
            ("DATABASE_URL", "postgres://me@db:fivefour/x"),
            ("DATABASE_URL", "db.example.com"),
            ("KAFKA_BROKERS", "http://kafka:9092"),
            ("KAFKA_BROKERS", "kafka:9092,"),
            ("KAFKA_BROKERS", "kafka:99092"),
            ("SCHEMA_REGISTRY_URL", "registry:8081"),
            ("SCHEMA_REGISTRY_URL", "http://"),
            ("MEANWHILE_LISTEN", "8080"),
            ("MEANWHILE_LISTEN", ":8080"),
            ("MEANWHILE_LISTEN", "127.0.0.1"),
        ] {
            let told = told(variable, value).unwrap_or_else(|| panic!("{variable}={value} was accepted"));
            assert!(told.contains(&format!("in {variable}: expected ")), "{told}");
            assert!(told.ends_with(&format!("found `{value}`")), "{told}");
        }
    }

    #[test]
    fn a_password_is_not_told() {
        for value in ["mysql://me:hunter2@db/x", "me:hunter2@db", "postgres://me:hunter2@db:x/y", "password=hunter2"] {
            let told = told("DATABASE_URL", value).unwrap();
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

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

    #[test]
    fn a_prefix_is_what_kafka_takes() {
        assert!(is_topic_prefix("meanwhile") && is_topic_prefix("team-a.prod_1"));
        let spaced =
            Shared::load(&Sources::from_env([("MEANWHILE__TOPICS__PREFIX", "team a")])).unwrap_err().to_string();
        assert!(
            spaced.starts_with("`topics.prefix` in MEANWHILE__TOPICS__PREFIX: expected up to 100 letters"),
            "{spaced}"
        );
        assert!(!is_topic_prefix("") && !is_topic_prefix("team a") && !is_topic_prefix(&"x".repeat(101)));
    }
}
