//! The system that is measured: servers once per run, and for each measurement the roles on topics and a database of
//! their own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use events::topic::Topics;
use test_kit::{
    Kafka, KafkaOptions, Launch, MeanwhileProcess, Port, Postgres, PostgresOptions, Process, Registry, Role,
    http_client, meanwhile, prefix, repository,
};

use crate::load::API_KEY;
use crate::usage::{Counted, Memory, memory};

/// Only ends a run that hangs.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Kafka with its full JIT, Postgres with fsync, the registry.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) kafka: Kafka,
    pub(crate) postgres: Postgres,
    registry: Registry,
}

impl Servers {
    pub(crate) async fn start() -> Result<Self> {
        let kafka = Kafka::start(KafkaOptions { full_jit: true, ..KafkaOptions::default() }).await?;
        let postgres = Postgres::start(PostgresOptions { fsync: true, ..PostgresOptions::default() }).await?;
        Ok(Self { kafka, postgres, registry: Registry::start().await? })
    }

    /// Settings for our own clients.
    pub(crate) fn settings(&self) -> bus::Settings {
        let mut settings = bus::Settings::new(self.kafka.brokers(), self.registry.url());
        settings.client_id = "bench".to_owned();
        settings
    }

    /// The registry's client.
    pub(crate) fn registry(&self) -> Result<bus::Registry> {
        Ok(bus::Registry::new(&self.registry.url(), None)?)
    }

    /// The servers as processes to count.
    pub(crate) fn counted(&self) -> Vec<Counted> {
        vec![Counted::new("kafka", self.kafka.id()), Counted::new("postgres", self.postgres.id())]
    }
}

/// The roles of one measurement.
#[derive(Debug)]
pub(crate) struct System {
    roles: Vec<MeanwhileProcess>,
    workers: Option<Worker>,
    pub(crate) topics: Topics,
    pub(crate) database_url: String,
    variables: Vec<(String, String)>,
}

#[derive(Debug)]
struct Worker {
    process: Process,
    _port: Port,
}

impl System {
    /// Runs `meanwhile migrate` once more.
    pub(crate) async fn migrate(&self, arguments: &[&str]) -> Result<()> {
        meanwhile(&[&["migrate"], arguments].concat(), &self.variables).await.context("meanwhile migrate")?;
        Ok(())
    }

    /// Fresh topics and a fresh database with the benchmark's flow; no role yet.
    pub(crate) async fn prepare(servers: &Servers) -> Result<Self> {
        let prefix = prefix();
        let database_url = servers.postgres.create_database(&prefix)?;
        let variables = vec![
            ("KAFKA_BROKERS".to_owned(), servers.kafka.brokers()),
            ("SCHEMA_REGISTRY_URL".to_owned(), servers.registry.url()),
            ("MEANWHILE__TOPICS__PREFIX".to_owned(), prefix.clone()),
            ("DATABASE_URL".to_owned(), database_url.clone()),
            // As the image has them (Dockerfile).
            ("MIMALLOC_PURGE_DELAY".to_owned(), "0".to_owned()),
            ("MALLOC_ARENA_MAX".to_owned(), "1".to_owned()),
            ("MEANWHILE__AUTH__MODE".to_owned(), "off".to_owned()),
        ];
        meanwhile(&["migrate"], &variables).await.context("meanwhile migrate")?;
        let system = Self { roles: vec![], workers: None, topics: Topics::new(prefix), database_url, variables };
        system.apply("crates/bench/flows").await?;
        Ok(system)
    }

    /// From now on callers are asked for a key, and [`API_KEY`] is one.
    pub(crate) async fn ask_for_keys(&mut self) -> Result<()> {
        self.set("MEANWHILE__AUTH__MODE", "required");
        self.set("MEANWHILE__AUTH__KEYS_SECRET", "the secret of the benchmark's keys");
        let create = ["keys", "create", "bench", "--bootstrap", "--scope", "jobs:submit", "--key", API_KEY];
        meanwhile(&create, &self.variables).await.context("meanwhile keys create")?;
        Ok(())
    }

    /// Applies the flows of a folder of the repository.
    pub(crate) async fn apply(&self, folder: &str) -> Result<()> {
        let flows = repository().join(folder);
        let flows = flows.to_str().context("the folder of flows")?;
        meanwhile(&["flows", "apply", flows], &self.variables).await.context("meanwhile flows apply")?;
        Ok(())
    }

    /// One more variable of the roles that are started from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Starts these roles, one process each, and waits until they are ready. Workers are the benchmark's own binary.
    pub(crate) async fn start(&mut self, roles: &[Role]) -> Result<()> {
        for role in roles {
            if *role == Role::Workers {
                self.workers = Some(Worker::start(&self.variables).await?);
                continue;
            }
            let mut process = MeanwhileProcess::start(*role, role.as_str(), &self.variables).await?;
            process.wait_until_ready().await?;
            self.roles.push(process);
        }
        Ok(())
    }

    /// Where jobs are submitted.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        let ingest = self.roles.iter().find(|process| process.role() == Role::Ingest).context("no ingest runs")?;
        ingest.url().trim_start_matches("http://").parse().context("the address of ingest")
    }

    /// The roles as processes to count.
    pub(crate) fn counted(&mut self) -> Vec<Counted> {
        let roles = self.roles.iter_mut().map(|role| Counted::new(role.role().as_str(), role.process().id()));
        let workers = self.workers.iter().map(|worker| Counted::new("workers", worker.process.id()));
        roles.chain(workers).collect()
    }

    /// The memory of each role.
    pub(crate) fn memory(&mut self) -> Result<Vec<(String, Memory)>> {
        let roles = self.counted();
        roles.into_iter().map(|role| Ok((role.name, memory(role.id)?))).collect()
    }

    /// Ends the roles.
    pub(crate) async fn stop(mut self) -> Result<()> {
        for role in &mut self.roles {
            role.terminate(READY_WITHIN).await?;
        }
        if let Some(worker) = &mut self.workers {
            worker.process.terminate(READY_WITHIN).await?;
        }
        Ok(())
    }
}

impl Worker {
    async fn start(variables: &[(String, String)]) -> Result<Self> {
        let port = Port::take()?;
        let address = format!("127.0.0.1:{}", port.number());
        let ourselves = std::env::current_exe().context("our own program")?;
        let mut launch = Launch::new("workers", ourselves).arg("worker");
        launch = launch.env("MEANWHILE_LISTEN", &address).env("MEANWHILE_INSTANCE", "workers");
        for (name, value) in variables {
            launch = launch.env(name, value);
        }
        let mut process = Process::start(launch)?;
        let (client, url) = (http_client(), format!("http://{address}/readyz"));
        let ready = async || {
            let answer = client.get(&url).timeout(Duration::from_secs(5)).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        };
        process.wait_until(READY_WITHIN, "/readyz says ready", ready).await?;
        Ok(Self { process, _port: port })
    }
}
