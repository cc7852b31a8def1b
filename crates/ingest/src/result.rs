//! `GET /v1/jobs/{id}/result`

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use documents::Owner;
use events::time::DAY_MS;
use flow::event::JobStatus;
use flow::id::JobId;
use flow::view::JobView;
use serde::Deserialize;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::content::Conditions;
use crate::job_lookup::JobState;
use crate::state::Api;
use crate::wait::{Asked, Until, WaitQuery, seconds};
use crate::{answer, content, expiry, time_left};

#[derive(Debug, Deserialize)]
pub(crate) struct ResultQuery {
    #[serde(default, deserialize_with = "seconds")]
    wait: Option<u64>,
    /// The name of a document within the result.
    document: Option<String>,
}

/// The result of a job that succeeded, or a document within it, whole or in part, or the problem that says why there is
/// none (yet). It can be waited for.
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    Extension(context): Extension<RequestContext>,
    method: Method,
    headers: HeaderMap,
    query: Result<Query<ResultQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    api.polls.check(&context.caller, &job, api.config.polls())?;
    let query = query.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()));
    let Query(ResultQuery { wait, document }) = query?;
    let mut asked = Asked::of(&api, &context, &headers, &WaitQuery { wait });
    let conditions = Conditions::of(&method, &headers);
    drop(headers);
    let ended = |job: &JobState| job.view.status.is_final();
    let found = asked.until(&api, &context.caller, &job, Until::End, ended).await;
    let serve = |view: &JobView| match &document {
        Some(name) => content::document(view, name, &conditions),
        None => content::stored(api.public_url.prefix(), view, &conditions),
    };
    let answer = match found {
        Ok(job) => match of(&api, &job, serve) {
            Ok(response) => {
                let owner = Owner { tenant: &context.caller.tenant, job: job.view.job };
                content::fill(&api, owner, &method, response).await
            }
            Err(problem) => Err(problem),
        },
        Err(problem) => Err(gone_if_expired(&api, &job, problem)),
    };
    asked.tell(answer)
}

/// The result of this job as `serve` gives it, or the problem.
pub(crate) fn of(
    api: &Api,
    job: &JobState,
    serve: impl FnOnce(&JobView) -> Result<Response, Problem>,
) -> Result<Response, Problem> {
    let not_finished = |detail: &str| not_finished(api, job, detail);
    let JobState { view, trace_id, .. } = job;
    match view.status {
        JobStatus::Succeeded => {
            expiry::check(api, view)?;
            let mut response = serve(view)?;
            response.headers_mut().extend(expiry::sunset(api, view).map(|at| (expiry::SUNSET, at)));
            Ok(response)
        }
        JobStatus::Failed | JobStatus::Cancelled => {
            let definition = api.catalog.version(&view.flow, &view.version);
            Err(answer::failed(view, trace_id.as_deref(), definition.as_ref()))
        }
        JobStatus::NeedsAttention => Err(not_finished("The job is parked: an operator has to decide.")),
        JobStatus::Accepted
        | JobStatus::Running
        | JobStatus::Waiting
        | JobStatus::Compensating
        | JobStatus::Other(_) => Err(not_finished(&format!("The job is {}.", view.status.as_str()))),
    }
}

/// Replaces the problem by 410 for a job that is no longer kept: the time in its id tells it from one that never was.
fn gone_if_expired(api: &Api, job: &str, problem: Problem) -> Problem {
    let days = api.config.keep_jobs_d;
    let made_ms = job.parse().ok().and_then(|job: JobId| made_ms(job));
    let expired = made_ms.is_some_and(|made_ms| made_ms < api.clock.now_ms() - i64::from(days) * DAY_MS);
    if problem.kind() != Kind::UnknownJob || days == 0 || !expired {
        return problem;
    }
    Problem::new(Kind::Gone, format!("Results are kept for {days} days after their jobs' ends.")).with_job(job)
}

/// The time at which an id was drawn, in milliseconds since the Unix epoch: a UUIDv7 begins with it.
fn made_ms(job: JobId) -> Option<i64> {
    let id = job.uuid();
    (id.get_version_num() == 7).then(|| i64::try_from(id.as_u128() >> 80).ok())?
}

fn not_finished(api: &Api, job: &JobState, detail: &str) -> Problem {
    let retry_after_s = time_left::ask_again_s(api, time_left::of_job(api, job));
    Problem::new(Kind::NotFinished, detail).with_job(job.view.job).retry_after_s(retry_after_s)
}
