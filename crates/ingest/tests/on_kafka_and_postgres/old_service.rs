//! An old service behind a flow's own address: it tells what it was asked, and answers as a test wants.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

/// A request that it was asked.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Default)]
struct Inside {
    seen: Mutex<Vec<Seen>>,
    /// Told when a caller has left before its answer was whole.
    left: Notify,
    /// The parts of a streamed answer.
    parts: Mutex<Option<mpsc::UnboundedReceiver<String>>>,
}

pub(crate) struct OldService {
    pub(crate) url: String,
    inside: Arc<Inside>,
}

/// Tells when it is dropped before its time.
struct Leaving(Arc<Inside>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.left.notify_one();
    }
}

impl OldService {
    pub(crate) async fn start() -> Self {
        let inside = Arc::<Inside>::default();
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&inside));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, inside }
    }

    /// What it was asked since the last time.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.inside.seen.lock())
    }

    /// Returns once a caller has left before its answer was whole.
    pub(crate) async fn left(&self) {
        self.inside.left.notified().await;
    }

    /// The next answer is streamed: its parts come from here.
    pub(crate) fn stream(&self) -> mpsc::UnboundedSender<String> {
        let (sender, parts) = mpsc::unbounded_channel();
        *self.inside.parts.lock() = Some(parts);
        sender
    }
}

async fn answer(State(inside): State<Arc<Inside>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query: HashMap<String, String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let length = body.len();
    let target = parts.uri.path_and_query().unwrap().to_string();
    inside.seen.lock().push(Seen { method: parts.method.to_string(), target, headers: parts.headers, body });
    let leaving = Leaving(Arc::clone(&inside));
    if let Some(ms) = query.get("sleep_ms") {
        tokio::time::sleep(Duration::from_millis(ms.parse().unwrap())).await;
    }
    let streamed = inside.parts.lock().take();
    std::mem::forget(leaving);
    if let Some(parts) = streamed {
        let leaving = Leaving(inside);
        let parts = stream::unfold((parts, leaving), async |(mut parts, leaving)| match parts.recv().await {
            Some(part) => Some((Ok::<_, std::io::Error>(Bytes::from(part)), (parts, leaving))),
            None => {
                std::mem::forget(leaving);
                None
            }
        });
        return Body::from_stream(parts.boxed()).into_response();
    }
    let status = query.get("status").map_or(200, |status| status.parse().unwrap());
    let mut response = (StatusCode::from_u16(status).unwrap(), format!("old: {length}")).into_response();
    for cookie in ["a=1", "b=2"] {
        response.headers_mut().append(header::SET_COOKIE, HeaderValue::from_static(cookie));
    }
    response.headers_mut().insert("x-own", HeaderValue::from_static("1"));
    response.headers_mut().insert("keep-alive", HeaderValue::from_static("timeout=5"));
    response
}
