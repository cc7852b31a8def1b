//! A broker, a registry and a private Postgres for a laptop. They do not outlive the process.
//!
//! [`Dev::start`] brings up what was not given: each of the three can be a real one instead. The services see addresses
//! only.
//!
//! Invariant: everything listens on this machine only, and Postgres asks for a password that nobody else knows.

pub mod forwarder;
pub mod postgres;
pub mod registry;

use std::sync::Arc;

use anyhow::Context;
use bus::InProcess;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use postgres::Private;

/// The address at which Kafka's own tools expect a broker.
pub const KAFKA_LISTEN: &str = "127.0.0.1:9092";
/// The address at which Confluent's tools expect a registry.
pub const REGISTRY_LISTEN: &str = "127.0.0.1:8081";

/// The servers that are given, and the addresses of the built-in ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A real Postgres in place of the private one.
    pub database_url: Option<String>,
    /// A real Kafka in place of the in-process broker.
    pub kafka_brokers: Option<String>,
    /// A real registry in place of the built-in one.
    pub registry_url: Option<String>,
    /// The in-process broker's fixed address (`--kafka-listen`).
    pub kafka_listen: String,
    /// The built-in registry's address (`--registry-listen`).
    pub registry_listen: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            database_url: None,
            kafka_brokers: None,
            registry_url: None,
            kafka_listen: KAFKA_LISTEN.to_owned(),
            registry_listen: REGISTRY_LISTEN.to_owned(),
        }
    }
}

/// The servers of this process, until it is stopped or dropped.
#[derive(Debug)]
pub struct Dev {
    /// For `DATABASE_URL`; holds a password when the Postgres is ours.
    pub database_url: String,
    /// For `KAFKA_BROKERS`, as the services should use it.
    pub kafka_brokers: String,
    /// Stands behind `kafka_brokers`, unless that is a real Kafka.
    pub in_process: Option<Arc<InProcess>>,
    /// The address to tell people: the fixed one of the in-process broker, else as given.
    pub kafka_shown: String,
    /// For `SCHEMA_REGISTRY_URL`.
    pub registry_url: String,
    documents: TempDir,
    postgres: Option<Private>,
    shutdown: CancellationToken,
}

impl Dev {
    /// Starts what was not given. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// A port is in use (the message names the flag to change), or Postgres is not installed or does not start.
    #[expect(clippy::disallowed_methods, reason = "what is started here ends with the returned value")]
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let shutdown = CancellationToken::new();
        // Ports first: finding out that one is taken should not cost the start of Postgres.
        let Options { database_url, kafka_brokers, registry_url, kafka_listen, registry_listen } = options;
        let kafka_port = match kafka_brokers {
            None => Some(listen(&kafka_listen, "the in-process Kafka", "--kafka-listen").await?),
            Some(_) => None,
        };
        let registry_url = match registry_url {
            None => {
                let listener = listen(&registry_listen, "the schema registry", "--registry-listen").await?;
                let url = format!("http://{}", listener.local_addr()?);
                tokio::spawn(registry::serve(listener, shutdown.clone()));
                url
            }
            Some(url) => url,
        };
        let broker = kafka_port.is_some().then(InProcess::start).transpose().context("the in-process Kafka")?;
        let mut kafka_shown = kafka_brokers.clone().unwrap_or_default();
        if let (Some(listener), Some(broker)) = (kafka_port, &broker) {
            kafka_shown = listener.local_addr()?.to_string();
            tokio::spawn(forwarder::serve(listener, broker.address().to_owned(), shutdown.clone()));
        }
        let folder = tempfile::Builder::new().prefix("meanwhile-dev-documents-").tempdir();
        let documents = folder.context("a temporary folder for documents")?;
        let postgres = match database_url {
            None => Some(Private::start().await?),
            Some(_) => None,
        };
        Ok(Self {
            database_url: database_url.or_else(|| postgres.as_ref().map(Private::url)).unwrap_or_default(),
            kafka_brokers: kafka_brokers
                .or_else(|| broker.as_ref().map(|broker| broker.address().to_owned()))
                .unwrap_or_default(),
            kafka_shown,
            registry_url,
            documents,
            postgres,
            in_process: broker,
            shutdown,
        })
    }

    /// For `documents.url`: a folder that goes with this.
    pub fn documents_url(&self) -> String {
        format!("file://{}", self.documents.path().display())
    }

    /// True when nothing of that kind is kept after the process has ended: `(Kafka and registry, Postgres)`.
    pub const fn forgets(&self) -> (bool, bool) {
        (self.in_process.is_some(), self.postgres.is_some())
    }

    /// Ends everything and removes Postgres' folder. Dropping does the same, but blocks.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(postgres) = self.postgres.take() {
            postgres.stop().await;
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn listen(address: &str, what: &str, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{what} cannot listen on {address}; choose another address with {flag} HOST:PORT"))
}
