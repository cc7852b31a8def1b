//! The arrival of a request's body: refused where it cannot be used, cut off where it does not come in time.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Version, header};
use axum::response::{IntoResponse, Response};
use http_body::{Frame, SizeHint};
use service_kit::CancellationToken;
use tokio::time::{Instant, sleep_until};

use crate::problem::{Kind, Problem};

/// How long a body is waited for. The server puts it into the extensions of each request.
#[derive(Debug)]
pub(crate) struct Patience {
    pub(crate) body_timeout: Duration,
    /// Cancelled at shutdown: then no body is waited for.
    pub(crate) leaving: CancellationToken,
}

/// The reason for which a body was not waited for any longer.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Late,
    Leaving,
}

/// The limits of bodies.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) bytes_max: usize,
    /// Routes with a limit of their own.
    pub(crate) larger: Arc<[(&'static str, usize)]>,
}

impl Bounds {
    fn of(&self, request: &Request) -> usize {
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let own = self.larger.iter().find(|(larger, _)| route == Some(*larger));
        own.map_or(self.bytes_max, |(_, bytes_max)| *bytes_max)
    }
}

impl Patience {
    async fn over(self: Arc<Self>, since: Instant) -> Cut {
        tokio::select! {
            biased;
            () = self.leaving.cancelled() => Cut::Leaving,
            () = sleep_until(since + self.body_timeout) => Cut::Late,
        }
    }
}

/// Refuses a body that cannot be decoded or is known to be too large before any of it is asked for, and answers for one
/// that did not arrive.
pub(crate) async fn bounded<F>(bounds: &Bounds, request: Request, next: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    if request.body().is_end_stream() {
        return next(request).await;
    }
    // At an address that the router does not know, the handler knows if it reads the body or passes it on.
    let is_routed = request.extensions().get::<MatchedPath>().is_some();
    if is_routed && let Err(problem) = check(request.headers(), bounds.of(&request)) {
        return problem.into_response();
    }
    let Some(patience) = request.extensions().get::<Arc<Patience>>().cloned() else { return next(request).await };
    let (cut, version, seconds) = (Arc::new(OnceLock::new()), request.version(), patience.body_timeout.as_secs());
    let mut request = request;
    let pace = Pace::default();
    request.extensions_mut().insert(pace.clone());
    let arriving = |body| {
        let over = Over { patience, since: Instant::now(), begun: None, pace };
        Body::new(Arriving { body, over, cut: cut.clone() })
    };
    let response = next(request.map(arriving)).await;
    let problem = match cut.get() {
        Some(Cut::Late) => Problem::new(Kind::RequestTimeout, format!("The body did not arrive within {seconds} s.")),
        Some(Cut::Leaving) => Problem::new(Kind::NotReady, "The service is shutting down.").retry_after_s(1),
        None => return response,
    };
    if response.status().is_success() {
        return response;
    }
    // In HTTP/2 the other requests of the connection go on.
    let problem = match version {
        Version::HTTP_2 => problem,
        _ => problem.with_header(header::CONNECTION, HeaderValue::from_static("close")),
    };
    problem.into_response()
}

/// Refuses a body that cannot be decoded, or is known to be too large, before any of it is asked for.
///
/// # Errors
/// The problem 413 or 415.
pub fn check(headers: &HeaderMap, body_bytes_max: usize) -> Result<(), Problem> {
    check_encoding(headers)?;
    check_length(headers, body_bytes_max)
}

/// Bodies are taken as they are. In any other coding they would be bad JSON, or of unknown size.
fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let codings = codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut foreign = codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    let Some(coding) = foreign.find(|coding| !coding.is_empty()) else { return Ok(()) };
    let detail = format!("The request's Content-Encoding is `{}`.", coding.escape_ascii());
    Err(Problem::new(Kind::UnsupportedMediaType, detail)
        .with_remediation("Send the body as it is, without a Content-Encoding.")
        .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

fn check_length(headers: &HeaderMap, body_bytes_max: usize) -> Result<(), Problem> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > body_bytes_max as u64 => Err(Problem::new(
            Kind::PayloadTooLarge,
            format!("The body has {length} bytes, {body_bytes_max} at most are taken."),
        )),
        _ => Ok(()),
    }
}

/// How a body may arrive, in the extensions of its request.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<AtomicBool>);

impl Pace {
    /// The body is passed on as it comes: from now on only a pause in it may be too long, not the whole.
    pub fn let_it_take_its_time(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The end of patience. It is waited for only once a body has to be waited for.
struct Over {
    patience: Arc<Patience>,
    since: Instant,
    begun: Option<Pin<Box<dyn Future<Output = Cut> + Send>>>,
    pace: Pace,
}

impl Over {
    fn arrived(&mut self) {
        if self.pace.0.load(Ordering::Relaxed) {
            (self.since, self.begun) = (Instant::now(), None);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        let (patience, since) = (&self.patience, self.since);
        let begun = self.begun.get_or_insert_with(|| Box::pin(Arc::clone(patience).over(since)));
        begun.as_mut().poll(cx)
    }
}

/// A body that fails when it does not arrive in time.
struct Arriving {
    body: Body,
    over: Over,
    cut: Arc<OnceLock<Cut>>,
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let arrived @ Poll::Ready(_) = Pin::new(&mut self.body).poll_frame(cx) {
            self.over.arrived();
            return arrived;
        }
        let Poll::Ready(cut) = self.over.poll(cx) else { return Poll::Pending };
        let _ = self.cut.set(cut);
        Poll::Ready(Some(Err(axum::Error::new("the body did not arrive"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(values: &[&'static str]) -> Result<(), Problem> {
        let named = |value: &&'static str| (header::CONTENT_ENCODING, HeaderValue::from_static(value));
        check_encoding(&values.iter().map(named).collect())
    }

    #[test]
    fn a_body_in_a_coding_is_refused_with_the_ones_that_are_taken() {
        for taken in [&[][..], &[""], &["identity"], &["Identity, identity", "identity"]] {
            encoded(taken).unwrap_or_else(|problem| panic!("{taken:?}: {problem}"));
        }
        for refused in [&["gzip"][..], &["identity, br"], &["identity", "GZIP"]] {
            let problem = encoded(refused).unwrap_err();
            assert_eq!(problem.kind(), Kind::UnsupportedMediaType, "{refused:?}");
            let response = problem.into_response();
            assert_eq!(response.status(), 415);
            assert_eq!(response.headers()["accept-encoding"], "identity");
        }
    }
}
