//! Requests of other methods than a route's own, and of pages of other origins (CORS, Fetch standard section 3.2).

use std::fmt;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Any origin.
const ANY: &str = "*";
/// The methods that routes have.
const METHODS: [Method; 5] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE];
/// Headers that a page may send.
const SENT: [&str; 14] = [
    "accept",
    "authorization",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "if-range",
    "last-event-id",
    "prefer",
    "range",
    "traceparent",
    "tracestate",
    "x-correlation-id",
    "x-request-id",
];
/// Headers of answers that a page may read.
const READ: [&str; 17] = [
    "accept-ranges",
    "allow",
    "content-disposition",
    "content-location",
    "content-range",
    "deprecation",
    "etag",
    "idempotent-replayed",
    "link",
    "location",
    "preference-applied",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "sunset",
    "www-authenticate",
    "x-correlation-id",
];

/// The origins whose pages may read answers; by default none.
#[derive(Debug, Clone, Default)]
pub struct Origins(Vec<HeaderValue>);

/// Text that is no origin.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAnOrigin(String);

impl fmt::Display for NotAnOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(formatter, "expected origins such as https://shop.example.com, or `*` alone, found `{text}`")
    }
}

impl std::error::Error for NotAnOrigin {}

impl Origins {
    /// Origins as browsers write them (RFC 6454 section 6.2): scheme, host, and a port that is not the scheme's own.
    ///
    /// # Errors
    /// The first text that no browser would send as its origin, or `*` beside others.
    pub fn parse(texts: &[String]) -> Result<Self, NotAnOrigin> {
        let one = |text: &String| match text.as_str() {
            ANY if texts.len() == 1 => Ok(HeaderValue::from_static(ANY)),
            origin if is_origin(origin) => HeaderValue::from_str(origin).map_err(|_| NotAnOrigin(text.clone())),
            _ => Err(NotAnOrigin(text.clone())),
        };
        texts.iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// The layer that answers preflights and marks answers. Credentials that a browser sends by itself (cookies) are
    /// never asked for: a page has to send its own.
    pub(crate) fn layer(&self) -> Option<CorsLayer> {
        let origins = match self.0.as_slice() {
            [] => return None,
            [any] if any == ANY => AllowOrigin::any(),
            origins => AllowOrigin::list(origins.iter().cloned()),
        };
        let layer = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods(METHODS)
            .allow_headers(SENT.map(HeaderName::from_static))
            .expose_headers(READ.map(HeaderName::from_static))
            .max_age(std::time::Duration::from_secs(3_600));
        Some(layer)
    }
}

fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let Some((scheme, authority)) = uri.scheme_str().zip(uri.authority()) else { return false };
    let own_port = matches!((scheme, authority.port_u16()), ("http", Some(80)) | ("https", Some(443)));
    let written = format!("{scheme}://{authority}");
    matches!(scheme, "http" | "https")
        && !own_port
        && !authority.as_str().contains('@')
        && text == written.to_lowercase()
}

/// `OPTIONS` is answered with the methods of the address (RFC 9110 section 9.3.7).
pub(crate) async fn answer_options<F>(request: Request, next: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let is_options = request.method() == Method::OPTIONS;
    let mut response = next(request).await;
    if !is_options || response.status() != StatusCode::METHOD_NOT_ALLOWED {
        return response;
    }
    // The router adds its own `Allow` later, a flow's own address has told it here.
    let allow = response.headers_mut().remove(header::ALLOW);
    let mut answer = StatusCode::NO_CONTENT.into_response();
    answer.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
    answer
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::{HeaderMap, request};
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::caller::Caller;
    use crate::frame::Frame;

    const SHOP: &str = "https://shop.example.com";

    #[test]
    fn an_origin_is_what_browsers_send_as_one() {
        let parse = |texts: &[&str]| Origins::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        for taken in [&[][..], &["*"], &[SHOP, "http://localhost:3000"], &["http://[::1]:8080"]] {
            assert_eq!(parse(taken).unwrap().0.len(), taken.len(), "{taken:?}");
        }
        let wrong =
            ["shop.example.com", "https://shop.example.com/", "https://Shop.example.com", "ftp://x", "null", ""];
        for wrong in wrong.into_iter().chain(["https://shop.example.com:443", "https://me@x.com", "https://*.x.com/a"])
        {
            assert_eq!(parse(&[wrong]).unwrap_err(), NotAnOrigin(wrong.to_owned()));
        }
        assert_eq!(parse(&[SHOP, "*"]).unwrap_err(), NotAnOrigin("*".to_owned()));
    }

    async fn ask(origins: &[&str], request: request::Builder) -> (StatusCode, HeaderMap) {
        let texts: Vec<String> = origins.iter().map(|text| (*text).to_owned()).collect();
        let frame = Frame { origins: Origins::parse(&texts).unwrap(), ..Frame::of_tests(Caller::unrestricted("acme")) };
        let routes = Router::new().route("/jobs", get("").post("")).route("/missing", get(StatusCode::NOT_FOUND));
        let response = frame.around(routes).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        (response.status(), response.headers().clone())
    }

    #[tokio::test]
    async fn options_tells_the_methods_of_an_address() {
        let (status, headers) = ask(&[], Request::options("/jobs")).await;
        assert_eq!((status, headers["allow"].to_str().unwrap()), (StatusCode::NO_CONTENT, "GET,HEAD,POST"));
        let (status, _) = ask(&[], Request::options("/nowhere")).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        let (status, headers) = ask(&[], Request::put("/jobs")).await;
        assert_eq!((status, headers["allow"].to_str().unwrap()), (StatusCode::METHOD_NOT_ALLOWED, "GET,HEAD,POST"));
    }

    #[tokio::test]
    async fn pages_of_the_named_origins_may_ask_and_read_errors_too_and_no_others() {
        let preflight = |origin: &str| {
            let request = Request::options("/jobs").header("origin", origin);
            request.header("access-control-request-method", "POST").header("access-control-request-headers", "prefer")
        };
        let (status, headers) = ask(&[SHOP], preflight(SHOP)).await;
        assert_eq!((status, headers["access-control-allow-origin"].to_str().unwrap()), (StatusCode::OK, SHOP));
        let said = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert!(said("access-control-allow-headers").contains("idempotency-key"));
        assert!(said("access-control-allow-methods").contains("DELETE"));
        assert!(!headers.contains_key("access-control-allow-credentials"));
        let (_, headers) = ask(&[SHOP], preflight("https://elsewhere.example.com")).await;
        assert!(!headers.contains_key("access-control-allow-origin"), "{headers:?}");

        let (status, headers) = ask(&[SHOP], Request::get("/missing").header("origin", SHOP)).await;
        assert_eq!((status, headers["access-control-allow-origin"].to_str().unwrap()), (StatusCode::NOT_FOUND, SHOP));
        assert!(headers["access-control-expose-headers"].to_str().unwrap().contains("retry-after"));
        assert!(headers["vary"].to_str().unwrap().contains("origin"), "{headers:?}");
        let (_, headers) = ask(&["*"], Request::get("/jobs").header("origin", SHOP)).await;
        assert_eq!(headers["access-control-allow-origin"], "*");
        let (_, headers) = ask(&[], Request::get("/jobs").header("origin", SHOP)).await;
        assert!(!headers.contains_key("access-control-allow-origin") && !headers.contains_key("vary"), "{headers:?}");
    }
}
