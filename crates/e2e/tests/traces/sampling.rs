//! The tail rule of `deploy/otel/collector.yaml`, as it stands there. Jaeger's binary is a collector too.

use std::time::Duration;

use flow::event::JobStatus;
use serde_json::json;
use test_kit::{Launch, Port, Process, http_client, repository};

use crate::jaeger::{jaeger, program};
use crate::stage::{PATIENCE, Stage};

const READY_WITHIN: Duration = Duration::from_secs(60);
/// Orders that go well: one in twenty is kept.
const ORDERS: usize = 40;

async fn collector(jaeger_otlp: &str) -> (Process, String) {
    let port = Port::take().unwrap();
    let listen = format!("127.0.0.1:{}", port.number());
    let launch = Launch::new("collector", program())
        .arg("--config")
        .arg(repository().join("deploy/otel/collector.yaml"))
        .env("OTEL_COLLECTOR_LISTEN", listen.as_str())
        .env("JAEGER_OTLP_ENDPOINT", jaeger_otlp)
        .env("OTEL_DECISION_WAIT", "5s");
    let mut process = Process::start(launch).unwrap();
    let traces = format!("http://{listen}/v1/traces");
    // It answers a GET with 405, once it is there.
    let answers = async || http_client().get(&traces).send().await.is_ok();
    process.wait_until(READY_WITHIN, "the collector answers", answers).await.unwrap();
    (process, format!("http://{listen}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Jaeger: make test-traces"]
async fn the_collector_keeps_what_failed_whole_and_little_of_the_rest() {
    let jaeger = jaeger().await;
    let (_collector, endpoint) = collector(&jaeger.otlp()).await;
    let mut stage = Stage::start(&endpoint).await;
    let mut well = vec![];
    for _ in 0..ORDERS {
        well.push(stage.order(json!({}), None).await);
    }
    let declined = stage.order(json!({ "payment": "declined" }), None).await;
    assert_eq!(stage.end_of(declined.job).await, JobStatus::Failed);
    for traced in &well {
        assert_eq!(stage.end_of(traced.job).await, JobStatus::Succeeded);
    }
    // Decisions are taken in the order in which traces began: the last one's says that all have been.
    let tree = jaeger.trace_of(&declined.trace_id, 9).await;
    assert_eq!(tree.spans.len(), 9, "{}", tree.drawn());
    let mut kept = 0;
    for traced in &well {
        kept += usize::from(!jaeger.trace(&traced.trace_id).await.spans.is_empty());
    }
    assert!(kept < ORDERS / 2, "{kept} of {ORDERS} that went well were kept");
    stage.system.finish(PATIENCE).await.unwrap();
}
