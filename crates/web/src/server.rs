//! Serves the routes of a door to its connections, within limits.
//!
//! Promise: a connection that does nothing, or that sends only a part of a request, is closed after its limit, with 408
//! where HTTP allows an answer. At shutdown such connections are closed at once; requests that arrived whole are
//! answered. Errors that the HTTP library finds itself (a head that is too large, or that is no HTTP) are problems too.

mod activity;
mod connection;
mod refusal;
mod tls;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use axum::Router;
use axum::serve::{Listener, ListenerExt as _};
use service_kit::CancellationToken;
use service_kit::identity::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::problem::PublicUrl;
use crate::server::connection::Connection;
pub use crate::server::tls::Tls;

/// The limits of a door and of each of its connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once. At the limit the one that has been idle longest is closed, or one whose request only waits
    /// is answered before its time ([`Crowd`]), and new ones wait.
    pub connections_max: usize,
    /// The longest head of a request, with its URL; a longer one is answered with 431 (or 414).
    pub head_bytes_max: usize,
    /// The time from the first byte of a head to its end; with TLS, also the time of its handshake.
    pub head_timeout: Duration,
    /// The time from the end of a head to the end of its body.
    pub body_timeout: Duration,
    /// The time without any request, or without reading an answer.
    pub idle_timeout: Duration,
    /// The time that answers may still take after shutdown was requested.
    pub leave_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Many systems give a process 1,024 files; Kafka and Postgres need some of them.
            connections_max: 800,
            head_bytes_max: 32 * 1024,
            head_timeout: Duration::from_secs(10),
            // 512 KiB, the largest body, at the 10 kB/s of a very slow line.
            body_timeout: Duration::from_secs(60),
            // Longer than the 60 s of common load balancers, which otherwise send a request into a closing connection.
            idle_timeout: Duration::from_secs(75),
            // Less than a process waits for its tasks.
            leave_timeout: Duration::from_secs(20),
        }
    }
}

/// Connections that send what is small at once. Otherwise the second piece of an answer waits until the caller has
/// acknowledged the first (RFC 896), which many put off for 40 ms (RFC 1122 section 4.2.3.2).
pub fn without_delay(listener: TcpListener) -> impl Listener<Io = TcpStream, Addr = SocketAddr> {
    listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection that is slow to send");
        }
    })
}

/// Serves routes.
#[derive(Debug, Clone)]
pub struct Server {
    pub limits: Limits,
    /// The address at which callers reach the door.
    pub public_url: PublicUrl,
    /// Tells the date of answers that no handler made.
    pub clock: Clock,
    /// None: plain HTTP.
    pub tls: Option<Tls>,
}

impl Server {
    /// A server with the usual limits, and without TLS.
    pub fn new(public_url: PublicUrl, clock: Clock) -> Self {
        Self { limits: Limits::default(), public_url, clock, tls: None }
    }

    /// Serves until shutdown. Then requests that arrived whole are answered, and everything else is closed.
    ///
    /// # Errors
    /// None at present: a listener tries again by itself.
    pub async fn serve<L: Listener<Addr = SocketAddr>>(
        self,
        mut listener: L,
        router: Router,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let leave_timeout = self.limits.leave_timeout;
        let places = Places::new(self.limits.connections_max)?;
        let connection = Connection::new(self, router, Arc::clone(&places.crowded), shutdown.clone());
        let mut connections = JoinSet::new();
        let accepting = async {
            loop {
                let place = places.take().await;
                let (io, peer) = listener.accept().await;
                connections.spawn(connection.clone().begin(io, peer.ip(), place));
                while connections.try_join_next().is_some() {}
            }
        };
        let never: Option<std::convert::Infallible> = shutdown.run_until_cancelled(accepting).await;
        debug_assert!(never.is_none());
        drop(listener);
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(leave_timeout, ended).await.is_err() {
            let cut = connections.len();
            tracing::warn!(connections = cut, "answers took too long after shutdown was requested; cut off");
            connections.shutdown().await;
        }
        Ok(())
    }
}

/// Connections that wait for room. HTTP/1 requests have it in their extensions: a handler that only waits can give its
/// connection up. In HTTP/2 a request alone cannot.
#[derive(Debug, Clone)]
pub struct Crowd {
    line: Arc<Notify>,
    /// Whoever holds this holds the connection's place, also after the connection has become another protocol's.
    _place: Option<Arc<OwnedSemaphorePermit>>,
}

impl Crowd {
    /// Returns once it is this request's turn to make room. Its answer has to say `Connection: close` then.
    pub async fn wanted(&self) {
        self.line.notified().await;
    }
}

/// Room for connections.
struct Places {
    free: Arc<Semaphore>,
    /// Wakes an idle connection, which leaves.
    crowded: Arc<Notify>,
}

impl Places {
    fn new(connections_max: usize) -> anyhow::Result<Self> {
        if connections_max == 0 {
            bail!("a door without connections");
        }
        Ok(Self { free: Arc::new(Semaphore::new(connections_max)), crowded: Arc::default() })
    }

    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if self.free.available_permits() == 0 {
            self.crowded.notify_one();
        }
        // Never closed.
        Arc::clone(&self.free).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests;
