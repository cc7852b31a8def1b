//! A flow's own address. The old service answers a request, or a job does, as the flow and its flags say
//! (`flow::flags`); the form of the answer is decided apart from that.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::Response;
use flow::definition::Definition;
use flow::flags::{Asking, By, Execution, Rules};
use tokio::time::Instant;
use web::caller::Scope;
use web::context::RequestContext;
use web::prefer::Preferences;
use web::problem::{Kind, Problem};
use web::request_log::NotedRoute;

use crate::catalog::Routed;
use crate::in_time::in_time;
use crate::modes::mode;
use crate::proxy::{Peeked, peek};
use crate::request_parts::{self, parse_body};
use crate::state::Api;
use crate::submit;
use crate::{callers, deprecation, modes, proxy};

/// The time for looking up whether a key stands for a job.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// A flow's own route, which is not known before the flow is.
pub(crate) async fn serve(
    State(api): State<Arc<Api>>,
    method: Method,
    uri: Uri,
    Extension(context): Extension<RequestContext>,
    Extension(route): Extension<NotedRoute>,
    request: Request,
) -> Result<Response, Problem> {
    api.ready()?;
    match api.catalog.routed(method.as_str(), uri.path()) {
        Routed::Flow(definition) => {
            // Whoever serves the request: another mode must not open it to others.
            context.caller.require(Scope::JobsSubmit)?;
            route.note(uri.path());
            by_flags(&api, definition, context, request).await
        }
        Routed::Several(clash) => {
            let remediation = "Use the flow's other address, `POST /v1/flows/{flow}/jobs`, until one of them is \
                               applied with another route.";
            Err(Problem::new(Kind::NotReady, format!("{clash}.")).with_remediation(remediation).retry_after_s(60))
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

async fn by_flags(
    api: &Api,
    definition: Definition,
    context: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    let known = api.flags.of(definition.name());
    let rules = Rules::of(&definition, &known.flags);
    let (value, request) = match rules.depends_on_value() {
        true => value(api, (&definition, &rules.durable().by), &context, request).await?,
        false => (None, request),
    };
    let mut execution = rules.execution(value.as_deref());
    // Without flags no request to this address has ever become a job.
    if execution == Execution::Proxy
        && known.version > 0
        && is_of_job(api, &definition, &context, request.headers()).await?
    {
        execution = Execution::Durable;
    }
    let caller = callers::name(request.headers());
    let preferences = Preferences::of(request.headers());
    let expected = api.estimates.of(&context.caller.tenant, definition.name());
    let form = rules.form(Asking {
        respond_async: preferences.respond_async,
        waits: preferences.wait_s.is_some(),
        caller: &caller,
        expected_ms: expected.and_then(|expected| expected.job_ms()),
    });
    let (mode, now_ms, begun) = (mode(execution, form), api.clock.now_ms(), Instant::now());
    let end = rules.deprecation().filter(|_| mode != modes::ASYNC);
    if let Some(end) = end {
        deprecation::check(end, api.callers.is_in_use(definition.name()), now_ms)?;
    }
    api.callers.saw((definition.name(), &context.caller.tenant), (&caller, mode), now_ms);
    let flow = definition.name().to_owned();
    let answer = match execution {
        Execution::Proxy => {
            let hold = Duration::from_millis(rules.hold_ms());
            Box::pin(proxy::forward(&api.proxy, (&definition, hold), &context, request)).await
        }
        Execution::Durable => {
            let definition = definition.clone();
            Box::pin(submit::receive(api, (definition, form), context, Default::default(), request)).await
        }
    };
    let answer = modes::count(&flow, mode, begun, answer);
    match end {
        Some(end) => deprecation::tell(end, answer),
        None => answer,
    }
}

/// The value by which the request's execution is decided, and the request as if nothing of it had been read.
async fn value(
    api: &Api,
    (definition, by): (&Definition, &By),
    context: &RequestContext,
    request: Request,
) -> Result<(Option<String>, Request), Problem> {
    match by {
        By::Tenant => Ok((Some(context.caller.tenant.clone()), request)),
        By::Header(name) => {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            Ok((value.filter(|value| !value.is_empty()).map(str::to_owned), request))
        }
        By::Key if definition.has_key() => {
            let (parts, body) = request.into_parts();
            let Peeked { whole, body } = peek(body, api.config.body_bytes_max)
                .await
                .map_err(|error| Problem::new(Kind::BadRequest, "The body did not arrive whole.").caused_by(error))?;
            // Whoever sends something else is answered by the old service, as ever.
            let input = whole.and_then(|whole| parse_body(&parts.headers, &whole.into()).ok());
            let key = input.and_then(|input| definition.ordering_key(&input, "").ok());
            Ok((key, Request::from_parts(parts, body)))
        }
        By::Key => {
            let own = idempotency_key(request.headers());
            Ok((Some(own.unwrap_or_else(|| api.ids.uuid().to_string())), request))
        }
    }
}

/// The request's key, if it has one that could stand for a job.
fn idempotency_key(headers: &HeaderMap) -> Option<String> {
    request_parts::idempotency_key(headers, false).ok().flatten()
}

/// True if the request's key stands for a job: then it stays with it, whatever the flags say now.
async fn is_of_job(
    api: &Api,
    definition: &Definition,
    context: &RequestContext,
    headers: &HeaderMap,
) -> Result<bool, Problem> {
    let Some(key) = idempotency_key(headers) else { return Ok(false) };
    let (tenant, scope) = (context.caller.tenant.as_str(), definition.name());
    if api.acceptor.is_pending(tenant, scope, &key) {
        return Ok(true);
    }
    let unavailable = || {
        let detail = "The database did not answer, so it is not known if this Idempotency-Key stands for a job.";
        Problem::new(Kind::NotReady, detail).retry_after_s(1)
    };
    let looking = store::idempotency::find(&api.pool, tenant, scope, &key);
    Ok(in_time(LOOK_UP_TIMEOUT, looking, unavailable).await?.is_some())
}
