//! Statistics of flows.

use serde::Deserialize;
use serde_json::Value;

use crate::{Client, Error};

/// How many jobs of a flow ended how in a time, and how long they took. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct FlowStats {
    pub flow: String,
    pub since: String,
    pub until: String,
    pub jobs: JobCounts,
    /// In the flow's order.
    pub steps: Vec<StepCounts>,
}

/// The jobs of a flow.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct JobCounts {
    pub accepted: u64,
    pub accepted_per_s: f64,
    pub ended: u64,
    pub ended_per_s: f64,
    pub succeeded: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub duration_ms: Option<Durations>,
}

/// A step of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct StepCounts {
    pub id: String,
    pub succeeded: u64,
    pub skipped: u64,
    pub failed: u64,
    pub duration_ms: Option<Durations>,
}

/// How long those took that succeeded, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct Durations {
    pub mean: u64,
    pub p50: u64,
    pub p95: u64,
    pub p99: u64,
}

impl Client {
    /// The statistics of a flow over a time up to now, such as `15m`; an hour where it is none.
    ///
    /// # Errors
    /// [`Error::Problem`] when there is no such flow, or when the database does not answer.
    pub async fn flow_stats(&self, flow: &str, window: Option<&str>) -> Result<FlowStats, Error> {
        self.get(&path(flow, window)).await
    }

    /// The same as the API sent it.
    ///
    /// # Errors
    /// As [`Client::flow_stats`].
    pub async fn flow_stats_document(&self, flow: &str, window: Option<&str>) -> Result<Value, Error> {
        self.get(&path(flow, window)).await
    }
}

fn path(flow: &str, window: Option<&str>) -> String {
    let query = window.map(|window| format!("?window={window}")).unwrap_or_default();
    format!("/v1/flows/{flow}/stats{query}")
}
