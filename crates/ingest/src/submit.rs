//! `POST /v1/flows/{flow}/jobs` and a flow's own route: a request becomes a stored job, or an error that says why not.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use flow::definition::{Definition, InputError};
use flow::id::JobId;
use serde_json::{Value, json};
use service_kit::problem::{Kind, Problem};
use store::acceptances::{Acceptance, Accepted};

use crate::accept;
use crate::catalog::Routed;
use crate::context::RequestContext;
use crate::idempotency::{KeyError, parse_key};
use crate::plan::{Asked, BadInput};
use crate::request_log::{FlowRoute, Submitted};
use crate::state::Api;

/// The request header of the draft.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Set on the answer to a repeated request.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Schema violations told in one answer, at most.
const ERRORS_MAX: usize = 50;

/// `POST /v1/flows/{flow}/jobs`
pub(crate) async fn submit_to(
    State(api): State<Arc<Api>>,
    Path(flow): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    api.planner()?;
    let Some(definition) = api.catalog.active(&flow) else {
        return Err(Problem::new(Kind::UnknownFlow, api.catalog.no_such_flow(&flow)));
    };
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    submit(&api, &definition, context, &headers, &body).await
}

/// A flow's own route, which is not known before the flow is.
pub(crate) async fn submit_by_route(
    State(api): State<Arc<Api>>,
    method: Method,
    uri: Uri,
    Extension(context): Extension<RequestContext>,
    Extension(flow_route): Extension<FlowRoute>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    api.planner()?;
    match api.catalog.routed(method.as_str(), uri.path()) {
        Routed::Flow(definition) => {
            flow_route.note(uri.path());
            let body = axum::RequestExt::extract::<Bytes, _>(request).await;
            let body = body.map_err(|rejection| unreadable(&rejection))?;
            submit(&api, &definition, context, &headers, &body).await
        }
        Routed::OtherMethod(allowed) => {
            let detail = format!("{method} is not taken at {}; {allowed} is.", uri.path());
            let problem = Problem::new(Kind::MethodNotAllowed, detail);
            Err(match HeaderValue::from_str(&allowed) {
                Ok(allowed) => problem.with_header(header::ALLOW, allowed),
                Err(_) => problem,
            })
        }
        Routed::Nothing => Err(Problem::new(Kind::NotFound, format!("There is nothing at {method} {}.", uri.path()))),
    }
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(Kind::PayloadTooLarge, "The body is over the limit of this service.")
    } else {
        Problem::new(Kind::BadRequest, rejection.body_text())
    }
}

/// Accepts a job of this flow. Nothing is stored unless the answer is 202 (or unknown).
async fn submit(
    api: &Arc<Api>,
    definition: &Definition,
    context: RequestContext,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Problem> {
    let idempotency_key = idempotency_key(headers, api.config.idempotency_key_required)?;
    let input = parse_body(headers, body)?;
    let now_ms = api.clock.now_ms();
    let job = JobId::new(api.ids.uuid_v7(now_ms));
    let asked = Asked {
        job,
        tenant: api.config.default_tenant.clone(),
        input,
        fallback_key: None,
        idempotency_key,
        correlation_id: context.correlation_id,
        trace: context.trace,
        now_ms,
        retry_of: None,
    };
    accept_job(api, definition, asked).await
}

/// Accepts what is asked, or finds the job that its key stands for.
pub(crate) async fn accept_job(api: &Arc<Api>, definition: &Definition, asked: Asked) -> Result<Response, Problem> {
    api.check_capacity().map_err(|over| no_room(&over))?;
    let (job, own) = (asked.job, Told::of(&asked));
    let acceptance = api.planner()?.plan(definition, asked).map_err(schema_violation)?;
    let accepted = api.acceptor.accept(acceptance).await.map_err(refused)?;
    let (job, replayed, told) = match accepted {
        Accepted::New => {
            metrics::counter!("meanwhile_jobs_accepted_total", "flow" => definition.name().to_owned()).increment(1);
            (job, false, own)
        }
        Accepted::Replayed { job, same_fingerprint: true } => (job, true, told_first(api, job).await),
        Accepted::Replayed { job, same_fingerprint: false } => {
            let detail = "This Idempotency-Key was used before, for a request with another body.";
            return Err(Problem::new(Kind::IdempotencyKeyReused, detail).with_job(job));
        }
    };
    Ok(accepted_response(api, definition, job, replayed, told))
}

/// What a 202 tells of the request that made the job.
#[derive(Default)]
struct Told {
    correlation_id: Option<String>,
    trace_id: Option<String>,
    retry_of: Option<JobId>,
}

impl Told {
    fn of(asked: &Asked) -> Self {
        Self {
            correlation_id: Some(asked.correlation_id.clone()),
            trace_id: Some(format!("{:032x}", asked.trace.context.trace_id)),
            retry_of: asked.retry_of,
        }
    }
}

/// A repeated request is told what the first one was: the job's own correlation id and trace.
async fn told_first(api: &Api, job: JobId) -> Told {
    let stored = store::jobs::get(&api.pool, &api.config.default_tenant, job).await;
    let acceptance = stored.ok().flatten().and_then(|stored| stored.acceptance);
    let told = |acceptance: Acceptance| Told {
        trace_id: acceptance.trace_id.map(|id| format!("{id:032x}")),
        correlation_id: Some(acceptance.correlation_id),
        retry_of: acceptance.retry_of,
    };
    acceptance.map(told).unwrap_or_default()
}

fn accepted_response(api: &Api, definition: &Definition, job: JobId, replayed: bool, told: Told) -> Response {
    let location = format!("/v1/jobs/{job}");
    let trace_url = told.trace_id.as_deref().and_then(|trace_id| api.config.url_of_trace(trace_id));
    let mut body = json!({
        "id": job.to_string(),
        "flow": definition.name(),
        "status": "accepted",
        "correlation_id": told.correlation_id,
        "trace_id": told.trace_id,
        "links": crate::answer::links(job),
    });
    if let Some(trace_url) = trace_url {
        body["trace_url"] = trace_url.into();
    }
    if let Some(retry_of) = told.retry_of {
        body["retry_of"] = retry_of.to_string().into();
    }
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    let (flow, tenant) = (definition.name().to_owned(), api.config.default_tenant.clone());
    response.extensions_mut().insert(Submitted { flow, tenant });
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(api.config.retry_after_s));
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    if replayed {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// The request's `Idempotency-Key`, or the problem 400.
pub(crate) fn idempotency_key(headers: &HeaderMap, required: bool) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) if required => {
            Err(Problem::new(Kind::IdempotencyKeyMissing, "The request has no Idempotency-Key header."))
        }
        (None, _) => Ok(None),
        (Some(value), None) => parse_key(value.as_bytes()).map(Some).map_err(bad_key),
        (Some(_), Some(_)) => Err(bad_key(KeyError::Malformed)),
    }
}

fn bad_key(error: KeyError) -> Problem {
    Problem::new(Kind::InvalidIdempotencyKey, format!("{error}."))
}

fn parse_body(headers: &HeaderMap, body: &Bytes) -> Result<Value, Problem> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_json(media_type) {
        let detail = match media_type {
            "" => "The request has no Content-Type.".to_owned(),
            other => format!("The request's Content-Type is `{other}`."),
        };
        return Err(Problem::new(Kind::UnsupportedMediaType, detail));
    }
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(Kind::InvalidJson, format!("{error}.")).with("line", error.line()).with("column", error.column())
    })
}

/// `application/json` or any `+json`, whatever its parameters.
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.contains('/') && essence.ends_with("+json"))
}

fn schema_violation(BadInput(errors): BadInput) -> Problem {
    let count = errors.len();
    let told: Vec<Value> = errors
        .into_iter()
        .take(ERRORS_MAX)
        .map(|InputError { pointer, detail }| json!({ "pointer": format!("#{pointer}"), "detail": detail }))
        .collect();
    let detail = match told.as_slice() {
        [only] => format!("{}: {}", only["pointer"].as_str().unwrap_or("#"), only["detail"].as_str().unwrap_or("")),
        _ => format!("The input violates the flow's schema in {count} places."),
    };
    Problem::new(Kind::SchemaViolation, detail).with("errors", told)
}

fn no_room(full: &bus::OverCapacity) -> Problem {
    let remediation = "Send the same request again after the time in `Retry-After`. Where it stays like this, \
                       something stands still: mend it, restart `meanwhile dev`, or set KAFKA_BROKERS to a real Kafka.";
    let detail = format!("No new jobs for the moment: {full}.");
    Problem::new(Kind::TemporaryReducedCapacity, detail).with_remediation(remediation).retry_after_s(1)
}

fn refused(error: accept::Error) -> Problem {
    match error {
        accept::Error::KeyInUse => {
            Problem::new(Kind::IdempotencyKeyInUse, "The first request with this key has not been stored yet.")
                .retry_after_s(1)
        }
        accept::Error::Full => Problem::new(Kind::TemporaryReducedCapacity, format!("{error}.")).retry_after_s(1),
        accept::Error::Closed => Problem::new(Kind::NotReady, "The service is shutting down.").retry_after_s(1),
        accept::Error::Unavailable(_) | accept::Error::TooSlow => {
            let detail = "The database did not answer, so it is not certain that the job was stored. \
                          Sending it again with the same Idempotency-Key is safe.";
            Problem::new(Kind::NotReady, detail).retry_after_s(1).caused_by(error)
        }
        accept::Error::Refused(_) => Problem::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn json_by_any_of_its_names_is_taken() {
        for media_type in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.order+json"] {
            assert!(is_json(media_type), "{media_type}");
        }
        for media_type in ["", "text/plain", "application/jsonx", "+json"] {
            assert!(!is_json(media_type), "{media_type}");
        }
    }

    #[test]
    fn bad_json_is_told_with_its_place() {
        let json = headers(&[("content-type", "application/json")]);
        let problem = parse_body(&json, &Bytes::from_static(b"{\n  \"a\": 1,\n}")).unwrap_err();
        assert_eq!(problem.kind(), Kind::InvalidJson);
        assert!(problem.detail().contains("line 3 column 1"), "{}", problem.detail());
        assert_eq!(parse_body(&headers(&[]), &Bytes::new()).unwrap_err().kind(), Kind::UnsupportedMediaType);
    }

    #[test]
    fn a_missing_key_is_an_error_only_where_keys_are_required() {
        assert_eq!(idempotency_key(&headers(&[]), false).unwrap(), None);
        assert_eq!(idempotency_key(&headers(&[]), true).unwrap_err().kind(), Kind::IdempotencyKeyMissing);
        assert_eq!(idempotency_key(&headers(&[("idempotency-key", "\"k\"")]), true).unwrap().unwrap(), "k");
    }
}
