//! A broker that asks its clients who they are, and lets them do what they were granted, and nothing else.
//!
//! Its first listener is open, and its clients there are super users: the test's own, which look and grant.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::rights::{Grant, create_acls};
use super::{Kafka, KafkaOptions, Listener};
use crate::certificates::{Authority, Leaf};
use crate::port::Port;

/// A connection lives as long with one login; a client that does not log in again by then is cut off.
const LOGIN_AGAIN_AFTER_MS: u32 = 3_600_000;

/// A way to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// SASL/PLAIN over TLS.
    Plain,
    /// SCRAM-SHA-256 over TLS.
    Scram256,
    /// SCRAM-SHA-512 over TLS.
    Scram512,
    /// A client's certificate.
    Certificate,
}

/// The broker, its authority, and its users.
#[derive(Debug)]
pub struct GuardedKafka {
    kafka: Kafka,
    authority: Authority,
    login: Port,
    certificate: Port,
}

impl GuardedKafka {
    /// Starts it with these users, each of whom has its own name, reversed, as its password.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(users: &[&str]) -> Result<Self> {
        let authority = Authority::new("kafka")?;
        let Leaf { certificate, key } = authority.server()?;
        // Kafka wants both in one file.
        let identity = authority.folder().join("broker.pem");
        let both = [fs::read_to_string(key)?, fs::read_to_string(certificate)?].concat();
        fs::write(&identity, both).context("the broker's certificate and key")?;
        let users: Vec<_> = users.iter().map(|user| ((*user).to_owned(), Self::password(user))).collect();
        let (login, by_certificate) = (Port::take()?, Port::take()?);
        let listener = |name: &str, protocol, port: &Port| Listener {
            name: name.to_owned(),
            protocol,
            port: port.number(),
            advertised: port.number(),
        };
        let options = KafkaOptions {
            properties: properties(&users, &identity.display().to_string(), &authority),
            listeners: vec![listener("LOGIN", "SASL_SSL", &login), listener("CERT", "SSL", &by_certificate)],
            users,
            ..KafkaOptions::default()
        };
        let kafka = Kafka::start(options).await?;
        Ok(Self { kafka, authority, login, certificate: by_certificate })
    }

    /// A user's password.
    pub fn password(user: &str) -> String {
        user.chars().rev().collect::<String>() + "-secret"
    }

    /// The open listener.
    pub fn brokers(&self) -> String {
        self.kafka.brokers()
    }

    /// The listener for users, by SASL over TLS.
    pub fn login_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.login.number())
    }

    /// The authority of the broker's certificate, and of clients'.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The listener for a way to log in, and librdkafka's properties for it.
    ///
    /// # Errors
    /// A certificate cannot be written.
    pub fn login(&self, login: Login, user: &str) -> Result<(String, Vec<(String, String)>)> {
        let authority = self.authority.certificate().display().to_string();
        let mut properties = vec![("ssl.ca.location".to_owned(), authority)];
        let mut set = |name: &str, value: String| properties.push((name.to_owned(), value));
        let mechanism = match login {
            Login::Plain => "PLAIN",
            Login::Scram256 => "SCRAM-SHA-256",
            Login::Scram512 => "SCRAM-SHA-512",
            Login::Certificate => {
                let leaf = self.authority.client(user)?;
                set("security.protocol", "ssl".to_owned());
                set("ssl.certificate.location", leaf.certificate.display().to_string());
                set("ssl.key.location", leaf.key.display().to_string());
                return Ok((format!("127.0.0.1:{}", self.certificate.number()), properties));
            }
        };
        set("security.protocol", "sasl_ssl".to_owned());
        set("sasl.mechanism", mechanism.to_owned());
        set("sasl.username", user.to_owned());
        set("sasl.password", Self::password(user));
        Ok((self.login_brokers(), properties))
    }

    /// Grants what these commands of `kafka-acls` say, one a line.
    ///
    /// # Errors
    /// A line is none, or the broker refuses it.
    pub async fn grant(&self, commands: &str) -> Result<()> {
        let mut grants = Vec::new();
        for line in commands.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            grants.extend(Grant::read(line).with_context(|| line.to_owned())?);
        }
        let brokers = self.brokers();
        let granting = tokio::task::spawn_blocking(move || create_acls(&brokers, &grants));
        tokio::time::timeout(Duration::from_secs(60), granting).await.context("granting")??
    }
}

fn properties(users: &[(String, String)], identity: &str, authority: &Authority) -> Vec<(String, String)> {
    let known: String = users.iter().map(|(user, password)| format!(" user_{user}=\"{password}\"")).collect();
    let module = "org.apache.kafka.common.security";
    let truststore = authority.certificate().display().to_string();
    let scram = format!("{module}.scram.ScramLoginModule required;");
    let bearer = format!("{module}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"b\";");
    let jaas = |mechanism: &str| format!("listener.name.login.{mechanism}.sasl.jaas.config");
    let pairs = [
        ("authorizer.class.name".to_owned(), "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()),
        // The open listener's clients, and the controller.
        ("super.users".to_owned(), "User:ANONYMOUS".to_owned()),
        ("allow.everyone.if.no.acl.found".to_owned(), "false".to_owned()),
        ("ssl.keystore.type".to_owned(), "PEM".to_owned()),
        ("ssl.keystore.location".to_owned(), identity.to_owned()),
        ("ssl.truststore.type".to_owned(), "PEM".to_owned()),
        ("ssl.truststore.location".to_owned(), truststore),
        ("listener.name.cert.ssl.client.auth".to_owned(), "required".to_owned()),
        // The user is the common name.
        ("ssl.principal.mapping.rules".to_owned(), "RULE:^.*CN=([^,]+).*$/$1/".to_owned()),
        ("sasl.enabled.mechanisms".to_owned(), "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER".to_owned()),
        ("connections.max.reauth.ms".to_owned(), LOGIN_AGAIN_AFTER_MS.to_string()),
        (jaas("plain"), format!("{module}.plain.PlainLoginModule required{known};")),
        (jaas("scram-sha-256"), scram.clone()),
        (jaas("scram-sha-512"), scram),
        (jaas("oauthbearer"), bearer),
    ];
    pairs.into()
}
