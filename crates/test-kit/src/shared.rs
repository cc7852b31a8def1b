//! One Kafka, registry and Postgres for all tests of a run.
//!
//! `scripts/tools/with-test-stack` starts them for all test binaries and says in the environment where they are.
//! Without it, each test binary starts its own, once.

use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::kafka::{Kafka, KafkaOptions};
use crate::postgres::{Postgres, PostgresOptions, psql};
use crate::registry::Registry;

/// The environment variables that say where the shared stack is.
pub mod variable {
    /// `bootstrap.servers` of the shared broker.
    pub const KAFKA: &str = "MEANWHILE_TEST_KAFKA";
    /// The shared registry's URL.
    pub const REGISTRY: &str = "MEANWHILE_TEST_REGISTRY";
    /// The URL of the shared cluster's database `postgres`.
    pub const POSTGRES: &str = "MEANWHILE_TEST_POSTGRES";
}

static KAFKA: OnceCell<Kafka> = OnceCell::const_new();
static REGISTRY: OnceCell<Registry> = OnceCell::const_new();
static POSTGRES: OnceCell<Postgres> = OnceCell::const_new();

/// `bootstrap.servers` of the shared broker. Do not kill it; use your own [`prefix`].
///
/// # Panics
/// When it does not start; the message has the end of its log.
pub async fn kafka() -> String {
    if let Ok(brokers) = std::env::var(variable::KAFKA) {
        return brokers;
    }
    let start = || Kafka::start(KafkaOptions::default());
    KAFKA.get_or_try_init(start).await.unwrap_or_else(|error| panic!("the shared broker: {error:#}")).brokers()
}

/// The URL of the shared registry. Do not kill it.
///
/// # Panics
/// When it does not start; the message has the end of its log.
pub async fn registry() -> String {
    if let Ok(url) = std::env::var(variable::REGISTRY) {
        return url;
    }
    let registry = REGISTRY.get_or_try_init(Registry::start).await;
    registry.unwrap_or_else(|error| panic!("the shared registry: {error:#}")).url()
}

/// The URL of a fresh, empty database in the shared cluster, as its superuser. Do not kill the cluster.
///
/// # Panics
/// When the cluster does not start; the message has the end of its log.
pub async fn postgres_database() -> String {
    let server = match std::env::var(variable::POSTGRES) {
        Ok(url) => url,
        Err(_) => {
            let start = || Postgres::start(PostgresOptions::default());
            let started = POSTGRES.get_or_try_init(start).await;
            started.unwrap_or_else(|error| panic!("the shared Postgres: {error:#}")).url("postgres")
        }
    };
    let name = prefix();
    if let Err(error) = psql(&server, &format!("create database {name}")) {
        panic!("a fresh database: {error:#}");
    }
    let (cluster, _) = server.rsplit_once('/').unwrap_or((&server, ""));
    format!("{cluster}/{name}")
}

/// A fresh topic prefix, such as `t3f9a1c07`.
pub fn prefix() -> String {
    let random = Uuid::now_v7().as_u128() as u32;
    format!("t{random:08x}")
}
