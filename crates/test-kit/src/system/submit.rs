//! A patient client.

use anyhow::{Context, Result};
use client::Client;
use flow::id::JobId;
use serde_json::Value;

use super::PATIENCE;

/// Submits a job as a patient client does: again with the same idempotency key, through broken connections, 409 (still
/// being accepted), 429 and 5xx, until it is accepted.
pub async fn submit(client: &Client, flow: &str, idempotency_key: &str, input: &Value) -> Result<JobId> {
    let accepted = client.submit_patiently(flow, input.to_string(), idempotency_key, PATIENCE).await;
    accepted.with_context(|| format!("submitting to {flow}"))?.job.parse().context("the id of a job")
}
