//! Orders, all the while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use client::Client;
use flow::id::JobId;
use serde_json::{Value, json};
use test_kit::submit;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::compose::{API, KEY};

/// The flow of the orders.
pub(crate) const ORDER: &str = "order";
/// Callers at once; each waits for its answer before it sends the next order.
const CALLERS: u64 = 8;

/// Most orders are fine, every tenth is declined, every tenth is held for a while.
pub(crate) fn order(number: u64) -> Value {
    let simulate = match number % 10 {
        3 => json!({ "payment": "declined" }),
        7 => json!({ "shipping": "busy:1" }),
        _ => json!({ "shipping": format!("slow:{}", number % 7 * 100) }),
    };
    json!({
        "customer_id": format!("c-{}", number % 1_000), "sku": "tea", "qty": 1, "amount_cents": 100, "card": "4242",
        "address": "1 Main Street", "simulate": simulate,
    })
}

/// Callers over HTTP, until they are told to stop.
pub(crate) struct Load {
    callers: JoinSet<Vec<JobId>>,
    stop: CancellationToken,
}

impl Load {
    pub(crate) fn start(orders_per_s: u64) -> Self {
        let (numbers, stop) = (Arc::new(AtomicU64::new(1)), CancellationToken::new());
        let pause = Duration::from_millis(1_000 * CALLERS / orders_per_s);
        let callers = (0..CALLERS).map(|_| call(numbers.clone(), pause, stop.clone())).collect();
        Self { callers, stop }
    }

    /// The jobs that were accepted. A caller stops only after its order was accepted.
    pub(crate) async fn stop(mut self) -> Vec<JobId> {
        self.stop.cancel();
        let mut accepted = vec![];
        while let Some(caller) = self.callers.join_next().await {
            accepted.extend(caller.unwrap());
        }
        accepted
    }
}

async fn call(numbers: Arc<AtomicU64>, pause: Duration, stop: CancellationToken) -> Vec<JobId> {
    let client = Client::with_key(API, KEY).unwrap();
    let mut accepted = vec![];
    while !stop.is_cancelled() {
        let order = order(numbers.fetch_add(1, Ordering::Relaxed));
        let key = uuid::Uuid::now_v7().to_string();
        let job = loop {
            match submit(&client, ORDER, &key, &order).await {
                Ok(job) => break job,
                Err(error) => eprintln!("retrying: {error:#}"),
            }
        };
        accepted.push(job);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    accepted
}
