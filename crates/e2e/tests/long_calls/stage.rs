//! The system, the service that its steps call, and what must hold when a test is done with them.

use events::headers::Headers;
use std::path::PathBuf;
use std::time::Duration;

use bus::{Producer, Record};
use flow::definition::Definition;
use flow::id::JobId;
use serde_json::{Value, json};
use test_kit::{Role, TestSystem, TestSystemBuilder, Tokens};
use tokio::task::JoinSet;

use crate::called::Called;
use crate::watch::Watch;

/// Only ends a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// Submits that are under way at once.
const SUBMITS_AT_ONCE: usize = 32;
/// Commands that are sent at once.
const COMMANDS_AT_ONCE: usize = 2_000;

fn flows() -> PathBuf {
    test_kit::repository().join("crates/e2e/tests/long_calls/flows")
}

/// A running system.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) system: TestSystem,
    pub(crate) called: Called,
    pub(crate) watch: Watch,
    /// For what goes in through Kafka: connecting takes half a second.
    producer: Producer,
}

impl Stage {
    /// One process of each role, on shared servers. A call counts as long after 300 ms, a worker as lost after 3 s.
    pub(crate) async fn start_with(configure: impl FnOnce(TestSystemBuilder) -> TestSystemBuilder) -> Self {
        Self::start_as_it_is(|builder| {
            configure(
                builder
                    .variable("MEANWHILE__WORKERS__DETACH_AFTER_MS", "300")
                    .variable("MEANWHILE__WORKERS__LEASE_MS", "3000")
                    .variable("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "4000"),
            )
        })
        .await
    }

    /// The same with the settings that the binary has.
    pub(crate) async fn start_as_it_is(configure: impl FnOnce(TestSystemBuilder) -> TestSystemBuilder) -> Self {
        let called = Called::start().await;
        let builder = TestSystem::builder().flows(flows()).variable("CALLED_URL", called.url());
        let system = configure(builder).start().await.unwrap();
        let watch = Watch::start(&system).await;
        let producer = Producer::new(&system.settings()).unwrap();
        Self { system, called, watch, producer }
    }

    /// A flow as it was applied.
    pub(crate) fn definition(&self, flow: &str) -> Definition {
        let folder = flows();
        let yaml = std::fs::read_to_string(folder.join(format!("{flow}.yaml"))).unwrap();
        let mut referred = |name: &str| {
            let text = std::fs::read_to_string(folder.join(name)).map_err(|error| error.to_string())?;
            serde_json::from_str(&text).map_err(|error| error.to_string())
        };
        let definition = Definition::parse_yaml(flow, &yaml, &mut referred);
        definition.unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    /// Submits so many jobs of flow `call`, each under a key of its own.
    pub(crate) async fn call(&mut self, path: &str, jobs: usize) -> Vec<JobId> {
        let client = self.system.client();
        let (mut submits, mut submitted) = (JoinSet::new(), Vec::with_capacity(jobs));
        for _ in 0..jobs {
            let (client, key) = (client.clone(), uuid::Uuid::now_v7().to_string());
            let input = json!({ "key": key, "path": path });
            submits.spawn(async move { test_kit::submit(&client, "call", &key, &input).await.unwrap() });
            if submits.len() >= SUBMITS_AT_ONCE {
                submitted.extend(submits.join_next().await.transpose().unwrap());
            }
        }
        submitted.extend(submits.join_all().await);
        self.system.note_accepted(submitted.iter().copied());
        submitted
    }

    /// Submits a job of flow `call`.
    pub(crate) async fn call_as(&mut self, key: &str, path: &str) -> JobId {
        self.submit("call", key, path).await
    }

    /// Submits a job.
    pub(crate) async fn submit(&mut self, flow: &str, key: &str, path: &str) -> JobId {
        let again = uuid::Uuid::now_v7().to_string();
        self.system.submit(flow, &again, &json!({ "key": key, "path": path })).await.unwrap()
    }

    /// Submits a job of flow `call` for each key, through Kafka, whose call is answered at once.
    pub(crate) async fn quick(&self, keys: impl Iterator<Item = String>) {
        let topic = self.system.topics().commands();
        let mut sends = JoinSet::new();
        for key in keys {
            let command = json!({ "flow": "call", "input": { "key": key, "path": "quick" } });
            let value = Some(command.to_string().into_bytes());
            let record =
                Record { topic: topic.clone(), key: Some(key.into_bytes()), value, headers: Headers::default() };
            let producer = self.producer.clone();
            sends.spawn(async move { producer.send(&record).await.map(drop) });
            if sends.len() >= COMMANDS_AT_ONCE {
                sends.join_next().await.unwrap().unwrap().unwrap();
            }
        }
        while let Some(sent) = sends.join_next().await {
            sent.unwrap().unwrap();
        }
    }

    /// One more worker, ready; its place among the roles.
    pub(crate) async fn add_worker(&mut self) -> usize {
        let place = self.system.add(Role::Workers).await.unwrap();
        self.system.roles()[place].wait_until_ready().await.unwrap();
        place
    }

    /// The status body of a job.
    pub(crate) async fn status(&self, job: JobId) -> Value {
        self.system.status(job).await.unwrap()
    }

    /// Waits until every accepted job has ended, stops the roles, and holds that there is one token per job.
    pub(crate) async fn finish(self) -> (Tokens, Called) {
        self.finish_within(PATIENCE).await
    }

    /// The same where there is much to read back.
    pub(crate) async fn finish_within(self, patience: Duration) -> (Tokens, Called) {
        let Self { system, called, .. } = self;
        (system.finish(patience).await.unwrap(), called)
    }
}
