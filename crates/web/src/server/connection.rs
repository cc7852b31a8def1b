//! One connection, from its acceptance to its end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::{HeaderValue, Version};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use service_kit::CancellationToken;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};
use tower::ServiceExt;

use super::activity::{Activity, Answering, End};
use super::tls::Beginning;
use super::wire::Wire;
use super::{Crowd, Server};
use crate::arrival::Patience;
use crate::client_address::Peer;

/// The parts that all connections of a door share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connection {
    server: Arc<Server>,
    builder: Arc<Builder<TokioExecutor>>,
    router: Router,
    crowded: Arc<Notify>,
    shutdown: CancellationToken,
}

impl Connection {
    pub(super) fn new(server: Server, router: Router, crowded: Arc<Notify>, shutdown: CancellationToken) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().max_buf_size(server.limits.head_bytes_max);
        builder.http2().enable_connect_protocol();
        Self { server: Arc::new(server), builder: Arc::new(builder), router, crowded, shutdown }
    }

    /// Serves a connection from its handshake, where it has one, to its end. It has its place all the time.
    pub(super) async fn begin<I>(self, io: I, peer: IpAddr, place: Option<OwnedSemaphorePermit>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(tls) = self.server.tls.clone() else { return self.run(io, peer, place).await };
        let limited = timeout(self.server.limits.head_timeout, tls.begin(io));
        let Some(begun) = self.shutdown.clone().run_until_cancelled(limited).await else { return };
        match begun {
            Ok(Ok(Beginning::Tls(io))) => self.run(*io, peer, place).await,
            Ok(Ok(Beginning::Plain(mut io))) => {
                tracing::debug!(%peer, "a connection without TLS at a port that speaks it");
                self.tell(&mut io, &self.server.refuse_plain()).await;
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a handshake that failed"),
            Err(_) => tracing::debug!(%peer, "a handshake that took too long"),
        }
    }

    /// Serves a connection to its end.
    async fn run<I>(self, io: I, peer: IpAddr, place: Option<OwnedSemaphorePermit>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = Arc::new(Mutex::new(io));
        let place = place.map(Arc::new);
        let end = self.answer(Arc::clone(&io), peer, place.as_ref()).await;
        let (Some(End::LateHead), Some(io)) = (end, Arc::into_inner(io)) else { return };
        self.tell(&mut io.into_inner(), &self.server.refuse_late_head()).await;
    }

    /// Sends an answer and closes, as good as it goes: the other side may be gone.
    async fn tell<I: AsyncWrite + Unpin>(&self, io: &mut I, answer: &[u8]) {
        let sending = async { io.write_all(answer).await.and(io.shutdown().await) };
        let _ = timeout(self.server.limits.head_timeout, sending).await;
    }

    /// Answers requests until the other side or a limit ends the connection; a limit is returned.
    async fn answer<I>(&self, io: Arc<Mutex<I>>, peer: IpAddr, place: Option<&Arc<OwnedSemaphorePermit>>) -> Option<End>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::new());
        let wire = TokioIo::new(Wire::new(io, Arc::clone(&activity), Arc::clone(&self.server)));
        let body_timeout = self.server.limits.body_timeout;
        // One for all requests: every clone of a token takes a lock that all connections share.
        let patience = Arc::new(Patience { body_timeout, leaving: self.shutdown.clone() });
        let service = service_fn(|request: axum::http::Request<Incoming>| {
            let mut request = request.map(Body::new);
            name_host(&mut request);
            request.extensions_mut().insert(Arc::clone(&patience));
            request.extensions_mut().insert(Peer(peer));
            if request.version() <= Version::HTTP_11 {
                request.extensions_mut().insert(Crowd { line: Arc::clone(&self.crowded), _place: place.cloned() });
            }
            respond(self.router.clone(), activity.request(), request)
        });
        let mut serving = pin!(self.builder.serve_connection_with_upgrades(wire, service));
        let (mut stopping, mut leaving) = (pin!(self.shutdown.cancelled()), false);
        let mut turn = pin!(None);
        // Requests do not move it: a connection that is busy would otherwise set a timer for each of them.
        let mut look = pin!(sleep_until(activity.next_look(&self.server.limits)));
        loop {
            tokio::select! {
                biased;
                // An error here is the other side's; it has been answered where that is possible.
                _ = serving.as_mut() => return None,
                // Looked at after a request may have been read just now.
                () = poll_fn(|_| ready_if(activity.owes_nothing())), if leaving => return None,
                () = activity.answered.notified(), if leaving => {}
                () = stopping.as_mut(), if !leaving => {
                    leaving = true;
                    if !activity.owes_nothing() {
                        serving.as_mut().graceful_shutdown();
                    }
                }
                () = look.as_mut() => {
                    if let Some((at, end)) = activity.deadline(&self.server.limits)
                        && at <= Instant::now()
                    {
                        return Some(end);
                    }
                    look.as_mut().reset(activity.next_look(&self.server.limits));
                }
                () = poll_fn(|cx| poll_crowded(&activity, &self.crowded, turn.as_mut(), cx)) => return Some(End::Idle),
            }
        }
    }
}

/// HTTP/2 names the host in the request's address; problems take it from the header (RFC 9113 section 8.3.1).
fn name_host(request: &mut Request) {
    if request.headers().contains_key(HOST) {
        return;
    }
    let authority = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    request.headers_mut().extend(authority.map(|authority| (HOST, authority)));
}

const fn ready_if(is_ready: bool) -> Poll<()> {
    if is_ready { Poll::Ready(()) } else { Poll::Pending }
}

/// Waits in the line of connections that have to make room, as long as this one is idle.
fn poll_crowded<'a>(
    activity: &Activity,
    line: &'a Notify,
    mut place: Pin<&mut Option<Notified<'a>>>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    if !activity.is_idle() {
        // The next one is woken instead, if it was this one's turn.
        place.set(None);
        return Poll::Pending;
    }
    if place.is_none() {
        place.set(Some(line.notified()));
    }
    place.as_pin_mut().map_or(Poll::Pending, |place| place.poll(cx))
}

async fn respond(router: Router, answering: Answering, request: Request) -> Result<Response, Infallible> {
    let response = router.oneshot(request).await?;
    Ok(response.map(|body| Body::new(Answer { body, _answering: answering })))
}

/// The body of an answer, which is over when it is dropped.
struct Answer {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
