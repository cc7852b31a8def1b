//! The system and the shop, and what must agree when a test is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use flow::event::{JobEvent, JobStatus};
use flow::id::JobId;
use serde_json::Value;
use shop::{Outcome, PerService, Shop};
use test_kit::{Line, Role, TestSystem, TestSystemBuilder, Tokens};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Only ends a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// Of each log, when a test fails.
const LOG_LINES_SHOWN: usize = 25;

/// A running system with a shop behind it.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) system: TestSystem,
    pub(crate) shop: Shop,
    _open: DropGuard,
    // Last: the logs are shown when everything has ended.
    logs: Logs,
}

/// The traces of a test: the topics' records and the shop's books.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) tokens: Tokens,
    pub(crate) shop: Shop,
}

impl Stage {
    /// One process of each role, on shared servers.
    pub(crate) async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    pub(crate) async fn start_with(configure: impl FnOnce(TestSystemBuilder) -> TestSystemBuilder) -> Self {
        let shutdown = CancellationToken::new();
        let shop = Shop::start(PerService::any_port(), shutdown.clone()).await.unwrap();
        let urls = shop.urls();
        Self::around(shop, urls, shutdown.drop_guard(), configure).await
    }

    /// Every part has a line of its own to every other: see [`TestSystem::line`]. Returns those to the services.
    pub(crate) async fn start_with_lines(
        configure: impl FnOnce(TestSystemBuilder) -> TestSystemBuilder,
    ) -> (Self, Vec<Line>) {
        let shutdown = CancellationToken::new();
        let shop = Shop::start(PerService::any_port(), shutdown.clone()).await.unwrap();
        let mut urls = shop.urls();
        let mut lines = vec![];
        for url in [&mut urls.inventory, &mut urls.payment, &mut urls.shipping] {
            let (host, port) = url.rsplit_once(':').unwrap();
            let line = Line::to(port.parse().unwrap()).await.unwrap();
            *url = format!("{host}:{}", line.port());
            lines.push(line);
        }
        (Self::around(shop, urls, shutdown.drop_guard(), |builder| configure(builder.lines())).await, lines)
    }

    async fn around(
        shop: Shop,
        urls: PerService<String>,
        open: DropGuard,
        configure: impl FnOnce(TestSystemBuilder) -> TestSystemBuilder,
    ) -> Self {
        let builder = TestSystem::builder()
            .flows(test_kit::repository().join("flows"))
            .flows(test_kit::repository().join("crates/e2e/flows"))
            .variable("INVENTORY_URL", urls.inventory)
            .variable("PAYMENT_URL", urls.payment)
            .variable("SHIPPING_URL", urls.shipping);
        let mut system = configure(builder).start().await.unwrap();
        let logs = Logs::of(&mut system);
        Self { system, shop, _open: open, logs }
    }

    /// Submits a job under an idempotency key of its own.
    pub(crate) async fn submit(&mut self, flow: &str, input: &Value) -> JobId {
        let key = uuid::Uuid::now_v7().to_string();
        self.system.submit(flow, &key, input).await.unwrap()
    }

    /// The final event of a job.
    pub(crate) async fn end_of(&self, job: JobId) -> JobEvent {
        let mut ends = self.ends_of([job]).await;
        ends.remove(&job).expect("wait_until_ended returns every job that it was asked for")
    }

    /// The status document of a job that has ended. Its final event stands on Kafka before ingest has projected it.
    pub(crate) async fn status_at_end(&self, job: JobId) -> Value {
        self.end_of(job).await;
        test_kit::eventually(PATIENCE, "the status document is final", async || {
            let status = self.system.status(job).await.unwrap();
            ["succeeded", "failed"].iter().any(|end| status["status"] == *end).then_some(status)
        })
        .await
    }

    /// The final events of these jobs.
    pub(crate) async fn ends_of(&self, jobs: impl IntoIterator<Item = JobId>) -> BTreeMap<JobId, JobEvent> {
        self.system.wait_until_ended(jobs, PATIENCE).await.unwrap()
    }

    /// One more process of a role, whose log is shown too when the test fails.
    pub(crate) async fn add(&mut self, role: Role) -> usize {
        let place = self.system.add(role).await.unwrap();
        self.logs = Logs::of(&mut self.system);
        place
    }

    /// The same with another build of the program.
    pub(crate) fn add_program(&mut self, program: PathBuf, role: Role) {
        self.system.add_program(program, role).unwrap();
        self.logs = Logs::of(&mut self.system);
    }

    /// Waits until every accepted job has ended, stops the roles, and holds what must always hold: one token per job,
    /// and the shop's money and stock agree with how the jobs ended.
    pub(crate) async fn finish(self) -> Left {
        let Self { mut system, shop, logs, .. } = self;
        for process in system.roles() {
            let alive = process.process().is_alive();
            assert!(alive, "{} has ended by itself: {}", process.role().as_str(), process.process().log_tail());
        }
        let tokens = system.finish(PATIENCE).await.unwrap();
        let left = Left { tokens, shop };
        left.audit();
        drop(logs);
        left
    }
}

impl Stage {
    /// The same where these jobs may be in two places, or have gone: the shop's books hold what they did.
    pub(crate) async fn finish_but_for(self, jobs: &BTreeSet<JobId>) -> Tokens {
        let Self { mut system, shop: _shop, logs, .. } = self;
        system.except(jobs.iter().copied());
        let tokens = system.finish(PATIENCE).await.unwrap();
        drop(logs);
        tokens
    }
}

impl Left {
    fn audit(&self) {
        let outcomes: Vec<Outcome> = self
            .tokens
            .ends()
            .into_iter()
            .map(|(job, end)| Outcome { order: job.to_string(), succeeded: end.status == JobStatus::Succeeded })
            .collect();
        shop::audit(&self.shop.states(), &outcomes).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The number of jobs that ended like this.
    pub(crate) fn count(&self, status: JobStatus) -> usize {
        self.tokens.ends().values().filter(|end| end.status == status).count()
    }
}

/// Shows the ends of all logs when a test fails.
#[derive(Debug)]
struct Logs(Vec<PathBuf>);

impl Logs {
    fn of(system: &mut TestSystem) -> Self {
        Self(system.roles().iter_mut().map(|process| process.process().log().to_owned()).collect())
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for log in &self.0 {
            let text = fs::read(log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
            eprintln!("--- the end of {}\n{last}", log.display());
        }
    }
}
