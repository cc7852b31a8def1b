//! `GET /v1/flows/{flow}/stats`: how many jobs of a flow ended how, and how long they and their steps took.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use events::time::{HOUR_MS, rfc3339};
use flow::definition::{Definition, parse_duration_ms};
use serde::Deserialize;
use serde_json::{Value, json};
use store::statistics::{self, BySteps, Counts, Histogram};
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::in_time::{STORE_TIMEOUT, in_time};
use crate::state::Api;

/// Statistics are kept by the minute, and for a day.
const WINDOW_MS_MIN: u64 = 60_000;
const WINDOW_MS_MAX: u64 = statistics::KEPT_H as u64 * HOUR_MS.unsigned_abs();
const MINUTE_MS: i64 = 60_000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// `15m`, `1h`, ...
    window: Option<String>,
}

impl Asked {
    fn window_ms(&self) -> Result<i64, Problem> {
        let Some(text) = &self.window else { return Ok(HOUR_MS) };
        let window_ms = parse_duration_ms(text).filter(|ms| (WINDOW_MS_MIN..=WINDOW_MS_MAX).contains(ms));
        let wrong = || {
            let detail = format!("`window` is a time from 1m to {}h such as 15m, not `{text}`.", statistics::KEPT_H);
            Problem::new(Kind::BadRequest, detail)
        };
        window_ms.map(|ms| i64::try_from(ms).unwrap_or(HOUR_MS)).ok_or_else(wrong)
    }
}

/// `GET /v1/flows/{flow}/stats`
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(flow): Path<String>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    api.ready()?;
    context.caller.require(Scope::JobsRead)?;
    let Query(asked) = query.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    let window_ms = asked.window_ms()?;
    let Some(definition) = api.catalog.active(&flow) else {
        return Err(Problem::new(Kind::UnknownFlow, api.catalog.no_such_flow(&flow)));
    };
    let until_ms = api.clock.now_ms();
    let since_ms = until_ms - window_ms;
    let since_ms = since_ms - since_ms.rem_euclid(MINUTE_MS);
    let reading = statistics::since(&api.pool, &context.caller.tenant, &flow, since_ms);
    let unavailable = || Problem::new(Kind::NotReady, "The database does not answer.").retry_after_s(1);
    let steps = in_time(STORE_TIMEOUT, reading, unavailable).await?;
    Ok(Json(document(&definition, &steps, (since_ms, until_ms))))
}

fn document(definition: &Definition, steps: &BySteps, (since_ms, until_ms): (i64, i64)) -> Value {
    let none = Counts::default();
    let window_s = (until_ms - since_ms) as f64 / 1_000.0;
    let per_s = |count: u64| (count as f64 / window_s * 1_000.0).round() / 1_000.0;
    let jobs = steps.get("").unwrap_or(&none);
    let ended = jobs.succeeded + jobs.failed + jobs.cancelled;
    // In the flow's order, and then those of other versions.
    let own = definition.steps().iter().map(|step| step.id.as_str());
    let other = steps.keys().map(String::as_str).filter(|id| !id.is_empty() && definition.step(id).is_none());
    let step = |id: &str| {
        let counts = steps.get(id).unwrap_or(&none);
        json!({
            "id": id,
            "succeeded": counts.succeeded,
            "skipped": counts.skipped,
            "failed": counts.failed,
            "duration_ms": durations(&counts.durations),
        })
    };
    json!({
        "flow": definition.name(),
        "since": rfc3339(since_ms),
        "until": rfc3339(until_ms),
        "jobs": {
            "accepted": jobs.accepted,
            "accepted_per_s": per_s(jobs.accepted),
            "ended": ended,
            "ended_per_s": per_s(ended),
            "succeeded": jobs.succeeded,
            "failed": jobs.failed,
            "cancelled": jobs.cancelled,
            "duration_ms": durations(&jobs.durations),
        },
        "steps": own.chain(other).map(step).collect::<Vec<_>>(),
    })
}

fn durations(histogram: &Histogram) -> Value {
    let whole = |ms: Option<f64>| ms.map(|ms| ms.round() as u64);
    match histogram.mean_ms() {
        None => Value::Null,
        mean_ms => json!({
            "mean": whole(mean_ms),
            "p50": whole(histogram.quantile_ms(0.5)),
            "p95": whole(histogram.quantile_ms(0.95)),
            "p99": whole(histogram.quantile_ms(0.99)),
        }),
    }
}
