//! The settings that all roles share.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::accepted;
use super::describe::redact;
use super::error::ConfigError;
use super::load;
use super::sources::Sources;
use super::traces::TraceSettings;

/// The defaults of the shared sections, commented.
pub const SHARED_DEFAULTS: &str = include_str!("shared.toml");

/// The sections that a configuration file may have; `kafka` holds librdkafka's own properties.
pub(super) const SECTIONS: [&str; 11] =
    ["topics", "log", "api", "kafka", "ingest", "relay", "workers", "orchestrator", "notifier", "dev", "console"];

/// A setting at the top of the file, with the variable of its own.
pub(super) struct TopLevel {
    pub(super) key: &'static str,
    pub(super) variable: &'static str,
    purpose: &'static str,
    example: &'static str,
}

pub(super) const TOP_LEVEL: [TopLevel; 10] = [
    TopLevel {
        key: "database_url",
        variable: "DATABASE_URL",
        purpose: "the Postgres in which jobs are accepted and kept",
        example: "postgres://meanwhile:secret@localhost:5432/meanwhile",
    },
    TopLevel {
        key: "kafka_brokers",
        variable: "KAFKA_BROKERS",
        purpose: "the Kafka on which jobs move, as host:port, several separated by commas",
        example: "localhost:9092",
    },
    TopLevel {
        key: "schema_registry_url",
        variable: "SCHEMA_REGISTRY_URL",
        purpose: "the Confluent-compatible registry of Avro schemas",
        example: "http://localhost:8081",
    },
    TopLevel {
        key: "listen",
        variable: "MEANWHILE_LISTEN",
        purpose: "the address of the API, or of health and metrics",
        example: "127.0.0.1:8080",
    },
    TopLevel { key: "flows", variable: "MEANWHILE_FLOWS", purpose: "the folder of flow definitions", example: "flows" },
    TopLevel {
        key: "otlp_endpoint",
        variable: "OTEL_EXPORTER_OTLP_ENDPOINT",
        purpose: "the collector that traces are sent to, by OTLP over HTTP",
        example: "http://localhost:4318",
    },
    TopLevel {
        key: "otlp_protocol",
        variable: "OTEL_EXPORTER_OTLP_PROTOCOL",
        purpose: "how the collector is spoken to",
        example: "http/protobuf",
    },
    TopLevel {
        key: "traces_sampler",
        variable: "OTEL_TRACES_SAMPLER",
        purpose: "which traces are kept, decided where they begin",
        example: "parentbased_traceidratio",
    },
    TopLevel {
        key: "traces_sampler_arg",
        variable: "OTEL_TRACES_SAMPLER_ARG",
        purpose: "the part of the traces that is kept, from 0 to 1",
        example: "0.1",
    },
    TopLevel {
        key: "instance",
        variable: "MEANWHILE_INSTANCE",
        purpose: "this process's stable name among those of its role",
        example: "worker-0",
    },
];

/// The settings that all roles share. What is not set stays empty: each role asks for what it needs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Shared {
    /// `DATABASE_URL`; holds a password: see [`redact`].
    pub database_url: Option<String>,
    /// `KAFKA_BROKERS`.
    pub kafka_brokers: Option<String>,
    /// `SCHEMA_REGISTRY_URL`.
    pub registry_url: Option<String>,
    /// `MEANWHILE_LISTEN`.
    pub listen: Option<String>,
    /// `MEANWHILE_FLOWS`.
    pub flows_dir: Option<String>,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` and its like.
    pub traces: TraceSettings,
    /// `MEANWHILE_INSTANCE`, else the machine's name: stable over restarts, different for each process of a role.
    pub instance: String,
    /// `topics.prefix`.
    pub topics_prefix: String,
    /// `api.public_url`; empty: from each request.
    pub public_url: String,
    /// `log.*`.
    pub log: LogSettings,
    /// `[kafka]`: properties for librdkafka by their own names, such as `security.protocol`
    /// (`MEANWHILE__KAFKA__SECURITY_PROTOCOL`).
    pub kafka_properties: BTreeMap<String, String>,
}

/// How to log.
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

#[derive(Deserialize)]
struct Topics {
    prefix: String,
}

#[derive(Deserialize)]
struct Api {
    public_url: String,
}

impl Shared {
    /// Reads the shared settings, and refuses sections and top-level keys that nobody reads.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        refuse_unknown(sources)?;
        accepted::check(sources)?;
        let top = |key: &str| top_level(key, sources).map(|found| found.map(|(value, _)| value));
        let topics: Topics = load("topics", &defaults_of("topics"), sources)?;
        let api: Api = load("api", &defaults_of("api"), sources)?;
        let mut log: LogSettings = load("log", &defaults_of("log"), sources)?;
        if let Some((_, level)) = log_level_variable(sources) {
            level.clone_into(&mut log.level);
        }
        accepted::check_topics_prefix(&topics.prefix, sources)?;
        accepted::check_log_level(&log.level, sources)?;
        Ok(Self {
            database_url: top("database_url")?,
            kafka_brokers: top("kafka_brokers")?,
            registry_url: top("schema_registry_url")?.map(|url| url.trim_end_matches('/').to_owned()),
            listen: top("listen")?,
            flows_dir: top("flows")?,
            traces: TraceSettings::load(sources)?,
            instance: instance(top("instance")?, sources),
            topics_prefix: topics.prefix,
            public_url: api.public_url,
            log,
            kafka_properties: kafka_properties(sources)?.into_iter().map(|(key, (value, _))| (key, value)).collect(),
        })
    }

    /// The database's address.
    ///
    /// # Errors
    /// It is not set: the message says what it is for, with an example. So do the others.
    pub fn database_url(&self) -> Result<&str, ConfigError> {
        needed(self.database_url.as_deref(), "database_url")
    }

    /// Kafka's bootstrap addresses.
    ///
    /// # Errors
    /// It is not set.
    pub fn kafka_brokers(&self) -> Result<&str, ConfigError> {
        needed(self.kafka_brokers.as_deref(), "kafka_brokers")
    }

    /// The schema registry's address, without a slash at its end.
    ///
    /// # Errors
    /// It is not set.
    pub fn registry_url(&self) -> Result<&str, ConfigError> {
        needed(self.registry_url.as_deref(), "schema_registry_url")
    }

    /// The folder of flow definitions.
    ///
    /// # Errors
    /// It is not set.
    pub fn flows_dir(&self) -> Result<&str, ConfigError> {
        needed(self.flows_dir.as_deref(), "flows")
    }

    /// Where to listen: as set, else the role's own default.
    pub fn listen_or<'a>(&'a self, default: &'a str) -> &'a str {
        self.listen.as_deref().unwrap_or(default)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("database_url", &self.database_url.as_deref().map(redact))
            .field("kafka_brokers", &self.kafka_brokers)
            .field("registry_url", &self.registry_url.as_deref().map(redact))
            .field("listen", &self.listen)
            .field("flows_dir", &self.flows_dir)
            .field("instance", &self.instance)
            .field("topics_prefix", &self.topics_prefix)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

fn needed<'a>(value: Option<&'a str>, key: &str) -> Result<&'a str, ConfigError> {
    let setting = TOP_LEVEL.iter().find(|setting| setting.key == key).expect("a key of TOP_LEVEL");
    let TopLevel { variable, purpose, example, .. } = *setting;
    value.ok_or(ConfigError::Missing { variable, purpose, example })
}

/// The part of the shared defaults that belongs to one section, as TOML.
pub(super) fn defaults_of(section: &str) -> String {
    let defaults: toml::Table = toml::from_str(SHARED_DEFAULTS).expect("shared.toml is compiled in and tested");
    toml::to_string(&defaults[section]).expect("a table that was just read can be written")
}

/// `RUST_LOG`, else `MEANWHILE_LOG`: the name and what it says.
pub(super) fn log_level_variable(sources: &Sources) -> Option<(&'static str, &str)> {
    ["RUST_LOG", "MEANWHILE_LOG"].into_iter().find_map(|name| Some((name, sources.var(name)?)))
}

pub(super) fn instance(set: Option<String>, sources: &Sources) -> String {
    let host_name = Some(sources.host_name()).filter(|name| !name.is_empty());
    set.unwrap_or_else(|| host_name.unwrap_or("local").to_owned())
}

/// A top-level setting and where it came from.
pub(super) fn top_level(key: &str, sources: &Sources) -> Result<Option<(String, String)>, ConfigError> {
    let setting = TOP_LEVEL.iter().find(|setting| setting.key == key).expect("a key of TOP_LEVEL");
    if let Some(value) = sources.var(setting.variable) {
        return Ok(Some((value.to_owned(), setting.variable.to_owned())));
    }
    match sources.file().get(key) {
        None => Ok(None),
        Some(toml::Value::String(value)) => {
            Ok((!value.is_empty()).then(|| (value.clone(), sources.file_name().to_owned())))
        }
        Some(_) => Err(ConfigError::WrongType {
            key: key.to_owned(),
            source_name: sources.file_name().to_owned(),
            expected: "a string".to_owned(),
            found: "something else".to_owned(),
        }),
    }
}

/// librdkafka's properties by name, each with where it came from. Which ones exist is librdkafka's to say.
pub(super) fn kafka_properties(sources: &Sources) -> Result<BTreeMap<String, (String, String)>, ConfigError> {
    let mut properties = BTreeMap::new();
    if let Some(toml::Value::Table(table)) = sources.file().get("kafka") {
        flatten("", table, &mut |name, value| {
            properties.insert(name, (value, sources.file_name().to_owned()));
        });
    }
    for (variable, path, value) in sources.overrides() {
        if let Some((_, rest)) = path.split_first().filter(|(first, rest)| *first == "kafka" && !rest.is_empty()) {
            properties.insert(rest.join(".").replace('_', "."), (value.to_owned(), variable.to_owned()));
        }
    }
    Ok(properties)
}

/// TOML's dotted keys are nested tables: `security.protocol = ".."` is one property again.
fn flatten(prefix: &str, table: &toml::Table, set: &mut impl FnMut(String, String)) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inside) => flatten(&name, inside, set),
            toml::Value::String(text) => set(name, text.clone()),
            other => set(name, other.to_string()),
        }
    }
}

fn refuse_unknown(sources: &Sources) -> Result<(), ConfigError> {
    let known = || SECTIONS.into_iter().chain(TOP_LEVEL.iter().map(|setting| setting.key));
    for key in sources.file().keys() {
        if !known().any(|known| known == key) {
            return Err(ConfigError::unknown_name(key, key, sources.file_name(), known()));
        }
    }
    for (variable, path, _) in sources.overrides() {
        let section = path.first().map(String::as_str).unwrap_or_default();
        if path.len() < 2 || !SECTIONS.contains(&section) {
            let source_name = format!("the variable {variable}");
            return Err(ConfigError::unknown_name(&path.join("."), section, &source_name, SECTIONS.into_iter()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, env: &[(&str, &str)]) -> Result<Shared, ConfigError> {
        Shared::load(&Sources::from_env(env.iter().copied()).with_file("meanwhile.toml", file)?)
    }

    #[test]
    fn without_file_and_environment_there_are_defaults_and_nothing_else() {
        let shared = read("", &[]).unwrap();
        assert_eq!((shared.topics_prefix.as_str(), shared.log.level.as_str()), ("meanwhile", "info"));
        assert_eq!((shared.log.format, shared.instance.as_str()), (LogFormat::Auto, "local"));
        assert_eq!(shared.database_url, None);
    }

    #[test]
    fn what_is_missing_names_itself_its_purpose_and_an_example() {
        let error = read("", &[("DATABASE_URL", "")]).unwrap().database_url().unwrap_err().to_string();
        assert_eq!(
            error,
            "DATABASE_URL is not set: the Postgres in which jobs are accepted and kept, \
             for example DATABASE_URL=postgres://meanwhile:secret@localhost:5432/meanwhile"
        );
    }

    #[test]
    fn the_environment_beats_the_file() {
        let file = "kafka_brokers = \"file:9092\"\nlisten = \"0.0.0.0:1\"\n[topics]\nprefix = \"a\"\n\
                    [kafka]\nsecurity.protocol = \"SSL\"\nlinger.ms = 5";
        let env = [
            ("KAFKA_BROKERS", "env:9092"),
            ("MEANWHILE__TOPICS__PREFIX", "b"),
            ("MEANWHILE__LOG__FORMAT", "json"),
            ("MEANWHILE__KAFKA__SECURITY_PROTOCOL", "SASL_SSL"),
            ("MEANWHILE_LOG", "debug"),
        ];
        let shared = read(file, &env).unwrap();
        assert_eq!(shared.kafka_brokers().unwrap(), "env:9092");
        assert_eq!(shared.listen_or("x"), "0.0.0.0:1");
        assert_eq!((shared.topics_prefix.as_str(), shared.log.level.as_str()), ("b", "debug"));
        assert_eq!(shared.log.format, LogFormat::Json);
        assert_eq!(shared.kafka_properties["security.protocol"], "SASL_SSL");
        assert_eq!(shared.kafka_properties["linger.ms"], "5");
    }

    #[test]
    fn a_section_that_nobody_reads_is_refused() {
        let error = read("[wrokers]\na = 1", &[]).unwrap_err().to_string();
        assert_eq!(error, "unknown key `wrokers` in meanwhile.toml; did you mean `workers`?");
        let error = read("", &[("MEANWHILE__RELY__A", "1")]).unwrap_err().to_string();
        assert_eq!(error, "unknown key `rely.a` in the variable MEANWHILE__RELY__A; did you mean `relay`?");
    }

    #[test]
    fn a_file_that_is_no_toml_is_refused_with_its_line() {
        let error = read("[log]\nlevel = = 1", &[]).unwrap_err().to_string();
        assert!(error.starts_with("configuration file meanwhile.toml: ") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn debug_output_holds_no_password() {
        let shared = read("", &[("DATABASE_URL", "postgres://me:hunter2@db/x")]).unwrap();
        assert!(!format!("{shared:?}").contains("hunter2"), "{shared:?}");
        assert_eq!(shared.database_url().unwrap(), "postgres://me:hunter2@db/x");
    }
}
