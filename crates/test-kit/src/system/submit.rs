//! A patient client.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use flow::id::JobId;
use serde_json::Value;

use super::{AGAIN_AFTER, PATIENCE};

/// Submits a job as a patient client does: again with the same idempotency key, through broken connections, 409 (still
/// being accepted), 429 and 5xx, until it is accepted.
pub async fn submit(
    client: &reqwest::Client,
    api: &str,
    flow: &str,
    idempotency_key: &str,
    input: &Value,
) -> Result<JobId> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = client.post(format!("{api}/v1/flows/{flow}/jobs")).json(input).timeout(PATIENCE);
        let outcome = request.header("idempotency-key", format!("\"{idempotency_key}\"")).send().await;
        let refusal = match outcome {
            Err(error) => error.to_string(),
            Ok(answer) => {
                let status = answer.status();
                let body = answer.text().await.unwrap_or_default();
                if status.as_u16() == 202 {
                    let body: Value = serde_json::from_str(&body).context("the body of a 202")?;
                    return body["id"].as_str().context("a 202 without id")?.parse().context("the id of a 202");
                }
                if !status.is_server_error() && ![409, 429].contains(&status.as_u16()) {
                    bail!("{flow} was refused with {status}: {body}");
                }
                format!("{status}: {body}")
            }
        };
        if Instant::now() > deadline {
            bail!("{flow} was not accepted within {PATIENCE:?}; the last answer: {refusal}");
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
