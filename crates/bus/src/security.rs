//! The operator's properties for TLS and SASL: a part that is missing is told at the start, with its remedy.
//! librdkafka itself tells of most of them only when it has tried to connect, and then in its log.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use crate::connection::Connection;

const PROTOCOL: &str = "security.protocol";
const MECHANISM: &str = "sasl.mechanism";
const METHOD: &str = "sasl.oauthbearer.method";
/// All of librdkafka's but Kerberos, for which it is not built.
const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];
/// What client credentials need.
const OAUTHBEARER_NEEDS: [&str; 3] =
    ["sasl.oauthbearer.token.endpoint.url", "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret"];
/// Properties by which a token is got in another way than by client credentials.
const OTHER_WAYS: [&str; 4] = [
    "sasl.oauthbearer.grant.type",
    "sasl.oauthbearer.metadata.authentication.type",
    "sasl.oauthbearer.config",
    "enable.sasl.oauthbearer.unsecure.jwt",
];
/// Properties that name a file.
const FILES: [&str; 6] = [
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.crl.location",
    "https.ca.location",
];
/// Not the name of a file: librdkafka looks for one.
const PROBE: &str = "probe";

/// A property that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadProperty {
    /// Its name.
    pub name: String,
    /// What is wrong, and the remedy. No secret is in it.
    pub reason: String,
}

impl fmt::Display for BadProperty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.name, self.reason)
    }
}

/// The properties with those that follow from them.
pub(crate) fn completed(properties: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = properties.clone();
    let by_client_credentials = OAUTHBEARER_NEEDS.iter().all(|name| properties.contains_key(*name));
    if by_client_credentials && !properties.contains_key(METHOD) {
        // librdkafka's own, on a thread of its own: rust-rdkafka never serves the events of an admin client, so tokens
        // could not come from a callback of ours.
        all.insert(METHOD.to_owned(), "oidc".to_owned());
    }
    all
}

/// Looks at each property alone, then at all together.
pub(crate) fn check(brokers: &str, properties: &BTreeMap<String, String>) -> Result<(), BadProperty> {
    for (name, value) in properties {
        let mut alone = ClientConfig::new();
        alone.set(name, value).create_native_config().map_err(|error| match error {
            KafkaError::ClientConfig(_, reason, ..) => bad(name, format!("is librdkafka's, which says: {reason}")),
            other => bad(name, format!("is librdkafka's, which says: {other}")),
        })?;
    }
    let look = Look(properties);
    look.protocol(brokers)?;
    look.login()?;
    look.files()?;
    look.trial()
}

struct Look<'a>(&'a BTreeMap<String, String>);

impl Look<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn need(&self, name: &str, because: &str) -> Result<(), BadProperty> {
        match self.get(name) {
            Some(_) => Ok(()),
            None => Err(bad(name, format!("is not set, and {because} needs it: set it, or `{name}.file`"))),
        }
    }

    /// In small letters.
    fn security(&self) -> String {
        self.get(PROTOCOL).unwrap_or("plaintext").to_ascii_lowercase()
    }

    fn mechanism(&self) -> Option<String> {
        self.get(MECHANISM).or_else(|| self.get("sasl.mechanisms")).map(str::to_ascii_uppercase)
    }

    /// The protocol is the one that the rest is for.
    fn protocol(&self, brokers: &str) -> Result<(), BadProperty> {
        let protocol = self.security();
        let named = brokers.split(',').filter_map(|broker| Some(broker.trim().split_once("://")?.0));
        if let Some(other) = named.map(str::to_ascii_lowercase).find(|named| *named != protocol) {
            return Err(bad(
                PROTOCOL,
                format!("is `{protocol}`, but KAFKA_BROKERS names {other}:// : make them the same"),
            ));
        }
        let idle = |kind: &str| self.0.keys().find(|name| name.starts_with(kind)).map(String::as_str);
        if let (Some(name), false) = (idle("sasl."), protocol.starts_with("sasl_")) {
            let remedy = "set it to sasl_ssl (sasl_plaintext within a trusted network)";
            return Err(bad(PROTOCOL, format!("is `{protocol}`, by which `{name}` has no effect: {remedy}")));
        }
        if let (Some(name), false) = (idle("ssl."), protocol.ends_with("ssl")) {
            let remedy = "set it to ssl, or to sasl_ssl where clients log in";
            return Err(bad(PROTOCOL, format!("is `{protocol}`, by which `{name}` has no effect: {remedy}")));
        }
        Ok(())
    }

    fn login(&self) -> Result<(), BadProperty> {
        if self.security().starts_with("sasl_") {
            let known = MECHANISMS.join(", ");
            let mechanism = self.mechanism().ok_or_else(|| bad(MECHANISM, format!("is not set: one of {known}")))?;
            match mechanism.as_str() {
                "OAUTHBEARER" => self.token()?,
                mechanism if MECHANISMS.contains(&mechanism) => {
                    self.need("sasl.username", mechanism)?;
                    self.need("sasl.password", mechanism)?;
                }
                other => return Err(bad(MECHANISM, format!("is `{other}`: one of {known} would do"))),
            }
        }
        let (certificate, key) = ("ssl.certificate.location", "ssl.key.location");
        match (self.get(certificate), self.get(key)) {
            (Some(_), None) if self.get("ssl.key.pem").is_none() => {
                Err(bad(key, format!("is not set, and `{certificate}` needs it: name the file of its private key")))
            }
            (None, Some(_)) if self.get("ssl.certificate.pem").is_none() => {
                Err(bad(certificate, format!("is not set, and `{key}` needs it: name the file of its certificate")))
            }
            _ => Ok(()),
        }
    }

    fn token(&self) -> Result<(), BadProperty> {
        if OTHER_WAYS.iter().any(|name| self.get(name).is_some()) {
            return Ok(());
        }
        OAUTHBEARER_NEEDS.iter().try_for_each(|name| self.need(name, "OAUTHBEARER"))
    }

    fn files(&self) -> Result<(), BadProperty> {
        for name in FILES {
            if let Some(path) = self.get(name).filter(|path| *path != PROBE) {
                File::open(path).map_err(|error| bad(name, format!("names {path}: {error}")))?;
            }
        }
        Ok(())
    }

    /// Makes a client that connects nowhere and logs in nowhere: it reads the certificates and the key.
    fn trial(&self) -> Result<(), BadProperty> {
        if !self.security().ends_with("ssl") {
            return Ok(());
        }
        let mut config = ClientConfig::new();
        config.set(PROTOCOL, "ssl");
        for (name, value) in self.0.iter().filter(|(name, _)| name.starts_with("ssl.")) {
            config.set(name, value);
        }
        match BaseConsumer::from_config_and_context(&config, Connection::new("trial")) {
            Ok(client) => {
                drop(client.poll(std::time::Duration::ZERO));
                Ok(())
            }
            Err(error) => Err(bad("ssl.*", format!("cannot be used together; librdkafka says: {error}"))),
        }
    }
}

fn bad(name: &str, reason: String) -> BadProperty {
    BadProperty { name: name.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(properties: &[(&str, &str)]) -> Option<String> {
        told_of("kafka:9092", properties)
    }

    fn told_of(brokers: &str, properties: &[(&str, &str)]) -> Option<String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let properties: BTreeMap<String, String> = properties.iter().map(owned).collect();
        check(brokers, &completed(&properties)).err().map(|bad| bad.to_string())
    }

    const SCRAM: [(&str, &str); 4] = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", "me"),
        ("sasl.password", "hunter2"),
    ];
    const BEARER: [(&str, &str); 5] = [
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.token.endpoint.url", "https://login.example.com/token"),
        ("sasl.oauthbearer.client.id", "me"),
        ("sasl.oauthbearer.client.secret", "hunter2"),
    ];

    fn without<'a>(all: &[(&'a str, &'a str)], name: &str) -> Vec<(&'a str, &'a str)> {
        all.iter().copied().filter(|(known, _)| *known != name).collect()
    }

    #[test]
    fn every_way_to_log_in_is_built_into_librdkafka() {
        assert_eq!(told(&SCRAM), None);
        assert_eq!(told(&BEARER), None);
        assert_eq!(told(&[("security.protocol", "ssl")]), None);
        assert_eq!(told_of("SASL_SSL://kafka:9093", &BEARER), None);
    }

    #[test]
    fn a_part_that_is_missing_is_named_with_its_remedy() {
        for (properties, said) in [
            (
                without(&SCRAM, "security.protocol"),
                "`security.protocol` is `plaintext`, by which `sasl.mechanism` has no",
            ),
            (without(&SCRAM, "sasl.mechanism"), "`sasl.mechanism` is not set: one of PLAIN, SCRAM-SHA-256"),
            (without(&SCRAM, "sasl.password"), "`sasl.password` is not set, and SCRAM-SHA-512 needs it"),
            (without(&SCRAM, "sasl.username"), "`sasl.username.file`"),
            (
                without(&BEARER, "sasl.oauthbearer.client.id"),
                "`sasl.oauthbearer.client.id` is not set, and OAUTHBEARER",
            ),
            (vec![("ssl.ca.location", "/ca")], "`ssl.ca.location` has no effect: set it to ssl"),
            (vec![("security.protocol", "ssl"), ("ssl.ca.location", "/nowhere")], "names /nowhere: No such file"),
            (
                vec![("security.protocol", "ssl"), ("ssl.key.location", "/dev/null")],
                "`ssl.certificate.location` is not",
            ),
            (vec![("security.protocol", "ssl"), ("ssl.certificate.location", "/x")], "`ssl.key.location` is not set"),
            (vec![("security.protocol", "ssl"), ("ssl.ca.location", "/dev/null")], "librdkafka says: "),
        ] {
            let told = told(&properties).unwrap_or_else(|| panic!("{properties:?} was accepted"));
            assert!(told.contains(said) && !told.contains("hunter2"), "{told}");
        }
        let kerberos: Vec<_> =
            without(&SCRAM, "sasl.mechanism").into_iter().chain([("sasl.mechanism", "GSSAPI")]).collect();
        assert!(told(&kerberos).unwrap().contains("one of PLAIN"));
        assert!(told_of("SSL://kafka:9093", &SCRAM).unwrap().contains("KAFKA_BROKERS names ssl://"));
    }

    #[test]
    fn a_property_that_librdkafka_refuses_is_named_with_the_reason() {
        assert_eq!(told(&[("security.protocol", "plaintext"), ("linger.ms", "5")]), None);
        let of_value = told(&[("security.protocol", "tls")]).unwrap();
        assert!(
            of_value.starts_with("`security.protocol` ") && of_value.contains("Invalid value \"tls\""),
            "{of_value}"
        );
        let of_name = told(&[("sekurity.protocol", "ssl")]).unwrap();
        assert!(of_name.starts_with("`sekurity.protocol` ") && of_name.contains("No such configuration"), "{of_name}");
    }
}
