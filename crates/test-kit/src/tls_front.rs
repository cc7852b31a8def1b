//! TLS and basic authentication in front of a server that has neither: as a deployment's proxy stands there.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use axum::serve::Listener;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificates::Leaf;
use crate::http::http_client;

struct Target {
    url: String,
    /// The only value of `Authorization` that is let through.
    login: String,
}

/// A door with TLS on 127.0.0.1 that passes requests with the right login on. It goes when dropped.
pub struct TlsFront {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl TlsFront {
    /// Stands in front of `http://HOST:PORT`.
    ///
    /// # Errors
    /// The certificate cannot be used, or no port can be had.
    pub async fn start(leaf: &Leaf, url: &str, user: &str, password: &str) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = vec![CertificateDer::from_pem_file(&leaf.certificate).context("the certificate")?];
        let key = PrivateKeyDer::from_pem_file(&leaf.key).context("the key")?;
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_no_client_auth().with_single_cert(chain, key)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a port")?;
        let address = listener.local_addr().context("the port")?;
        let login = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let target = Arc::new(Target { url: url.trim_end_matches('/').to_owned(), login });
        let router = Router::new().fallback(pass_on).with_state(target);
        let door = Door { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
        let task = tokio::spawn(async move {
            let _ = axum::serve(door, router).await;
        });
        Ok(Self { address, task })
    }

    /// `https://localhost:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Door {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Door {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    /// One handshake after the other: there are few callers.
    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, peer)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn pass_on(
    State(target): State<Arc<Target>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let status = |status: StatusCode| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response
    };
    if headers.get(AUTHORIZATION).is_none_or(|value| value.as_bytes() != target.login.as_bytes()) {
        return status(StatusCode::UNAUTHORIZED);
    }
    let mut request = http_client().request(method, format!("{}{uri}", target.url)).body(body);
    for (name, value) in &headers {
        if [CONTENT_TYPE.as_str(), "accept"].contains(&name.as_str()) {
            request = request.header(name, value);
        }
    }
    let Ok(answer) = request.send().await else { return status(StatusCode::BAD_GATEWAY) };
    let mut response = status(answer.status());
    response.headers_mut().extend(answer.headers().get(CONTENT_TYPE).cloned().map(|value| (CONTENT_TYPE, value)));
    response.headers_mut().remove(CONTENT_LENGTH);
    *response.body_mut() = answer.bytes().await.unwrap_or_default().into();
    response
}
