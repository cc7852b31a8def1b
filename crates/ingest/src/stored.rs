//! A job that a request stands for, and the answers about it.

use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::response::Response;
use documents::Owner;
use events::trace::TraceId;
use flow::event::JobStatus;
use flow::id::JobId;
use web::caller::Caller;
use web::problem::Problem;
use web::request_log::JobInfo;

use crate::answer::{self, AcceptedInfo};
use crate::job_lookup::JobState;
use crate::plan::JobRequest;
use crate::state::Api;
use crate::{content, result, time_left};

/// Set on the answer to a repeated request.
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A job that is stored, by this request or, if `replayed`, by an earlier one with its key.
pub(crate) struct Stored {
    pub(crate) flow: String,
    pub(crate) origin: Origin,
    pub(crate) replayed: bool,
}

/// The request that made a job, as far as a 202 repeats it.
pub(crate) struct Origin {
    pub(crate) job: JobId,
    pub(crate) correlation_id: Option<String>,
    pub(crate) trace_id: Option<TraceId>,
    pub(crate) retry_of: Option<JobId>,
}

impl Origin {
    /// That of a job which this request makes.
    pub(crate) fn of(request: &JobRequest) -> Self {
        Self {
            job: request.job,
            correlation_id: Some(request.correlation_id.clone()),
            trace_id: Some(request.trace.context.trace_id),
            retry_of: request.retry_of,
        }
    }

    /// That of a job which an earlier request has made: its answer has the correlation id and the trace of that one.
    pub(crate) async fn of_first(api: &Api, caller: &Caller, job: JobId) -> Self {
        let stored = store::jobs::get(&api.pool, &caller.tenant, job).await;
        match stored.ok().flatten().and_then(|stored| stored.acceptance) {
            Some(first) => Self {
                job,
                correlation_id: Some(first.facts.correlation_id),
                trace_id: first.trace_id,
                retry_of: first.facts.retry_of,
            },
            None => Self { job, correlation_id: None, trace_id: None, retry_of: None },
        }
    }
}

impl Stored {
    /// The answer 202.
    pub(crate) fn answer(self, api: &Api, caller: &Caller) -> Response {
        let origin = &self.origin;
        let trace_id = origin.trace_id.map(|trace_id| trace_id.to_string());
        let url = trace_id.as_deref().and_then(|trace_id| api.config.url_of_trace(trace_id));
        let info = AcceptedInfo {
            prefix: api.public_url.prefix(),
            job: origin.job,
            flow: &self.flow,
            status: JobStatus::Accepted,
            correlation_id: origin.correlation_id.as_deref(),
            trace: answer::Trace { id: trace_id, url },
            retry_of: origin.retry_of,
        };
        let retry_after_s = time_left::of_new(api, &caller.tenant, &self.flow);
        let mut response = answer::accepted(info, retry_after_s);
        if self.replayed {
            response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        response.extensions_mut().insert(self.info(caller));
        response
    }

    /// The answer to a caller who has waited for the job's end, with the address at which its body stays.
    pub(crate) async fn result(self, api: &Api, caller: &Caller, job: JobState) -> Result<Response, Problem> {
        let address = answer::result_address(api.public_url.prefix(), self.origin.job);
        let address = HeaderValue::try_from(address).map_err(Problem::internal)?;
        let replayed = self.replayed.then_some((IDEMPOTENT_REPLAYED, HeaderValue::from_static("true")));
        let headers = [(header::CONTENT_LOCATION, address)].into_iter().chain(replayed);
        let answer = match result::of(api, &job, |view| Ok(content::answer(api.public_url.prefix(), view))) {
            Ok(response) => {
                let owner = Owner { tenant: &caller.tenant, job: self.origin.job };
                content::fill(api, owner, &Method::POST, response).await
            }
            Err(problem) => Err(problem),
        };
        match answer {
            Ok(mut response) => {
                response.headers_mut().extend(headers);
                response.extensions_mut().insert(self.info(caller));
                Ok(response)
            }
            Err(problem) => Err(headers.fold(problem, |problem, (name, value)| problem.with_header(name, value))),
        }
    }

    fn info(&self, caller: &Caller) -> JobInfo {
        JobInfo { id: self.origin.job.to_string(), flow: self.flow.clone(), tenant: caller.tenant.clone() }
    }
}

/// The answer 202 to what was asked of a job. It shows the job as it was before: its events will report what comes of
/// it.
pub(crate) fn as_it_was(api: &Api, job: JobState) -> Response {
    let retry_after_s = time_left::ask_again_s(api, time_left::of_job(api, &job));
    let JobState { view, trace_id, .. } = job;
    let info = AcceptedInfo {
        prefix: api.public_url.prefix(),
        job: view.job,
        flow: &view.flow,
        status: view.status,
        correlation_id: Some(&view.correlation_id),
        trace: answer::Trace { id: trace_id, url: None },
        retry_of: None,
    };
    answer::accepted(info, retry_after_s)
}
