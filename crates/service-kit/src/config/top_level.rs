//! The settings at the top of the file, one row each, with the variable of its own.

use super::accepted::{
    are_brokers, is_any, is_database_url, is_http_url, is_listen_address, is_otlp_protocol, is_ratio, is_sampler,
};
use super::error::ConfigError;
use super::redact::quoted;
use super::secret;
use super::sources::Sources;

/// At the end of a variable: its value is in the file of that path.
const FILE: &str = "_FILE";

/// One setting: its names, and the values that it takes.
pub(super) struct TopLevel {
    pub(super) key: &'static str,
    pub(super) variable: &'static str,
    purpose: &'static str,
    example: &'static str,
    accepts: fn(&str) -> bool,
    expected: &'static str,
}

/// A value, and the variable or file that sets it.
pub(super) struct Found {
    pub(super) value: String,
    pub(super) source: String,
}

pub(super) static DATABASE_URL: TopLevel = TopLevel {
    key: "database_url",
    variable: "DATABASE_URL",
    purpose: "the Postgres in which jobs are accepted and kept",
    example: "postgres://meanwhile:secret@localhost:5432/meanwhile",
    accepts: is_database_url,
    expected: "a URL such as postgres://user:password@host:5432/database",
};
pub(super) static KAFKA_BROKERS: TopLevel = TopLevel {
    key: "kafka_brokers",
    variable: "KAFKA_BROKERS",
    purpose: "the Kafka on which jobs move, as host:port, several separated by commas",
    example: "localhost:9092",
    accepts: are_brokers,
    expected: "host:port, several separated by commas",
};
pub(super) static SCHEMA_REGISTRY_URL: TopLevel = TopLevel {
    key: "schema_registry_url",
    variable: "SCHEMA_REGISTRY_URL",
    purpose: "the Confluent-compatible registry of Avro schemas",
    example: "http://localhost:8081",
    accepts: is_http_url,
    expected: "a URL such as http://localhost:8081",
};
pub(super) static LISTEN: TopLevel = TopLevel {
    key: "listen",
    variable: "MEANWHILE_LISTEN",
    purpose: "the address of the API, or of health and metrics",
    example: "127.0.0.1:8080",
    accepts: is_listen_address,
    expected: "host:port, such as 127.0.0.1:8080 or 0.0.0.0:8080",
};
pub(super) static FLOWS: TopLevel = TopLevel {
    key: "flows",
    variable: "MEANWHILE_FLOWS",
    purpose: "the folder of flow definitions",
    example: "flows",
    accepts: is_any,
    expected: "a folder",
};
pub(super) static OTLP_ENDPOINT: TopLevel = TopLevel {
    key: "otlp_endpoint",
    variable: "OTEL_EXPORTER_OTLP_ENDPOINT",
    purpose: "the collector that traces are sent to, by OTLP over HTTP",
    example: "http://localhost:4318",
    accepts: is_http_url,
    expected: "a URL such as http://localhost:4318",
};
pub(super) static OTLP_PROTOCOL: TopLevel = TopLevel {
    key: "otlp_protocol",
    variable: "OTEL_EXPORTER_OTLP_PROTOCOL",
    purpose: "the protocol to the collector",
    example: "http/protobuf",
    accepts: is_otlp_protocol,
    expected: "http/protobuf",
};
pub(super) static TRACES_SAMPLER: TopLevel = TopLevel {
    key: "traces_sampler",
    variable: "OTEL_TRACES_SAMPLER",
    purpose: "which traces are kept, decided where they begin",
    example: "parentbased_traceidratio",
    accepts: is_sampler,
    expected: "one of always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, \
               parentbased_traceidratio",
};
pub(super) static TRACES_SAMPLER_ARG: TopLevel = TopLevel {
    key: "traces_sampler_arg",
    variable: "OTEL_TRACES_SAMPLER_ARG",
    purpose: "the part of the traces that is kept, from 0 to 1",
    example: "0.1",
    accepts: is_ratio,
    expected: "a number from 0 to 1",
};
pub(super) static INSTANCE: TopLevel = TopLevel {
    key: "instance",
    variable: "MEANWHILE_INSTANCE",
    purpose: "this process's stable name among those of its role",
    example: "worker-0",
    accepts: is_any,
    expected: "a name",
};

/// Every row, in the order in which `meanwhile config` shows them.
pub(super) static TOP_LEVEL: [&TopLevel; 10] = [
    &DATABASE_URL,
    &KAFKA_BROKERS,
    &SCHEMA_REGISTRY_URL,
    &LISTEN,
    &FLOWS,
    &OTLP_ENDPOINT,
    &OTLP_PROTOCOL,
    &TRACES_SAMPLER,
    &TRACES_SAMPLER_ARG,
    &INSTANCE,
];

impl TopLevel {
    /// True for URLs that may hold a password: where the variable is not set, one with [`FILE`] after it names a file.
    fn may_be_in_a_file(&self) -> bool {
        [DATABASE_URL.key, SCHEMA_REGISTRY_URL.key].contains(&self.key)
    }

    /// The value as it is set, whether it is acceptable or not.
    pub(super) fn find(&self, sources: &Sources) -> Result<Option<Found>, ConfigError> {
        if let Some(value) = sources.var(self.variable) {
            return Ok(Some(Found { value: value.to_owned(), source: self.variable.to_owned() }));
        }
        let in_file = format!("{}{FILE}", self.variable);
        if let Some(file) = sources.var(&in_file).filter(|_| self.may_be_in_a_file()) {
            let read = secret::read(file);
            let value = read.map_err(|reason| self.wrong(in_file.clone(), "a file", format!("`{file}`: {reason}")))?;
            return Ok(Some(Found { value, source: in_file }));
        }
        let source = sources.file_name().to_owned();
        match sources.file().get(self.key) {
            None => Ok(None),
            Some(toml::Value::String(value)) => Ok((!value.is_empty()).then(|| Found { value: value.clone(), source })),
            Some(_) => Err(self.wrong(source, "a string", "something else".to_owned())),
        }
    }

    /// The value, which is an acceptable one.
    pub(super) fn read(&self, sources: &Sources) -> Result<Option<String>, ConfigError> {
        match self.find(sources)? {
            Some(Found { value, source }) if !(self.accepts)(&value) => {
                Err(self.wrong(source, self.expected, quoted(&value)))
            }
            found => Ok(found.map(|found| found.value)),
        }
    }

    /// A value that a role cannot do without.
    pub(super) fn needed<'a>(&self, value: Option<&'a str>) -> Result<&'a str, ConfigError> {
        let Self { variable, purpose, example, .. } = *self;
        value.ok_or(ConfigError::Missing { variable, purpose, example })
    }

    fn wrong(&self, source_name: String, expected: &str, found: String) -> ConfigError {
        ConfigError::WrongType { key: self.key.to_owned(), source_name, expected: expected.to_owned(), found }
    }
}

/// The instance as set, else the name of this machine.
pub(super) fn instance_or_host(set: Option<String>, sources: &Sources) -> String {
    let host_name = Some(sources.host_name()).filter(|name| !name.is_empty());
    set.unwrap_or_else(|| host_name.unwrap_or("local").to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Shared;
    use super::*;

    fn told(variable: &str, value: &str) -> Option<String> {
        Shared::load(&Sources::from_env([(variable, value)])).err().map(|error| error.to_string())
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
            ("DATABASE_URL", "postgres://db:fivefour/x"),
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
    fn a_url_with_a_password_may_be_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, "postgres://me:hunter2@db/x\n").unwrap();
        let variable = ("DATABASE_URL_FILE", file.to_str().unwrap());
        let shared = Shared::load(&Sources::from_env([variable])).unwrap();
        assert_eq!(shared.database_url().unwrap(), "postgres://me:hunter2@db/x");
        let told = told("DATABASE_URL_FILE", "/nowhere").unwrap();
        assert!(told.contains("DATABASE_URL_FILE") && told.contains("/nowhere"), "{told}");
        std::fs::write(&file, "mysql://me:hunter2@db/x").unwrap();
        let told = Shared::load(&Sources::from_env([variable])).unwrap_err().to_string();
        assert!(told.contains("DATABASE_URL_FILE") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn a_password_is_not_told() {
        for value in ["mysql://me:hunter2@db/x", "me:hunter2@db", "postgres://me:hunter2@db:x/y", "password=hunter2"] {
            let told = told("DATABASE_URL", value).unwrap();
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}
