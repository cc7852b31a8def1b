//! An orchestrator in this process, and waiting for what it writes.

use std::time::Duration;

use events::{Inbound, Record};
use flow::id::JobId;
use orchestrator::Settings;
use orchestrator::config::{Config, DEFAULT, SECTION};
use process::Process;
use service_kit::config::{Sources, load};
use service_kit::{CancellationToken, Readiness};
use test_kit::{Ground, eventually};
use tokio::task::JoinHandle;

/// Only ends a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) struct Running {
    pub(crate) readiness: Readiness,
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

pub(crate) fn start(ground: &Ground) -> Running {
    start_with(ground, |_| {})
}

pub(crate) fn start_with(ground: &Ground, change: impl FnOnce(&mut Config)) -> Running {
    let mut config: Config = load(SECTION, DEFAULT, &Sources::default()).unwrap();
    change(&mut config);
    let settings = Settings {
        bus: ground.bus.clone(),
        topics: ground.topics.clone(),
        database_url: ground.database_url.clone(),
        config,
    };
    let (process, shutdown) = (Process::system("orchestrator"), CancellationToken::new());
    let readiness = process.readiness.clone();
    let task = tokio::spawn(orchestrator::run(settings, process, shutdown.clone()));
    Running { readiness, shutdown, task }
}

/// One that is given every partition whoever else has it: a zombie that has not heard of its revocation.
pub(crate) fn start_zombie(ground: &mut Ground) -> Running {
    start_zombie_with(ground, |_| {})
}

pub(crate) fn start_zombie_with(ground: &mut Ground, change: impl FnOnce(&mut Config)) -> Running {
    ground.bus.properties.insert("group.id".to_owned(), format!("{}-zombie", ground.topics.prefix()));
    let zombie = start_with(ground, change);
    ground.bus.properties.clear();
    zombie
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        let left = tokio::time::timeout(PATIENCE, self.task).await.expect("the orchestrator leaves");
        left.expect("the orchestrator does not panic").expect("the orchestrator leaves well");
    }

    pub(crate) async fn until_missing(&self, dependency: &str) {
        eventually(PATIENCE, dependency, async || {
            let dependencies = self.readiness.dependencies();
            dependencies.iter().any(|found| found.name == dependency && !found.ok).then_some(())
        })
        .await;
    }
}

/// Waits until this SQL prints this.
pub(crate) async fn until(ground: &Ground, sql: &str, wanted: &str) {
    let mut last = String::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        last = ground.sql(sql);
        if last == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("`{sql}` gives {last}, not {wanted}");
}

/// Waits until so many records of these topics are taken in, all in all.
pub(crate) async fn until_taken_in(ground: &Ground, topic: &str, records: usize) {
    let sql = format!("select coalesce(sum(next_offset), 0) from orchestrator.offsets where topic = '{topic}'");
    until(ground, &sql, &records.to_string()).await;
}

/// A job's row: status, cursor, and the kinds of its history in order.
pub(crate) async fn stored(ground: &Ground, job: JobId) -> (String, i64, Vec<String>) {
    let pool = ground.pool(store::Role::Ingest);
    let stored = store::jobs::get(&pool, "default", job).await.unwrap().expect("the job is stored");
    pool.close().await;
    let projection = stored.projection.expect("the job is projected");
    let kinds = projection.history.iter().map(|entry| entry.event.kind.as_str().to_owned()).collect();
    (projection.summary.status.as_str().to_owned(), projection.summary.cursor, kinds)
}

/// The dead letters in the outbox, as whoever consumes them will see them.
pub(crate) fn refused(ground: &Ground) -> Vec<Inbound> {
    let consumed = |Record { topic, key, value, headers }| Inbound { topic, key, value, headers, ..Inbound::default() };
    ground.outbox(&ground.topics.dead_letters()).into_iter().map(consumed).collect()
}
