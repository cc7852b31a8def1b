//! The service that is called: it answers at once, or when it is told to, or after a set time, and keeps account of
//! each call that it does not answer at once.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use flow::id::JobId;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use test_kit::eventually;
use tokio::net::TcpSocket;
use tokio::sync::{oneshot, watch};

use crate::stage::PATIENCE;

/// Connections that may wait to be accepted: thousands of calls begin at once.
const CONNECTING_MAX: u32 = 4_096;
/// How long a refusal takes.
const BUSY: Duration = Duration::from_secs(1);

/// One call that was not answered at once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Call {
    /// Its place among all beginnings and ends.
    pub(crate) began_at: u64,
    /// The same of its answer.
    pub(crate) ended_at: Option<u64>,
    /// Whoever called went away before the answer.
    pub(crate) cut: bool,
}

/// All calls of each idempotency key, in the order in which they began.
type Calls = BTreeMap<String, Vec<Call>>;

/// A running service; it goes when dropped.
#[derive(Debug)]
pub(crate) struct Called {
    url: String,
    books: Arc<Books>,
    /// Ends the server when dropped.
    _end: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Books {
    calls: Mutex<Calls>,
    places: AtomicU64,
    open: AtomicUsize,
    released: watch::Sender<bool>,
}

impl Called {
    pub(crate) async fn start() -> Self {
        let books = Arc::new(Books {
            calls: Mutex::default(),
            places: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            released: watch::Sender::new(false),
        });
        let router = Router::new().route("/{how}", post(answer)).with_state(Arc::clone(&books));
        let (bound, url) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        // On a thread of its own: a service that is slow to accept thousands of calls has the kernel cut some of them.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
                let listener = socket.listen(CONNECTING_MAX).unwrap();
                let _ = bound.send(format!("http://{}", listener.local_addr().unwrap()));
                tokio::select! {
                    served = axum::serve(listener, router).into_future() => served.unwrap(),
                    _ = ended => {}
                }
            });
        });
        Self { url: url.await.unwrap(), books, _end: end }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Answers all held calls, and those that come from now on.
    pub(crate) fn release(&self) {
        self.books.released.send_replace(true);
    }

    /// How many idempotency keys there were.
    pub(crate) fn keys(&self) -> usize {
        self.books.calls().len()
    }

    /// The calls of a job's only step.
    pub(crate) fn calls_of(&self, job: JobId) -> Vec<Call> {
        self.books.calls().get(&key_of(job)).cloned().unwrap_or_default()
    }

    /// Calls that are neither answered nor cut.
    pub(crate) fn open(&self) -> usize {
        self.books.open.load(Ordering::SeqCst)
    }

    pub(crate) async fn until_open(&self, calls: usize) {
        let enough = async || (self.open() == calls).then_some(());
        eventually(PATIENCE, &format!("{calls} calls are open"), enough).await;
    }

    /// Waits until each of these jobs was called so many times.
    pub(crate) async fn until_called(&self, jobs: &[JobId], times: usize) {
        eventually(PATIENCE, &format!("{} jobs are called {times} times", jobs.len()), async || {
            let calls = self.books.calls();
            let called = |job: &JobId| calls.get(&key_of(*job)).is_some_and(|calls| calls.len() >= times);
            jobs.iter().all(called).then_some(())
        })
        .await;
    }

    /// Holds that each of these jobs was called once, and that nobody hung up.
    pub(crate) fn assert_called_once(&self, jobs: &[JobId]) {
        for job in jobs {
            let calls = self.calls_of(*job);
            assert!(matches!(calls[..], [Call { cut: false, .. }]), "{job}: {calls:?}");
        }
    }
}

/// The idempotency key of a job's only step.
fn key_of(job: JobId) -> String {
    format!("{job}:call:1")
}

impl Books {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock()
    }

    fn begin(self: &Arc<Self>, headers: &HeaderMap) -> Open {
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
        let began_at = self.places.fetch_add(1, Ordering::SeqCst);
        let mut calls = self.calls();
        let of_key = calls.entry(key.clone()).or_default();
        of_key.push(Call { began_at, ..Call::default() });
        let number = of_key.len() - 1;
        self.open.fetch_add(1, Ordering::SeqCst);
        Open { books: Arc::clone(self), key, number, ended: false }
    }
}

/// A call that is under way. Dropped before its end: the server does that when the client is gone.
struct Open {
    books: Arc<Books>,
    key: String,
    number: usize,
    ended: bool,
}

impl Open {
    fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.books.open.fetch_sub(1, Ordering::SeqCst);
        let mut calls = self.books.calls();
        if let Some(call) = calls.get_mut(&self.key).and_then(|calls| calls.get_mut(self.number)) {
            call.cut = !self.ended;
            call.ended_at = self.ended.then(|| self.books.places.fetch_add(1, Ordering::SeqCst));
        }
    }
}

/// Answers as the path says.
async fn answer(
    State(books): State<Arc<Books>>,
    Path(how): Path<String>,
    headers: HeaderMap,
) -> (StatusCode, Json<Value>) {
    let body = json!({});
    match how.as_str() {
        "quick" => return (StatusCode::OK, Json(body)),
        "refused" => return (StatusCode::PAYMENT_REQUIRED, Json(body)),
        _ => {}
    }
    let open = books.begin(&headers);
    let (status, body) = match how.as_str() {
        "noted" => (StatusCode::OK, body),
        "held" => {
            let mut released = books.released.subscribe();
            // The sender is in the books, which we have.
            let _ = released.wait_for(|released| *released).await;
            (StatusCode::OK, body)
        }
        // Whoever is refused calls again and again, until it is answered.
        "busy" => {
            tokio::time::sleep(BUSY).await;
            let released = *books.released.borrow();
            (if released { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
        }
        _ => {
            let ms = how.strip_prefix("takes-").and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("/{how}"));
            tokio::time::sleep(Duration::from_millis(ms)).await;
            (StatusCode::OK, json!({ "took": ms }))
        }
    };
    open.end();
    (status, Json(body))
}
