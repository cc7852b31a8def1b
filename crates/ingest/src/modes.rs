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

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use test_kit::metric;
    use web::problem::Kind;

    use super::*;

    #[test]
    fn a_mode_is_who_executes_and_whether_202_is_an_answer() {
        for form in [Form::AsAsked, Form::Within(1), Form::Owed(1)] {
            assert_eq!(mode(Execution::Proxy, form), PROXY);
        }
        let forms = [Form::AsAsked, Form::Within(1), Form::Owed(1)];
        assert_eq!(forms.map(|form| mode(Execution::Durable, form)), [ASYNC, ASYNC, SYNC]);
    }

    #[test]
    fn an_answer_counts_in_its_mode_by_what_has_become_of_the_request() {
        test_kit::measure();
        let counted = |mode: &str, outcome: &str| {
            let labels = format!("flow=\"of-modes\",mode=\"{mode}\",outcome=\"{outcome}\"");
            metric(&format!("meanwhile_mode_requests_total{{{labels}}}")).unwrap_or(0.0)
        };
        let timed = |name: &str, mode: &str| {
            metric(&format!("meanwhile_mode_{name}_seconds_count{{flow=\"of-modes\",mode=\"{mode}\"}}")).unwrap_or(0.0)
        };
        let count = |mode, answer| super::count("of-modes", mode, Instant::now(), answer);
        for status in [StatusCode::OK, StatusCode::NOT_MODIFIED, StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY] {
            let marked = count(SYNC, Ok(status.into_response())).unwrap();
            assert_eq!(marked.extensions().get::<Mode>().unwrap().0, SYNC);
        }
        assert!(count(SYNC, Err(Problem::new(Kind::AnswerLate, "late"))).is_err());
        assert!(count(ASYNC, Ok(StatusCode::ACCEPTED.into_response())).is_ok());
        assert_eq!(["ok", "refused", "failed"].map(|outcome| counted(SYNC, outcome)), [2.0, 1.0, 2.0]);
        assert_eq!((timed("answer", SYNC), timed("result", SYNC)), (5.0, 2.0), "an error is no result");
        assert_eq!((counted(ASYNC, "ok"), timed("answer", ASYNC), timed("result", ASYNC)), (1.0, 1.0, 0.0));
    }
}
