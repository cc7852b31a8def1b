//! The ground of every test here: a notifier in this process, and endpoints that are registered as ingest does.

use std::time::Duration;

use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::JobId;
use notifier::Settings;
use notifier::config::{Config, DEFAULT, SECTION};
use outbound::Allowed;
use process::Process;
use service_kit::CancellationToken;
use service_kit::config::{Sources, load};
use store::webhooks::{self, Kind, NewEndpoint};
use store::{Pool, Role};
use test_kit::{Answer, Ground, Receiver, Request, eventually, sample_event};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Only ends a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// Where callers reach the API.
pub(crate) const API: &str = "https://api.example.com";
pub(crate) const SECRET: [u8; 32] = [7; 32];

pub(crate) struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

pub(crate) fn start(ground: &Ground) -> Running {
    start_with(ground, |_| {})
}

/// With short pauses, and as many as usual.
pub(crate) fn start_with(ground: &Ground, change: impl FnOnce(&mut Config)) -> Running {
    let mut config: Config = load(SECTION, DEFAULT, &Sources::default()).unwrap();
    config.schedule_s = vec![0; config.schedule_s.len()];
    change(&mut config);
    let settings = Settings {
        bus: ground.bus.clone(),
        topics: ground.topics.clone(),
        database_url: ground.database_url.clone(),
        public_url: API.to_owned(),
        allowed: Allowed::parse(&["127.0.0.0/8".to_owned()], &[]).unwrap(),
        config,
    };
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(notifier::run(settings, Process::system("notifier"), shutdown.clone()));
    Running { shutdown, task }
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        let left = tokio::time::timeout(PATIENCE, self.task).await.expect("the notifier leaves");
        left.expect("the notifier does not panic").expect("the notifier leaves well");
    }
}

/// What ingest registers.
pub(crate) struct Registered {
    pub(crate) pool: Pool,
    pub(crate) id: Uuid,
}

pub(crate) async fn register(ground: &Ground, url: &str, events: &[&str]) -> Registered {
    register_as(ground, "default", (url, events)).await
}

pub(crate) async fn register_as(ground: &Ground, tenant: &str, (url, events): (&str, &[&str])) -> Registered {
    let pool = ground.pool(Role::Ingest);
    let (id, events): (_, Vec<String>) = (Uuid::now_v7(), events.iter().map(|event| (*event).to_owned()).collect());
    let new = NewEndpoint { id, url, description: "", events: &events, rate: None, kind: Kind::Hmac, secret: &SECRET };
    assert!(webhooks::create(&pool, tenant, new, 1_000).await.unwrap());
    Registered { pool, id }
}

/// What ingest stores with a job whose request asks for a webhook. Returns its receiver.
pub(crate) fn ask_for(ground: &Ground, job: JobId, url: &str, events: &str, secret: Option<&[u8]>) -> Uuid {
    let host = url.split('/').nth(2).unwrap();
    let secret = secret.map_or("null".to_owned(), |secret| {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("'\\x{hex}'")
    });
    let sql = format!(
        "insert into ingest.job_webhooks (job, receiver, url, events, secret)
         values ('{job}', md5('{host}')::uuid, '{url}', string_to_array('{events}', ' '), {secret}) returning receiver"
    );
    ground.sql(&sql).lines().next().unwrap().parse().unwrap()
}

/// One column of the endpoint's deliveries, in their order.
pub(crate) fn deliveries(ground: &Ground, endpoint: Uuid, column: &str) -> Vec<String> {
    let sql = format!("select {column} from notifier.deliveries where endpoint = '{endpoint}' order by ordinal");
    ground.sql(&sql).lines().map(str::to_owned).collect()
}

/// Waits until so many deliveries of the endpoint have this status.
pub(crate) async fn until(ground: &Ground, endpoint: Uuid, status: &str, count: usize) {
    eventually(PATIENCE, &format!("{count} deliveries are {status}"), async || {
        let found = deliveries(ground, endpoint, "status");
        (found.iter().filter(|found| *found == status).count() >= count).then_some(())
    })
    .await;
}

pub(crate) fn ended(job: JobId) -> JobEvent {
    sample_event(job, EventKind::JobSucceeded, JobStatus::Succeeded, 1)
}

/// Answers with this status, to all or to those of a path.
pub(crate) fn answers(receiver: &Receiver, status: u16) {
    receiver.answer_with(move |_| Answer::status(status));
}

pub(crate) fn ids(requests: &[Request]) -> Vec<String> {
    requests.iter().map(|request| request.header("webhook-id").to_owned()).collect()
}
