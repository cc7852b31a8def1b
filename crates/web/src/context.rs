//! The context of a request, handed down to its handler: trace, correlation id, caller.

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use events::limit::CORRELATION_ID_BYTES_MAX;
use events::trace::Trace;
use service_kit::CancellationToken;
use service_kit::identity::Ids;
use service_kit::trace::Span;

use crate::caller::Caller;
use crate::client_address::{Peer, Proxies};
use crate::problem::Foreign;
use crate::request_info::RequestInfo;
use crate::request_log::NotedRoute;
use crate::server::Crowd;
use crate::{request_log, spans};

/// The header of the correlation id.
pub const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
/// The header by which proxies name a request; it stands in for a correlation id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How long the credential lasts that a caller has shown.
#[derive(Debug, Clone)]
pub struct Credential {
    /// It ends then, in milliseconds since the Unix epoch.
    pub until_ms: Option<i64>,
    /// Cancelled when it is revoked.
    pub ended: CancellationToken,
}

/// The context of a request, in its extensions.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The caller's trace, continued, or a new one: the cause of all effects of the request.
    pub trace: Trace,
    /// The correlation id: the caller's, or a new one. Echoed, stored, and sent on.
    pub correlation_id: String,
    pub caller: Caller,
    /// Where one was asked for. A stream ends with it.
    pub credential: Option<Credential>,
    /// The client's address, as far as it can be known; none in tests without a connection.
    pub client: Option<IpAddr>,
    /// Connections that wait for room, if this request could make some.
    pub crowd: Option<Crowd>,
}

impl RequestContext {
    /// The trace id as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.trace.context.trace_id.to_string()
    }
}

/// A correlation id as it may be stored: printable ASCII, of bounded length; none if it is empty then.
pub fn clean_correlation_id(text: &str) -> Option<String> {
    let clean: String =
        text.trim().chars().filter(|c| (' '..='~').contains(c)).take(CORRELATION_ID_BYTES_MAX).collect();
    (!clean.is_empty()).then_some(clean)
}

/// The trace that the request's headers name. Two `traceparent` name none; several `tracestate` are one list (W3C Trace
/// Context, sections 2.2 and 3.3.1.5).
fn incoming(headers: &HeaderMap) -> Option<Trace> {
    let mut parents = headers.get_all("traceparent").iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let states: Result<Vec<&str>, _> = headers.get_all("tracestate").iter().map(HeaderValue::to_str).collect();
    let states = states.map(|states| states.join(",")).ok();
    Trace::parse(parent.to_str().ok(), states.as_deref())
}

fn read(headers: &HeaderMap, incoming: Option<Trace>, span: &Span, ids: &Ids, caller: Caller) -> RequestContext {
    let trace = span.carry_on(incoming, ids);
    let given = |name| headers.get(name).and_then(|value| value.to_str().ok()).and_then(clean_correlation_id);
    let correlation_id = given(CORRELATION_ID).or_else(|| given(REQUEST_ID)).unwrap_or_else(|| ids.uuid().to_string());
    RequestContext { trace, correlation_id, caller, credential: None, client: None, crowd: None }
}

/// What contexts are made of.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    pub(crate) ids: Ids,
    pub(crate) anonymous: Caller,
    pub(crate) proxies: Proxies,
}

/// Middleware: gives the request its [`RequestContext`], its trace id (for problems) and its span, echoes the
/// correlation id on every answer, and writes the request's log line.
pub(crate) async fn carry(State(carried): State<Carried>, mut request: Request, next: Next) -> Response {
    let Carried { ids, anonymous, proxies } = carried;
    let started = Instant::now();
    let info = RequestInfo::of(&mut request).await;
    let incoming = incoming(request.headers());
    let span = spans::begin(info.as_ref(), incoming.as_ref());
    let crowd = request.extensions().get::<Crowd>().cloned();
    let client = request.extensions().get::<Peer>().map(|peer| proxies.client(*peer, request.headers()));
    let context = RequestContext { client, crowd, ..read(request.headers(), incoming, &span, &ids, anonymous) };
    if let Some(client) = client {
        span.text("client.address", client);
    }
    span.text("meanwhile.correlation_id", &context.correlation_id);
    let echo = HeaderValue::from_str(&context.correlation_id).ok();
    let (trace_id, noted) = (context.trace.context.trace_id, NotedRoute::default());
    let extensions = request.extensions_mut();
    extensions.insert(trace_id);
    extensions.insert(context);
    extensions.insert(noted.clone());
    let mut response = next.run(request).await;
    if let Some(info) = &info {
        request_log::write(info, &noted, client, trace_id, &response, started.elapsed());
        spans::answered(&span, info, &response);
    }
    if let Some(echo) = echo {
        match response.extensions().get::<Foreign>() {
            None => drop(response.headers_mut().insert(CORRELATION_ID, echo)),
            // Its own word stays.
            Some(_) => drop(response.headers_mut().entry(CORRELATION_ID).or_insert(echo)),
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &HeaderMap, ids: &Ids) -> RequestContext {
        super::read(headers, incoming(headers), &Span::none(), ids, Caller::unrestricted("acme"))
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_callers_trace_goes_on_with_a_span_of_ours() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let context = read(&headers(&[("traceparent", parent), ("tracestate", "a=b")]), &Ids::seeded(1));
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(context.trace.context.span_id, 0x00f0_67aa_0ba9_02b7);
        assert_eq!((context.trace.context.flags, context.trace.state.as_deref()), (0, Some("a=b")));
    }

    #[test]
    fn two_parents_are_none_and_several_states_are_one_list() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let twice = [("traceparent", parent), ("traceparent", parent), ("tracestate", "a=b")];
        let mut headers = HeaderMap::new();
        for (name, value) in twice {
            headers.append(name, HeaderValue::from_static(value));
        }
        assert_eq!(incoming(&headers), None);
        headers.insert("traceparent", HeaderValue::from_static(parent));
        headers.append("tracestate", HeaderValue::from_static("c=d"));
        assert_eq!(incoming(&headers).unwrap().state.as_deref(), Some("a=b,c=d"));
    }

    #[test]
    fn without_a_usable_trace_or_correlation_id_new_ones_are_made() {
        let one = read(&headers(&[("traceparent", "nonsense"), ("x-correlation-id", "  ")]), &Ids::seeded(1));
        let other = read(&HeaderMap::new(), &Ids::seeded(2));
        assert_ne!(one.trace_id(), other.trace_id());
        assert_ne!(one.correlation_id, other.correlation_id);
        assert_eq!(one.correlation_id.len(), 36);
    }

    #[test]
    fn a_correlation_id_is_kept_as_far_as_it_is_printable_and_short() {
        let context = read(&headers(&[("x-correlation-id", " order 17 ")]), &Ids::seeded(1));
        assert_eq!(context.correlation_id, "order 17");
        assert_eq!(clean_correlation_id(&"x".repeat(500)).unwrap().len(), CORRELATION_ID_BYTES_MAX);
        assert_eq!(clean_correlation_id("a\u{0}\nb").unwrap(), "ab");
    }
}
