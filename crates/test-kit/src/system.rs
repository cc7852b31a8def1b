//! The whole system as processes, on shared or private servers, and what must hold when a test is done with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bus::{Reader, Registry as RegistryClient, Table};
use client::Client;
use events::decode_event;
use events::topic::Topics;
use flow::event::JobEvent;
use flow::id::JobId;
use serde_json::Value;

use crate::clock::WallClock;
use crate::kafka::{GuardedKafka, Kafka, Login};
use crate::line::Line;
use crate::postgres::{Postgres, psql};
use crate::registry::Registry;
use crate::role::{MeanwhileProcess, Role, binary, meanwhile};
use crate::tokens::Tokens;
use crate::topics::{self, settings};

mod builder;
mod guard;
mod lines;
mod submit;

pub use builder::TestSystemBuilder;
pub use lines::Server;
pub use submit::submit;

use lines::Lines;

/// Only ends a test that hangs: how long a submit is repeated, and how long a role may take to leave.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two attempts of the same.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The whole system. A test ends with [`TestSystem::finish`], which holds what must always hold; dropping it without
/// that fails the test.
#[derive(Debug)]
pub struct TestSystem {
    // Dropped in this order: roles before servers.
    roles: Vec<MeanwhileProcess>,
    started: BTreeMap<Role, u32>,
    accepted: BTreeSet<JobId>,
    excepted: BTreeSet<JobId>,
    client: Client,
    unreadable_expected: usize,
    finished: bool,
    variables: Vec<(String, String)>,
    brokers: String,
    registry_url: String,
    database_url: String,
    prefix: String,
    kafka: Option<Kafka>,
    guard: Option<GuardedKafka>,
    registry: Option<Registry>,
    postgres: Option<Postgres>,
    lines: Lines,
    clocks: bool,
    callbacks: bool,
    programs: BTreeMap<Role, PathBuf>,
}

/// Nobody is asked who they are, unless the test says so. Programs of earlier versions do not know it.
const UNASKED: [(&str, &str); 1] = [("MEANWHILE__AUTH__MODE", "off")];

impl TestSystem {
    /// One process of each role, shared servers, no flows.
    pub fn builder() -> TestSystemBuilder {
        TestSystemBuilder::default()
    }

    async fn prepare(&mut self, flows: &[PathBuf]) -> Result<()> {
        let variables = self.variables_with(&self.database_url.clone());
        meanwhile(&["migrate"], &variables).await.context("meanwhile migrate")?;
        self.let_roles_log_in().await?;
        for folder in flows {
            let folder = folder.to_str().context("the folder of flows")?;
            meanwhile(&["flows", "apply", folder], &variables).await.context("meanwhile flows apply")?;
        }
        Ok(())
    }

    /// Each service connects as its own role, as in production, so that the grants are held to.
    async fn let_roles_log_in(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for role in Role::ALL.into_iter().filter(|role| *role != Role::Workers) {
            let more = if role == Role::Relay { " replication" } else { "" };
            let sql = format!("alter role meanwhile_{} login{more}", role.as_str());
            // Roles are the cluster's: another test may be changing the same one ("tuple concurrently updated").
            while let Err(error) = psql(&self.database_url, &sql) {
                if Instant::now() > deadline {
                    return Err(error);
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
        Ok(())
    }

    /// Waits until every ingest knows every flow: they come to it by the relay and Kafka.
    async fn flows_are_known(&mut self) -> Result<()> {
        let applied = psql(&self.database_url, "select count(distinct flow) from ingest.flows")?;
        for process in self.roles.iter_mut().filter(|process| process.role() == Role::Ingest) {
            let client = self.client.at(&process.url());
            let all = async || client.flows().await.is_ok_and(|flows| flows.len().to_string() == applied);
            process.process().wait_until(PATIENCE, "every flow is known", all).await?;
        }
        Ok(())
    }

    fn variables_with(&self, database_url: &str) -> Vec<(String, String)> {
        let mut variables = self.variables.clone();
        variables.push(("DATABASE_URL".to_owned(), database_url.to_owned()));
        variables
    }

    /// Starts one more process of a role; returns its place among [`TestSystem::roles`]. Does not wait.
    pub async fn add(&mut self, role: Role) -> Result<usize> {
        match self.programs.get(&role) {
            Some(program) => self.add_program(program.clone(), role),
            None => self.start(binary().await?, role, &UNASKED),
        }
    }

    /// The same with another build of the program.
    pub fn add_program(&mut self, program: PathBuf, role: Role) -> Result<usize> {
        self.start(program, role, &[])
    }

    fn start(&mut self, program: PathBuf, role: Role, first: &[(&str, &str)]) -> Result<usize> {
        let number = self.started.entry(role).or_default();
        let instance = format!("{}-{number}", role.as_str());
        *number += 1;
        let own_url = self.database_url.replacen("postgres@", &format!("meanwhile_{}@", role.as_str()), 1);
        let own = if role == Role::Workers { self.variables.clone() } else { self.variables_with(&own_url) };
        let first = first.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut variables: Vec<(String, String)> = first.chain(own).collect();
        if let (true, Role::Workers) = (self.callbacks, role) {
            variables.push(("MEANWHILE__CALLBACKS__URL".to_owned(), self.api()));
        }
        self.lines.lead(role, &mut variables);
        if let Some(kafka) = &self.guard {
            variables.extend(guard::variables(kafka, role.as_str())?);
        }
        let clock = self.clocks.then(|| WallClock::new(&instance)).transpose()?;
        variables.extend(clock.iter().flat_map(WallClock::variables));
        let process = MeanwhileProcess::start_program(program, role, &instance, &variables)?;
        self.roles.push(match clock {
            Some(clock) => process.with_clock(clock),
            None => process,
        });
        Ok(self.roles.len() - 1)
    }

    /// All processes, in the order in which they were started.
    pub fn roles(&mut self) -> &mut Vec<MeanwhileProcess> {
        &mut self.roles
    }

    /// The first process of a role.
    ///
    /// # Panics
    /// When there is none.
    pub fn role(&mut self, role: Role) -> &mut MeanwhileProcess {
        let found = self.roles.iter_mut().find(|process| process.role() == role);
        found.unwrap_or_else(|| panic!("no process of role {}", role.as_str()))
    }

    /// The private broker.
    ///
    /// # Panics
    /// When the broker is shared.
    pub fn kafka(&mut self) -> &mut Kafka {
        self.kafka.as_mut().expect("private_kafka() was asked for")
    }

    /// The private Postgres.
    ///
    /// # Panics
    /// When the cluster is shared.
    pub fn postgres(&mut self) -> &mut Postgres {
        self.postgres.as_mut().expect("private_postgres() was asked for")
    }

    /// The private registry.
    ///
    /// # Panics
    /// When the registry is shared.
    pub fn registry(&mut self) -> &mut Registry {
        self.registry.as_mut().expect("private_registry() was asked for")
    }

    /// The line from a role's processes to a server.
    ///
    /// # Panics
    /// When there are no lines.
    pub fn line(&self, role: Role, server: Server) -> &Line {
        self.lines.get(role, server).expect("lines() was asked for")
    }

    /// `bootstrap.servers`.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The registry's URL.
    pub fn registry_url(&self) -> &str {
        &self.registry_url
    }

    /// The database, as its superuser.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// The topics' names.
    pub fn topics(&self) -> Topics {
        Topics::new(self.prefix.as_str())
    }

    /// Settings for a test's own clients.
    pub fn settings(&self) -> bus::Settings {
        settings(&self.brokers, &self.registry_url)
    }

    /// Settings for a client of the test's own that logs in as this role, or as `migrate`.
    ///
    /// # Panics
    /// When Kafka is not guarded.
    pub fn settings_as(&self, role: &str) -> bus::Settings {
        let kafka = self.guard.as_ref().expect("guarded_kafka() was asked for");
        let (brokers, properties) = kafka.login(Login::Scram512, &guard::user(role)).expect("a login by password");
        bus::Settings { brokers, properties: properties.into_iter().collect(), ..self.settings() }
    }

    /// The root of the API: the first ingest.
    ///
    /// # Panics
    /// When there is no ingest.
    pub fn api(&self) -> String {
        let ingest = self.roles.iter().find(|process| process.role() == Role::Ingest);
        ingest.map(MeanwhileProcess::url).expect("a process of role ingest")
    }

    /// A caller of the first ingest.
    ///
    /// # Panics
    /// When there is no ingest.
    pub fn client(&self) -> Client {
        self.client.at(&self.api())
    }

    /// Submits a job as a patient client does: again with the same idempotency key until it is accepted.
    pub async fn submit(&mut self, flow: &str, idempotency_key: &str, input: &Value) -> Result<JobId> {
        let job = submit(&self.client(), flow, idempotency_key, input).await?;
        self.accepted.insert(job);
        Ok(job)
    }

    /// Notes jobs that were accepted elsewhere; [`TestSystem::finish`] holds them to the invariant too.
    pub fn note_accepted(&mut self, jobs: impl IntoIterator<Item = JobId>) {
        self.accepted.extend(jobs);
    }

    /// Forgets accepted jobs that are gone with a server; returns their count.
    pub fn forget_accepted(&mut self, is_gone: impl Fn(&JobId) -> bool) -> usize {
        let before = self.accepted.len();
        self.accepted.retain(|job| !is_gone(job));
        before - self.accepted.len()
    }

    /// Holds these jobs to nothing any more: somebody was told that they may be in two places.
    pub fn except(&mut self, jobs: impl IntoIterator<Item = JobId>) {
        self.excepted.extend(jobs);
        self.accepted.retain(|job| !self.excepted.contains(job));
    }

    /// Runs a command of the binary to its end, with this system's settings and as the database's superuser; returns
    /// its standard output.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        meanwhile(arguments, &self.variables_with(&self.database_url)).await
    }

    /// Tells how many records on token topics and events the test itself made unreadable.
    pub fn expect_unreadable(&mut self, records: usize) {
        self.unreadable_expected = records;
    }

    /// The status body of a job.
    pub async fn status(&self, job: JobId) -> Result<Value> {
        Ok(self.client().status_document(&job.to_string()).await?)
    }

    /// Waits until each of these jobs has a final event on Kafka; returns them.
    pub async fn wait_until_ended(
        &self,
        jobs: impl IntoIterator<Item = JobId>,
        within: Duration,
    ) -> Result<BTreeMap<JobId, JobEvent>> {
        let mut missing: BTreeSet<JobId> = jobs.into_iter().collect();
        let mut ends = BTreeMap::new();
        let read = async {
            let reader = Reader::new(RegistryClient::new(&self.registry_url, None).context("the registry's URL")?);
            let (mut records, mut tail) = Table::load(&self.settings(), &self.topics().events()).await?;
            loop {
                for record in records {
                    // A record that is no event becomes a dead letter; other tests look at those.
                    let Ok(event) = reader.read(record.value.as_deref(), decode_event).await else { continue };
                    if event.status.is_final() && missing.remove(&event.job) {
                        ends.insert(event.job, event);
                    }
                }
                if missing.is_empty() {
                    return anyhow::Ok(());
                }
                records = tail.next().await.context("the events' tail has ended")?;
            }
        };
        match tokio::time::timeout(within, read).await {
            Ok(outcome) => outcome?,
            Err(_) => bail!("{} jobs have not ended within {within:?}: {}", missing.len(), self.stuck(&missing).await),
        }
        Ok(ends)
    }

    /// The status of the first of some jobs that do not end.
    async fn stuck(&self, jobs: &BTreeSet<JobId>) -> String {
        let Some(job) = jobs.first() else { return String::new() };
        match self.status(*job).await {
            Ok(status) => format!("the first: {status}"),
            Err(error) => format!("the first: {job} ({error:#})"),
        }
    }

    /// Waits until every accepted job has ended, asks the roles to leave, and holds what must always hold: they leave
    /// cleanly, and the topics, read back, show one token per job. Returns what the topics show.
    ///
    /// # Panics
    /// When a token is not in one place.
    pub async fn finish(mut self, within: Duration) -> Result<Tokens> {
        self.finished = true;
        self.wait_until_ended(self.accepted.clone(), within).await?;
        self.finish_as_it_is().await
    }

    /// As [`TestSystem::finish`], for a test that parks jobs: it does not wait for their end.
    ///
    /// # Panics
    /// When a token is not in one place.
    pub async fn finish_as_it_is(mut self) -> Result<Tokens> {
        self.finished = true;
        let mut roles = std::mem::take(&mut self.roles);
        roles.retain_mut(|process| process.process().is_alive());
        for process in &mut roles {
            let status = process.terminate(PATIENCE).await?;
            if !status.success() {
                let tail = process.process().log_tail();
                bail!("{} left with {status}; its log ends:\n{tail}", process.role().as_str());
            }
        }
        let mut tokens = Tokens::read_back(&self.brokers, &self.registry_url, &self.prefix).await?;
        topics::forget(&self.settings(), &self.prefix);
        let unreadable: Vec<_> = std::mem::take(&mut tokens.unreadable).into_values().collect();
        let expected = unreadable.len() == self.unreadable_expected;
        assert!(expected, "unreadable, where {} should be: {unreadable:#?}", self.unreadable_expected);
        tokens.forget(&self.excepted);
        tokens.assert_one_token(self.accepted.iter().copied());
        // A record that became a dead letter may have been a token, unless it was a command.
        if tokens.dead_letters == tokens.dead_commands {
            tokens.assert_none_stuck();
        }
        Ok(tokens)
    }
}

impl Drop for TestSystem {
    fn drop(&mut self) {
        assert!(self.finished || std::thread::panicking(), "a TestSystem was dropped without finish()");
    }
}
