//! The system with a shop behind it, whose spans go to a collector.

use std::time::Duration;

use flow::event::JobStatus;
use flow::id::JobId;
use serde_json::{Value, json};
use shop::{PerService, Shop};
use test_kit::TestSystem;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Only ends a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A running system.
pub(crate) struct Stage {
    pub(crate) system: TestSystem,
    _shop: Shop,
    _open: DropGuard,
}

/// The input of an order.
pub(crate) fn order(simulate: &Value) -> Value {
    json!({
        "customer_id": "bob", "sku": "lamp", "qty": 2, "amount_cents": 1990, "card": "4242", "address": "1 Main St",
        "simulate": simulate,
    })
}

/// A job that was accepted, and its trace.
pub(crate) struct Traced {
    pub(crate) job: JobId,
    pub(crate) trace_id: String,
}

impl Stage {
    /// One process of each role; `endpoint` takes their spans.
    pub(crate) async fn start(endpoint: &str) -> Self {
        let shutdown = CancellationToken::new();
        let shop = Shop::start(PerService::any_port(), shutdown.clone()).await.unwrap();
        let urls = shop.urls();
        let system = TestSystem::builder()
            .flows(test_kit::repository().join("flows"))
            .flows(test_kit::repository().join("crates/e2e/flows"))
            .variable("INVENTORY_URL", urls.inventory)
            .variable("PAYMENT_URL", urls.payment)
            .variable("SHIPPING_URL", urls.shipping)
            .variable("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .variable("MEANWHILE__INGEST__TRACE_URL", "http://jaeger.example/trace/{trace_id}");
        Self { system: system.start().await.unwrap(), _shop: shop, _open: shutdown.drop_guard() }
    }

    /// Sends an order; `simulate` asks the shop for failures.
    pub(crate) async fn order(&mut self, simulate: Value, traceparent: Option<&str>) -> Traced {
        let order = order(&simulate);
        let mut request = test_kit::http_client().post(format!("{}/orders", self.system.api())).json(&order);
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 202);
        let body: Value = answer.json().await.unwrap();
        let job: JobId = body["id"].as_str().unwrap().parse().unwrap();
        self.system.note_accepted([job]);
        Traced { job, trace_id: body["trace_id"].as_str().unwrap().to_owned() }
    }

    /// Waits for a job's end.
    pub(crate) async fn end_of(&self, job: JobId) -> JobStatus {
        self.system.wait_until_ended([job], PATIENCE).await.unwrap()[&job].status
    }
}
