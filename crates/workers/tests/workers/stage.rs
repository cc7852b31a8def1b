//! What every test here stands on: topics of its own, one flow, jobs, and workers in this process or beside it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use bus::admin::Admin;
use bus::{Producer, Reader, Record, Registry, Table};
use events::flow_document::FlowDocument;
use events::topic::Topics;
use events::trace::{Trace, TraceContext, TraceId};
use events::{WriterIds, decode_event, event_record, flow_record, slip_record};
use flow::decide::{NewJob, Next, start};
use flow::definition::Definition;
use flow::event::JobEvent;
use flow::id::JobId;
use flow::slip::Slip;
use serde_json::Value;
use service_kit::config::DocumentSettings;
use service_kit::{CancellationToken, Clock, Ids, Readiness};
use test_kit::{Launch, Process, Tokens, assert_one_token, eventually};
use tokio::task::JoinHandle;
use workers::config::Config;
use workers::{Settings, Workers};

/// Only ends a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A flow of one native step.
pub(crate) const ONE_STEP: &str = r#"
flow: one
key: "k"
steps:
  - { id: one, native: nothing }
"#;

/// Workers that have the step of [`ONE_STEP`].
pub(crate) fn workers_of_one_step() -> Workers {
    Workers::builder().native("nothing", async |_| Ok(serde_json::json!({}))).build()
}

pub(crate) struct Stage {
    pub(crate) bus: bus::Settings,
    pub(crate) topics: Topics,
    pub(crate) definition: Definition,
    pub(crate) writers: WriterIds,
    pub(crate) producer: Producer,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) documents: DocumentSettings,
    jobs: Mutex<BTreeSet<JobId>>,
}

/// Workers that run in this process.
pub(crate) struct Running {
    pub(crate) readiness: Readiness,
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        let left = tokio::time::timeout(PATIENCE, self.task).await.expect("workers leave");
        left.expect("workers do not panic").expect("workers leave well");
    }
}

impl Stage {
    pub(crate) async fn new(flow: &str) -> Self {
        let (brokers, registry) = (test_kit::kafka().await, test_kit::registry().await);
        Self::on(brokers, registry, flow).await
    }

    pub(crate) async fn on(brokers: String, registry_url: String, flow: &str) -> Self {
        let bus = bus::Settings::new(brokers, registry_url);
        let topics = Topics::new(test_kit::prefix());
        let definition = Definition::parse_yaml("test.yaml", flow, &mut |_| Err("no references".to_owned()));
        let definition = definition.unwrap_or_else(|problems| panic!("{problems:?}"));
        let queues = definition.queues().into_iter().map(ToOwned::to_owned).collect();
        let admin = Admin::new(&bus).unwrap();
        // A busy broker may not answer in time: what is asked for here may be asked for again.
        eventually(PATIENCE, "topics", async || admin.create_topics(&topics, &queues, None).await.ok()).await;
        let steps: Vec<String> = queues.iter().map(|queue| topics.steps(queue)).collect();
        let group = topics.workers_group();
        eventually(PATIENCE, "offsets", async || admin.commit_initial_offsets(&group, &steps).await.ok()).await;
        let reader = Reader::new(Registry::new(&bus.registry_url, None).unwrap());
        let writers = eventually(PATIENCE, "schemas", async || reader.writer_ids(&topics).await.ok()).await;
        let producer = Producer::new(&bus).unwrap();
        let (env, documents, jobs) = (Vec::new(), DocumentSettings::default(), Mutex::default());
        let stage = Self { bus, topics, definition, writers, producer, env, documents, jobs };
        stage.publish(&stage.definition).await;
        stage
    }

    /// Puts a flow's document on the flows topic.
    pub(crate) async fn publish(&self, definition: &Definition) {
        let document = FlowDocument {
            flow: definition.name().to_owned(),
            version: definition.version().to_owned(),
            revision: 1,
            document: definition.document().clone(),
        };
        self.send(flow_record(&self.topics, &document, &trace())).await;
    }

    pub(crate) async fn send(&self, record: Record) {
        self.producer.send(&record).await.unwrap();
    }

    /// A record of `waits`; none where it is not one of ours.
    pub(crate) fn decode_wait(&self, record: &events::Inbound) -> Option<events::wait::Wait> {
        let schemas = events::Schemas::new();
        schemas.insert_writers(&self.writers);
        events::decode_wait(&schemas, record.value.as_deref()?).ok()
    }

    /// What the ingest and the relay do for a job: its acceptance and its first slip.
    pub(crate) async fn submit(&self, input: Value) -> JobId {
        let (slip, queue, events) = self.accept(input);
        let job = slip.job;
        for event in events {
            self.send(event_record(&self.topics, &self.writers, &event, &trace()).unwrap()).await;
        }
        self.send(slip_record(&self.topics, &self.writers, &queue, &slip, &trace()).unwrap()).await;
        job
    }

    pub(crate) fn accept(&self, input: Value) -> (Slip, String, Vec<JobEvent>) {
        let (ids, now_ms) = (Ids::system(), Clock::system().now_ms());
        let job = JobId::new(ids.uuid_v7(now_ms));
        self.jobs.lock().unwrap().insert(job);
        let key = self.definition.ordering_key(&input, &job.to_string()).unwrap();
        let (tenant, correlation_id) = ("default".to_owned(), format!("correlation of {job}"));
        let new = NewJob { job, tenant, key, input, correlation_id, priority: 1, retry_of: None };
        let decision = start(&self.definition, new, now_ms);
        let Next::Step { slip, queue } = decision.next else { panic!("a first step") };
        (slip, queue, decision.events)
    }

    pub(crate) fn settings(&self, instance: &str) -> Settings {
        // Topics are read back at the end: nothing may be trimmed.
        let config = Config { trim_interval_ms: 0, session_timeout_ms: 6_000, ..Config::default() };
        Settings {
            bus: self.bus.clone(),
            topics: self.topics.clone(),
            instance: instance.to_owned(),
            env: flow::decide::Env::of_process(self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
            documents: self.documents.clone(),
            config,
        }
    }

    pub(crate) fn work(&self, instance: &str, workers: Workers) -> Running {
        self.work_with(self.settings(instance), workers)
    }

    pub(crate) fn work_with(&self, settings: Settings, workers: Workers) -> Running {
        let (process, shutdown) = (process::Process::system("workers"), CancellationToken::new());
        let readiness = process.readiness.clone();
        let task = tokio::spawn(workers.run(settings, process, shutdown.clone()));
        Running { readiness, shutdown, task }
    }

    /// A worker in a process of its own, which may be killed; `more` is added to its environment.
    pub(crate) fn process(&self, instance: &str, more: &[(&str, &str)]) -> Process {
        let test = std::env::current_exe().unwrap();
        let mut launch = Launch::new("worker", test)
            .args(["--ignored", "--exact", "--nocapture", "stage::a_worker_of_its_own"])
            .env("KAFKA_BROKERS", self.bus.brokers.clone())
            .env("SCHEMA_REGISTRY_URL", self.bus.registry_url.clone())
            .env("MEANWHILE__TOPICS__PREFIX", self.topics.prefix())
            .env("MEANWHILE__WORKERS__TRIM_INTERVAL_MS", "0")
            .env("MEANWHILE_INSTANCE", instance)
            .env("MEANWHILE_LISTEN", "127.0.0.1:0");
        for (name, value) in &self.env {
            launch = launch.env(name, value);
        }
        for (name, value) in more {
            launch = launch.env(name, value);
        }
        Process::start(launch).unwrap()
    }

    /// Waits until every job has ended; the final events.
    pub(crate) async fn ends(&self) -> Vec<JobEvent> {
        let reader = Reader::new(Registry::new(&self.bus.registry_url, None).unwrap());
        let (mut records, mut tail) = Table::load(&self.bus, &self.topics.events()).await.unwrap();
        let (mut ends, mut missing) = (Vec::new(), self.jobs.lock().unwrap().clone());
        let read = async {
            loop {
                for record in records {
                    let event = reader.read(record.value.as_deref(), decode_event).await.unwrap();
                    if event.status.is_final() && missing.remove(&event.job) {
                        ends.push(event);
                    }
                }
                if missing.is_empty() {
                    return;
                }
                records = tail.next().await.expect("the events' tail goes on");
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, read).await;
        assert!(in_time.is_ok(), "{} jobs did not end: {missing:?}", missing.len());
        ends
    }

    /// Reads everything back and holds the one-token invariant.
    pub(crate) async fn tokens(&self) -> Tokens {
        let (bus, jobs) = (&self.bus, self.jobs.lock().unwrap().clone());
        assert_one_token(&bus.brokers, &bus.registry_url, self.topics.prefix(), jobs).await
    }
}

pub(crate) fn trace() -> Trace {
    Trace::new(TraceContext { trace_id: TraceId::new(0xabc), span_id: 0xdef, flags: 1 })
}

#[test]
#[ignore = "a worker process that other tests start and kill"]
fn a_worker_of_its_own() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(Workers::builder().build().serve()).unwrap();
}
