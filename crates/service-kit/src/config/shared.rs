//! The settings that all roles share.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::auth::AuthSettings;
use super::callbacks::CallbackSettings;
use super::documents::DocumentSettings;
use super::error::ConfigError;
use super::kafka::kafka_values;
use super::log::LogSettings;
use super::proxy::proxies;
use super::redact::redact;
use super::registry::RegistrySettings;
use super::section::{load_shared, wrong_value};
use super::sources::Sources;
use super::tls::TlsSettings;
use super::top_level::{
    DATABASE_URL, FLOWS, INSTANCE, KAFKA_BROKERS, LISTEN, SCHEMA_REGISTRY_URL, TOP_LEVEL, instance_or_host,
};
use super::traces::TraceSettings;
use super::webhooks::WebhookSettings;

/// The sections that a configuration file may have; `kafka` holds librdkafka's own properties.
const SECTIONS: [&str; 15] = [
    "topics",
    "log",
    "api",
    "tls",
    "schema_registry",
    "auth",
    "callbacks",
    "webhooks",
    "documents",
    "kafka",
    "ingest",
    "relay",
    "workers",
    "orchestrator",
    "notifier",
];
/// The longest name of a topic is 249 characters; ours are a prefix and what comes after it.
const PREFIX_CHARACTERS_MAX: usize = 100;

/// The settings that all roles share. What is not set stays empty: each role asks for what it needs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Shared {
    /// `DATABASE_URL`; holds a password: see [`redact`].
    pub database_url: Option<String>,
    /// `KAFKA_BROKERS`.
    pub kafka_brokers: Option<String>,
    /// `SCHEMA_REGISTRY_URL`.
    pub registry_url: Option<String>,
    /// `schema_registry.*`.
    pub registry: RegistrySettings,
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
    /// `tls.*`.
    pub tls: TlsSettings,
    /// `auth.*`.
    pub auth: AuthSettings,
    /// `callbacks.*`.
    pub callbacks: CallbackSettings,
    /// `webhooks.*`.
    pub webhooks: WebhookSettings,
    /// `documents.*`.
    pub documents: DocumentSettings,
    /// `log.*`.
    pub log: LogSettings,
    /// `[kafka]`: properties for librdkafka by their own names, such as `security.protocol`
    /// (`MEANWHILE__KAFKA__SECURITY_PROTOCOL`).
    pub kafka_properties: BTreeMap<String, String>,
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
    /// Reads the shared settings, and refuses unknown sections and top-level keys.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        refuse_unknown(sources)?;
        proxies(sources)?;
        let database_url = DATABASE_URL.read(sources)?;
        let kafka_brokers = KAFKA_BROKERS.read(sources)?;
        let registry_url = SCHEMA_REGISTRY_URL.read(sources)?.map(|url| url.trim_end_matches('/').to_owned());
        let listen = LISTEN.read(sources)?;
        let topics: Topics = load_shared("topics", sources)?;
        check_topics_prefix(&topics.prefix, sources)?;
        let api: Api = load_shared("api", sources)?;
        Ok(Self {
            database_url,
            kafka_brokers,
            registry_url,
            registry: RegistrySettings::load(sources)?,
            listen,
            flows_dir: FLOWS.read(sources)?,
            log: LogSettings::load(sources)?,
            traces: TraceSettings::load(sources)?,
            instance: instance_or_host(INSTANCE.read(sources)?, sources),
            topics_prefix: topics.prefix,
            public_url: api.public_url,
            tls: TlsSettings::load(sources)?,
            auth: AuthSettings::load(sources)?,
            callbacks: CallbackSettings::load(sources)?,
            webhooks: load_shared("webhooks", sources)?,
            documents: DocumentSettings::load(sources)?,
            kafka_properties: kafka_values(sources)?,
        })
    }

    /// The database's address.
    ///
    /// # Errors
    /// It is not set: the message explains the setting, with an example. So do the others.
    pub fn database_url(&self) -> Result<&str, ConfigError> {
        DATABASE_URL.needed(self.database_url.as_deref())
    }

    /// Kafka's bootstrap addresses.
    ///
    /// # Errors
    /// It is not set.
    pub fn kafka_brokers(&self) -> Result<&str, ConfigError> {
        KAFKA_BROKERS.needed(self.kafka_brokers.as_deref())
    }

    /// The schema registry's address, without a slash at its end.
    ///
    /// # Errors
    /// It is not set.
    pub fn registry_url(&self) -> Result<&str, ConfigError> {
        SCHEMA_REGISTRY_URL.needed(self.registry_url.as_deref())
    }

    /// The folder of flow definitions.
    ///
    /// # Errors
    /// It is not set.
    pub fn flows_dir(&self) -> Result<&str, ConfigError> {
        FLOWS.needed(self.flows_dir.as_deref())
    }

    /// The address to listen on: the one that is set, else the role's own default.
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

/// # Errors
/// No topic's name may begin with this.
fn check_topics_prefix(prefix: &str, sources: &Sources) -> Result<(), ConfigError> {
    if is_topic_prefix(prefix) {
        return Ok(());
    }
    let expected = format!("up to {PREFIX_CHARACTERS_MAX} letters, digits, `.`, `_` and `-`");
    Err(wrong_value("topics", "prefix", sources, &expected, prefix))
}

fn is_topic_prefix(text: &str) -> bool {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    (1..=PREFIX_CHARACTERS_MAX).contains(&text.len()) && text.chars().all(fits)
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
    use super::super::log::LogFormat;
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
