//! The parts of a test system, and its start.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Result;
use client::Client;

use super::lines::{Lines, Server};
use super::{TestSystem, guard};
use crate::kafka::{Kafka, KafkaOptions};
use crate::postgres::{Postgres, PostgresOptions};
use crate::registry::Registry;
use crate::role::Role;
use crate::shared;

/// Settings by which every system is held to more, and some for tests that look without a pause, end soon and
/// stay on this machine.
const HELD_TO: [(&str, &str); 5] = [
    ("MEANWHILE__INGEST__POLLS_PER_S", "0"),
    ("MEANWHILE__INGEST__LEAVE_AFTER_MS", "0"),
    // Receivers of webhooks are on this machine.
    ("MEANWHILE__WEBHOOKS__ALLOW_NETWORKS", "127.0.0.0/8"),
    // The invariant is read back from all slips, those that are done with too.
    ("MEANWHILE__WORKERS__TRIM_INTERVAL_MS", "0"),
    // As short as faults last: none of them may make a job look stuck.
    ("MEANWHILE__ORCHESTRATOR__STUCK_AFTER_MS", "5000"),
];

/// The parts to start.
#[derive(Debug, Default)]
pub struct TestSystemBuilder {
    roles: Vec<(Role, u32)>,
    flows: Vec<PathBuf>,
    variables: Vec<(String, String)>,
    kafka: Option<KafkaOptions>,
    guarded: bool,
    brokers: Option<String>,
    postgres: Option<PostgresOptions>,
    private_registry: bool,
    lines: bool,
    clocks: bool,
    callbacks: bool,
    programs: BTreeMap<Role, PathBuf>,
}

impl TestSystemBuilder {
    /// The number of processes of a role; one of each by default.
    #[must_use]
    pub fn role(mut self, role: Role, processes: u32) -> Self {
        self.roles.retain(|(known, _)| *known != role);
        self.roles.push((role, processes));
        self
    }

    /// Another program for the processes of a role.
    #[must_use]
    pub fn program(mut self, role: Role, program: impl Into<PathBuf>) -> Self {
        self.programs.insert(role, program.into());
        self
    }

    /// A folder of flows to apply before the roles start. May be said more than once.
    #[must_use]
    pub fn flows(mut self, folder: impl Into<PathBuf>) -> Self {
        self.flows.push(folder.into());
        self
    }

    /// An environment variable of every process: `INVENTORY_URL`, `MEANWHILE__WORKERS__...`.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// A broker of its own, which may be killed.
    #[must_use]
    pub fn private_kafka(mut self, options: KafkaOptions) -> Self {
        self.kafka = Some(options);
        self
    }

    /// A broker of its own that every role has to log in to, and that lets it do what `meanwhile acls` lists.
    #[must_use]
    pub fn guarded_kafka(mut self) -> Self {
        self.guarded = true;
        self
    }

    /// Brokers that the test has started itself.
    #[must_use]
    pub fn brokers(mut self, brokers: impl Into<String>) -> Self {
        self.brokers = Some(brokers.into());
        self
    }

    /// A Postgres of its own, which may be killed.
    #[must_use]
    pub fn private_postgres(mut self, options: PostgresOptions) -> Self {
        self.postgres = Some(options);
        self
    }

    /// A registry of its own, which may be killed.
    #[must_use]
    pub fn private_registry(mut self) -> Self {
        self.private_registry = true;
        self
    }

    /// Private servers, and a line of its own from each role to each of them: see [`TestSystem::line`].
    #[must_use]
    pub fn lines(mut self) -> Self {
        self.kafka.get_or_insert_with(KafkaOptions::to_be_killed);
        self.postgres.get_or_insert_with(|| PostgresOptions { fsync: true, ..PostgresOptions::default() });
        self.private_registry = true;
        self.lines = true;
        self
    }

    /// A wall clock of its own for each process: see [`crate::MeanwhileProcess::clock`].
    #[must_use]
    pub fn clocks(mut self) -> Self {
        self.clocks = true;
        self
    }

    /// Workers tell services to call back at the first ingest.
    #[must_use]
    pub fn callbacks(mut self) -> Self {
        self.callbacks = true;
        self.variable("MEANWHILE__CALLBACKS__SECRETS", "a-secret-of-thirty-two-bytes-ok!")
    }

    /// Starts the servers, migrates, applies the flows, starts the roles and waits until each is ready and
    /// knows the flows.
    pub async fn start(mut self) -> Result<TestSystem> {
        let mut lines = Lines::to_kafka(self.kafka.as_mut().filter(|_| self.lines)).await?;
        let kafka = match self.kafka {
            Some(options) => Some(Kafka::start(options).await?),
            None => None,
        };
        let postgres = match self.postgres {
            Some(options) => Some(Postgres::start(options).await?),
            None => None,
        };
        let registry = if self.private_registry { Some(Registry::start().await?) } else { None };
        if let (true, Some(postgres), Some(registry)) = (self.lines, &postgres, &registry) {
            lines.add(Server::Postgres, postgres.port()).await?;
            lines.add(Server::Registry, registry.port()).await?;
        }
        let prefix = shared::prefix();
        let guard = if self.guarded { Some(guard::start().await?) } else { None };
        if let Some(kafka) = &guard {
            guard::grant(kafka, &prefix).await?;
            self.brokers = Some(kafka.brokers());
        }
        let brokers = match kafka.as_ref().map(Kafka::brokers).or(self.brokers) {
            Some(brokers) => brokers,
            None => shared::kafka().await,
        };
        let registry_url = match &registry {
            Some(registry) => registry.url(),
            None => shared::registry().await,
        };
        let database_url = match &postgres {
            Some(postgres) => postgres.create_database(&prefix)?,
            None => shared::postgres_database().await,
        };
        let mut variables = vec![
            ("KAFKA_BROKERS".to_owned(), brokers.clone()),
            ("SCHEMA_REGISTRY_URL".to_owned(), registry_url.clone()),
            ("MEANWHILE__TOPICS__PREFIX".to_owned(), prefix.clone()),
        ];
        variables.extend(HELD_TO.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if let Some(kafka) = &guard {
            variables.extend(guard::variables(kafka, guard::OPERATOR)?);
        }
        variables.extend(self.variables);
        let mut system = TestSystem {
            roles: vec![],
            started: BTreeMap::new(),
            accepted: BTreeSet::new(),
            excepted: BTreeSet::new(),
            client: Client::new("")?,
            unreadable_expected: 0,
            finished: true, // Until it has started, there is nothing to hold; an error should not drown.
            variables,
            brokers,
            registry_url,
            database_url,
            prefix,
            kafka,
            guard,
            registry,
            postgres,
            lines,
            clocks: self.clocks,
            callbacks: self.callbacks,
            programs: self.programs,
        };
        system.prepare(&self.flows).await?;
        start_roles(&mut system, &self.roles).await?;
        system.finished = false;
        Ok(system)
    }
}

/// Starts so many processes of each role, else one, and waits until they are ready and know the flows.
async fn start_roles(system: &mut TestSystem, roles: &[(Role, u32)]) -> Result<()> {
    for role in Role::ALL {
        let processes = roles.iter().find(|(known, _)| *known == role).map_or(1, |(_, processes)| *processes);
        for _ in 0..processes {
            system.add(role).await?;
        }
    }
    for process in &mut system.roles {
        process.wait_until_ready().await?;
    }
    system.flows_are_known().await
}
