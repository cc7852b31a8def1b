//! Passes requests on to another service as they are: bodies are streamed both ways, and never whole in memory.
//!
//! Nothing is added but what HTTP itself needs: whoever calls has made the headers. No request is sent twice.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Body, Method, StatusCode, Version};
use url::Url;

use crate::root_cause;

/// The limits of a forwarder.
#[derive(Debug, Clone)]
pub struct ForwardLimits {
    pub connect_timeout: Duration,
    /// The most idle connections per host.
    pub idle_connections_max: usize,
    /// Less than the other services keep theirs: a request that meets a connection's end is lost, and is not repeated.
    pub idle_timeout: Duration,
}

/// A request to be passed on.
#[derive(Debug)]
pub struct Forward<B> {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    /// None: the request has no body.
    pub body: Option<B>,
}

/// The beginning of an answer; its body comes by and by, trailers and all.
#[derive(Debug)]
pub struct Forwarded {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Body,
}

/// The reason for which there is no answer. No text has the URL in it.
#[derive(Debug, thiserror::Error)]
pub enum NotForwarded {
    /// The other side has seen nothing.
    #[error("no connection to the service: {0}")]
    NoConnection(String),
    /// The other side may have seen the request.
    #[error("the connection to the service was lost: {0}")]
    Lost(String),
}

/// Passes requests on. It keeps connections and uses them again.
#[derive(Debug)]
pub struct Forwarder(reqwest::Client);

impl Forwarder {
    /// # Errors
    /// The system's certificates cannot be read, or a variable names no proxy.
    pub fn new(limits: &ForwardLimits) -> anyhow::Result<Self> {
        service_kit::tls::install_ring();
        let builder = proxies::client_builder()?
            .redirect(Policy::none())
            // The other side's coding is the client's to undo.
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd()
            .connect_timeout(limits.connect_timeout)
            .pool_max_idle_per_host(limits.idle_connections_max)
            .pool_idle_timeout(limits.idle_timeout)
            .tcp_nodelay(true);
        Ok(Self(builder.build().context("building the client of the proxy")?))
    }

    /// Passes a request on. Dropping the answer, or this future, ends the call.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send<B>(&self, request: Forward<B>) -> Result<Forwarded, NotForwarded>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Forward { method, url, headers, body } = request;
        let mut request = reqwest::Request::new(method, url);
        *request.headers_mut() = headers;
        *request.body_mut() = body.map(|body| Body::wrap(Alone(Mutex::new(body))));
        let response = self.0.execute(request).await.map_err(|error| {
            let error = error.without_url();
            let cause = root_cause(&error);
            if error.is_connect() { NotForwarded::NoConnection(cause) } else { NotForwarded::Lost(cause) }
        })?;
        let (status, version, headers) = (response.status(), response.version(), response.headers().clone());
        Ok(Forwarded { status, version, headers, body: Body::from(response) })
    }
}

/// A body that the client may share between threads, which it does not do: nobody ever waits for the lock.
struct Alone<B>(Mutex<B>);

impl<B: HttpBody + Unpin> HttpBody for Alone<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(self.0.get_mut()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}
