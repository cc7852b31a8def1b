//! The mode in which a flow's own address serves a request, and its metrics: the same for all modes, side by side.

use axum::response::Response;
use flow::flags::{Execution, Form};
use tokio::time::Instant;
use web::problem::Problem;
use web::request_log::Mode;

/// The old service answers.
pub(crate) const PROXY: &str = "proxy";
/// A job executes the request, and the answer is its outcome.
pub(crate) const SYNC: &str = "sync";
/// A job executes the request, and the answer may be 202.
pub(crate) const ASYNC: &str = "async";

pub(crate) const fn mode(execution: Execution, form: Form) -> &'static str {
    match (execution, form) {
        (Execution::Proxy, _) => PROXY,
        (Execution::Durable, Form::Owed(_)) => SYNC,
        (Execution::Durable, Form::AsAsked | Form::Within(_)) => ASYNC,
    }
}

/// Counts a request that was answered in this mode, and marks its answer for the request's log line.
pub(crate) fn count(
    flow: &str,
    mode: &'static str,
    begun: Instant,
    answer: Result<Response, Problem>,
) -> Result<Response, Problem> {
    let status = answer.as_ref().map_or_else(Problem::status, Response::status);
    let outcome = match status.as_u16() {
        ..400 => "ok",
        400..500 => "refused",
        500.. => "failed",
    };
    metrics::counter!(
        "meanwhile_mode_requests_total", "flow" => flow.to_owned(), "mode" => mode, "outcome" => outcome
    )
    .increment(1);
    let took = begun.elapsed();
    metrics::histogram!("meanwhile_mode_answer_seconds", "flow" => flow.to_owned(), "mode" => mode).record(took);
    if mode == SYNC && outcome == "ok" {
        metrics::histogram!("meanwhile_mode_result_seconds", "flow" => flow.to_owned(), "mode" => mode).record(took);
    }
    answer.map(|mut response| {
        response.extensions_mut().insert(Mode(mode));
        response
    })
}
