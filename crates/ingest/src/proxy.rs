//! The way to the old service: requests and answers are passed on as they are, streamed both ways.
//!
//! Promise: the old service sees the request that the client sent, once, and the client the answer that it gave; only
//! what belongs to a connection is replaced (RFC 9110 section 7.6). A client that leaves ends the call.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use events::header;
use flow::decide::Env;
use flow::definition::Definition;
use outbound::forward::{Forward, Forwarded, Forwarder, NotForwarded};
use service_kit::identity::Ids;
use service_kit::trace::{Kind as SpanKind, Span};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use url::Url;
use web::arrival::Pace;
use web::client_address::Peer;
use web::context::{CORRELATION_ID, RequestContext};
use web::problem::{Foreign, Kind, Problem};
use web::request_log::Mode;

mod body;
mod headers;

use self::body::{End, Passing, Progress, Sending};
pub(crate) use self::body::{Peeked, peek};
use self::headers::Arrival;
use crate::config::Config;
use crate::modes::PROXY;

/// The time for a connection to an old service; it is part of the time for its answer.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Less than common servers keep an idle connection (5 s).
pub(crate) const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// The means of passing requests on.
pub(crate) struct Proxy {
    forwarder: Forwarder,
    /// Where old services are.
    env: Env,
    ids: Ids,
    /// Requests that may be on their way at once.
    places: Arc<Semaphore>,
    places_max: usize,
    body_bytes_max: u64,
    pause_max: Duration,
}

impl Proxy {
    pub(crate) fn new(config: &Config, env: Env, ids: Ids) -> anyhow::Result<Self> {
        let limits = outbound::forward::ForwardLimits {
            connect_timeout: CONNECT_TIMEOUT,
            idle_connections_max: config.proxied_max,
            idle_timeout: IDLE_CONNECTION_TIMEOUT,
        };
        Ok(Self {
            forwarder: Forwarder::new(&limits)?,
            env,
            ids,
            places: Arc::new(Semaphore::new(config.proxied_max)),
            places_max: config.proxied_max,
            body_bytes_max: config.proxied_body_bytes_max,
            pause_max: Duration::from_secs(config.proxied_pause_max_s),
        })
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let detail =
                format!("{} requests are on their way to old services, as many as there may be.", self.places_max);
            Problem::new(Kind::TemporaryReducedCapacity, detail).retry_after_s(1)
        })
    }

    fn too_large(&self) -> Problem {
        let detail = format!("The body has more than {} bytes.", self.body_bytes_max);
        Problem::new(Kind::PayloadTooLarge, detail)
    }
}

/// Passes a request on to the flow's old service, and its answer back. The answer begins within `hold` of the end of
/// the request's body.
pub(crate) async fn forward(
    proxy: &Proxy,
    (flow, hold): (&Definition, Duration),
    context: &RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    if headers::asks_for_upgrade(request.headers()) {
        return Err(Problem::new(Kind::UpgradeRefused, "The request asks for another protocol."));
    }
    if headers::goes_in_a_circle(request.headers()) {
        let detail = "The request has come through here again and again: the service behind this address is this one.";
        return Err(Problem::new(Kind::UpstreamFailed, detail).with_remediation("Correct the flow's `upstream`."));
    }
    if request.body().size_hint().lower() > proxy.body_bytes_max {
        return Err(proxy.too_large());
    }
    let url = url_of(&proxy.env, flow, request.uri().query())?;
    let place = proxy.place()?;
    if let Some(pace) = request.extensions().get::<Pace>() {
        pace.let_it_take_its_time();
    }
    let (parts, body) = request.into_parts();
    let span = span(context, &parts, &url);
    let progress = Progress::new();
    let left_bytes = proxy.body_bytes_max;
    let body = (!body.is_end_stream()).then(|| Sending { body, left_bytes, progress: Arc::clone(&progress) });
    let headers = onward(&proxy.ids, context, &parts, &span);
    let begun = Instant::now();
    let sending = proxy.forwarder.send(Forward { method: parts.method, url, headers, body });
    let outcome = tokio::select! {
        outcome = sending => outcome,
        () = progress.silent_for(hold) => {
            span.fail("timeout", "no answer in time");
            let detail = format!("It has not answered within {} ms.", hold.as_millis());
            return Err(Problem::new(Kind::UpstreamTimeout, detail));
        }
    };
    match outcome {
        Ok(forwarded) => {
            span.number("http.response.status_code", i64::from(forwarded.status.as_u16()));
            if forwarded.status.is_server_error() {
                span.fail(forwarded.status.as_u16(), forwarded.status);
            }
            let flow = flow.name().to_owned();
            let way = Way { flow, begun, has_ended: false, _place: place, _span: span };
            Ok(answer(forwarded, proxy.pause_max, way))
        }
        Err(_) if progress.is_too_large() => Err(proxy.too_large()),
        Err(error) => {
            span.fail("connection", &error);
            Err(failed(&error))
        }
    }
}

fn failed(error: &NotForwarded) -> Problem {
    let problem = Problem::new(Kind::UpstreamFailed, format!("{error}."));
    match error {
        NotForwarded::NoConnection(_) => {
            problem.with_remediation("It has seen nothing of the request: send it again later.").retry_after_s(1)
        }
        NotForwarded::Lost(_) => problem,
    }
}

/// The old service's address for this request.
fn url_of(env: &Env, flow: &Definition, query: Option<&str>) -> Result<Url, Problem> {
    let unusable = |detail: String| {
        let remediation = "Set the variable in the environment of every ingest, as it is set for the workers.";
        Problem::new(Kind::NotReady, detail).with_remediation(remediation).retry_after_s(60)
    };
    let upstream = flow.upstream(env).ok_or_else(|| unusable("The flow has no `upstream`.".to_owned()))?;
    let upstream = upstream.map_err(|error| unusable(format!("The flow's `upstream` leads nowhere: {error}.")))?;
    let mut url = Url::parse(&upstream).map_err(|_| unusable("The flow's `upstream` makes no URL.".to_owned()))?;
    url.set_query(query);
    Ok(url)
}

fn span(context: &RequestContext, parts: &Parts, url: &Url) -> Span {
    let method = parts.method.as_str().to_owned();
    let span = Span::begin(SpanKind::Client, Some(context.trace.context), || method.clone());
    span.text("http.request.method", &method).text("server.address", url.host_str().unwrap_or_default());
    span
}

/// The request's headers as the old service gets them, in the trace of this request.
fn onward(ids: &Ids, context: &RequestContext, parts: &Parts, span: &Span) -> HeaderMap {
    let peer = parts.extensions.get::<Peer>().map(|Peer(address)| address.to_canonical());
    let mut headers = headers::onward(parts.headers.clone(), Arrival { peer, version: parts.version });
    for name in [header::TRACEPARENT, header::TRACESTATE] {
        headers.remove(name);
    }
    let trace = span.carry_on(Some(context.trace.clone()), ids);
    for (name, value) in trace.texts() {
        headers.extend(HeaderValue::try_from(value).ok().map(|value| (HeaderName::from_static(name), value)));
    }
    if let Ok(id) = HeaderValue::from_str(&context.correlation_id) {
        headers.entry(CORRELATION_ID).or_insert(id);
    }
    headers
}

fn answer(forwarded: Forwarded, pause_max: Duration, way: Way) -> Response {
    let Forwarded { status, version, headers, body } = forwarded;
    let mut response = Response::new(Body::new(Passing::new(body, pause_max, way)));
    *response.status_mut() = status;
    *response.headers_mut() = headers::back(headers, version);
    response.extensions_mut().insert(Foreign);
    response.extensions_mut().insert(Mode(PROXY));
    response
}

/// A request on its way through: it has its place, and its span, until its answer has passed.
struct Way {
    flow: String,
    begun: Instant,
    has_ended: bool,
    _place: OwnedSemaphorePermit,
    _span: Span,
}

impl End for Way {
    fn ended(&mut self) {
        self.has_ended = true;
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        let flow = std::mem::take(&mut self.flow);
        if self.has_ended {
            let took = self.begun.elapsed();
            metrics::histogram!("meanwhile_mode_result_seconds", "flow" => flow, "mode" => PROXY).record(took);
        } else {
            metrics::counter!("meanwhile_proxied_cut_total", "flow" => flow).increment(1);
        }
    }
}
