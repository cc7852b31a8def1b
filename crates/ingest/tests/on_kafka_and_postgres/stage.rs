//! The ground of every test here: two flows, and an ingest in this process, called over HTTP.

use std::time::Duration;

use axum::http::{HeaderMap, Method};
use events::trace::Trace;
use events::{Record, decode_event};
use flow::callback::Secrets;
use flow::decide::Env;
use flow::event::JobEvent;
use ingest::Settings;
use ingest::config::{Config, DEFAULT, SECTION};
use outbound::Allowed;
use process::{Door, Process};
use serde_json::Value;
use service_kit::config::{AuthSettings, DocumentSettings, Sources, load};
use service_kit::telemetry::Metrics;
use service_kit::{CancellationToken, Readiness, health};
use test_kit::{Ground, eventually, http_client};
use tokio::task::JoinHandle;

use crate::described;

/// Only ends a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// Where the API says it is.
pub(crate) const PUBLIC_URL: &str = "https://api.example.com/jobs-api";
/// Its path, which a proxy has taken away from requests.
pub(crate) const PREFIX: &str = "/jobs-api";
/// A caller's trace.
pub(crate) const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// An input that `order` takes.
pub(crate) const INPUT: &str = r#"{"customer_id":"c-1","qty":2}"#;

const ORDER: &str = r#"
flow: order
route: POST /orders
key: "{{ input.customer_id }}"
input:
  type: object
  required: [customer_id, qty]
  properties:
    customer_id: { type: string }
    qty: { type: integer, minimum: 1 }
    note: { type: string }
steps:
  - { id: reserve, http: { method: POST, url: "{{ env.SHOP_URL }}/reservations", expose: true } }
  - { id: charge, native: charge }
"#;

const PLAIN: &str = r#"
flow: plain
steps:
  - { id: one, native: one }
"#;

/// Topics, tables, two flows, and an ingest that has read them.
pub(crate) struct Stage {
    pub(crate) ground: Ground,
    pub(crate) ingest: Ingest,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let ground = ground().await;
        let ingest = Ingest::start(&ground, change).await;
        ingest.ready().await;
        Self { ground, ingest }
    }

    pub(crate) fn jobs_stored(&self) -> usize {
        jobs_stored(&self.ground)
    }
}

pub(crate) fn jobs_stored(ground: &Ground) -> usize {
    ground.sql("select count(*) from ingest.acceptances").parse().unwrap()
}

pub(crate) async fn ground() -> Ground {
    let ground = Ground::new().await;
    apply_flows(&ground).await;
    ground
}

pub(crate) async fn apply_flows(ground: &Ground) {
    ground.apply(ORDER).await;
    ground.apply(PLAIN).await;
}

/// The acceptance of a job, as it will be on the events topic.
pub(crate) async fn accepted_event(ground: &Ground, job: &str) -> JobEvent {
    let records = ground.outbox(&ground.topics.events());
    let of_job = |record: &&Record| record.key.as_deref() == Some(job.as_bytes());
    let record = records.iter().find(of_job).unwrap();
    ground.reader.read(record.value.as_deref(), decode_event).await.unwrap()
}

pub(crate) fn trace_of(record: &Record) -> Trace {
    Trace::from_headers(&record.headers).unwrap()
}

/// The secrets of the tests' callbacks.
pub(crate) fn callback_secrets() -> Secrets {
    Secrets::new(vec!["a-secret-of-thirty-two-bytes-ok!".to_owned()]).unwrap()
}

/// An ingest in this process.
pub(crate) struct Ingest {
    pub(crate) api: Api,
    pub(crate) address: String,
    readiness: Readiness,
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Ingest {
    pub(crate) async fn start(ground: &Ground, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(ground, Vec::new(), change).await
    }

    /// With these variables, and `MEANWHILE_SECRET_*`, for flows.
    pub(crate) async fn start_in(
        ground: &Ground,
        env: Vec<(String, String)>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config: Config = load(SECTION, DEFAULT, &Sources::default()).unwrap();
        config.leave_after_ms = 0;
        change(&mut config);
        Self::start_for(ground, env, config, AuthSettings::default()).await
    }

    /// Where callers are asked who they are.
    pub(crate) async fn start_asking(ground: &Ground, auth: AuthSettings) -> Self {
        Self::start_asking_in(ground, Vec::new(), auth).await
    }

    /// The same with other settings.
    pub(crate) async fn start_asking_with(
        ground: &Ground,
        auth: AuthSettings,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config: Config = load(SECTION, DEFAULT, &Sources::default()).unwrap();
        config.leave_after_ms = 0;
        change(&mut config);
        Self::start_for(ground, Vec::new(), config, auth).await
    }

    pub(crate) async fn start_asking_in(ground: &Ground, env: Vec<(String, String)>, auth: AuthSettings) -> Self {
        let mut config: Config = load(SECTION, DEFAULT, &Sources::default()).unwrap();
        config.leave_after_ms = 0;
        Self::start_for(ground, env, config, auth).await
    }

    async fn start_for(ground: &Ground, env: Vec<(String, String)>, config: Config, auth: AuthSettings) -> Self {
        let settings = Settings {
            bus: ground.bus.clone(),
            topics: ground.topics.clone(),
            database_url: ground.database_url.clone(),
            public_url: web::problem::PublicUrl::new(PUBLIC_URL),
            callback_secrets: callback_secrets(),
            env: Env::of_process(env.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
            allowed: Allowed::default(),
            auth,
            documents: DocumentSettings::default(),
            config,
        };
        let listener = health::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (process, shutdown) = (Process::system("ingest"), CancellationToken::new());
        let readiness = process.readiness.clone();
        let health = health::router(readiness.clone(), Metrics::install().unwrap());
        let task = tokio::spawn(ingest::run(settings, Door { listener, tls: None, health }, process, shutdown.clone()));
        // Its addresses are those behind a proxy: there is nothing to be found where it redirects to.
        drop(http_client());
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let api = Api { url: format!("http://{address}"), client: client.build().unwrap() };
        Self { api, address, readiness, shutdown, task }
    }

    pub(crate) async fn ready(&self) {
        self.readiness.wait_ready().await;
        eventually(PATIENCE, "flows are read", async || {
            let flows = self.api.get("/v1/flows").await;
            (flows.status == 200).then_some(())
        })
        .await;
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        let left = tokio::time::timeout(PATIENCE, self.task).await.expect("the ingest leaves");
        left.expect("the ingest does not panic").expect("the ingest leaves well");
    }
}

/// Asks over HTTP. Holds every answer to what every answer must be.
#[derive(Clone)]
pub(crate) struct Api {
    url: String,
    client: reqwest::Client,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The last part of its problem's type.
    pub(crate) fn problem(&self) -> &str {
        self.json["type"].as_str().and_then(|kind| kind.rsplit('/').next()).unwrap_or_default()
    }

    pub(crate) fn job(&self) -> String {
        assert_eq!(self.status, 202, "{}", self.text);
        self.json["id"].as_str().unwrap().to_owned()
    }
}

impl Api {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(Method::GET, path, headers, "").await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.ask(Method::POST, path, &headers, body).await.unwrap()
    }

    pub(crate) async fn order(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        self.post("/v1/flows/order/jobs", headers, body).await
    }

    /// The answer's head; its body is read by and by.
    pub(crate) async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let mut request = self.client.get(format!("{}{path}", self.url)).timeout(PATIENCE);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    /// None when the connection broke.
    pub(crate) async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.url)).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.timeout(PATIENCE).send().await.ok()?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.ok()?;
        let answer = Answer { status, headers, json: serde_json::from_str(&text).unwrap_or_default(), text };
        described::hold(&method, path, &answer);
        if status >= 400 {
            hold_to_the_letter(path, &answer);
        }
        Some(answer)
    }
}

/// RFC 9457, and the members that docs/contract.md adds.
fn hold_to_the_letter(path: &str, answer: &Answer) {
    let Answer { status, text, json, .. } = answer;
    assert_eq!(answer.header("content-type"), "application/problem+json", "{path}: {text}");
    assert!(json["type"].as_str().unwrap().starts_with(&format!("{PUBLIC_URL}/problems/")), "{text}");
    assert_eq!(json["status"], *status, "{text}");
    assert_eq!(json["instance"], format!("{PREFIX}{}", path.split('?').next().unwrap()), "{text}");
    assert_eq!(answer.header("cache-control"), "no-store", "{path}");
    assert_eq!(json["trace_id"].as_str().unwrap().len(), 32, "{text}");
    for member in ["title", "detail", "remediation"] {
        assert!(!json[member].as_str().unwrap_or_default().is_empty(), "no {member}: {text}");
    }
}
