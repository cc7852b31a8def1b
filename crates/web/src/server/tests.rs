use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Extension;
use axum::body::Bytes;
use axum::routing::{get, post};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::caller::Caller;
use crate::context::RequestContext;
use crate::frame::Frame;

/// What a connection may hold on its way.
const WIRE_BYTES: usize = 64 * 1024;
/// Who calls.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4_711);
/// A URL that no door takes.
const LONG: usize = 100_000;

/// Connections without a network: the clock stands still while anything is under way.
struct Callers(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Callers {
    type Io = DuplexStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (DuplexStream, SocketAddr) {
        match self.0.recv().await {
            Some(io) => (io, PEER),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(PEER)
    }
}

/// A door that is open.
pub(super) struct Door {
    callers: mpsc::UnboundedSender<DuplexStream>,
    pub(super) shutdown: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
    /// Requests whose handler has begun.
    begun: Arc<AtomicUsize>,
    /// Lets `/slow` answer.
    go: Arc<Notify>,
}

impl Door {
    pub(super) fn open(limits: Limits) -> Self {
        Self::with(limits, None)
    }

    pub(super) fn with(limits: Limits, tls: Option<Tls>) -> Self {
        let (callers, listener) = mpsc::unbounded_channel();
        let (shutdown, begun, go) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (count, wait) = (Arc::clone(&begun), Arc::clone(&go));
        let slow = async move || {
            count.fetch_add(1, Ordering::SeqCst);
            wait.notified().await;
            "done"
        };
        let count = Arc::clone(&begun);
        let waits = async move |Extension(context): Extension<RequestContext>| {
            count.fetch_add(1, Ordering::SeqCst);
            context.crowd.unwrap().wanted().await;
            ([("connection", "close")], "room")
        };
        let routes = Router::new()
            .route("/slow", get(slow))
            .route("/waits", get(waits))
            .route("/large", get(async || vec![b'x'; 10 * WIRE_BYTES]))
            .route("/missing", get(async || axum::http::StatusCode::NOT_FOUND))
            .route("/jobs", post(async |body: Bytes| body.len().to_string()));
        let frame = Frame::of_tests(Caller::unrestricted("acme"));
        let server = Server { limits, public_url: frame.public_url.clone(), clock: Clock::manual(0), tls };
        let serving = server.serve(Callers(listener), frame.around(routes), shutdown.clone());
        #[expect(clippy::disallowed_methods, reason = "the test waits for its end")]
        let serving = tokio::spawn(serving);
        Self { callers, shutdown, serving, begun, go }
    }

    pub(super) fn call(&self) -> DuplexStream {
        let (ours, theirs) = duplex(WIRE_BYTES);
        self.callers.send(theirs).unwrap();
        ours
    }

    /// Sends this and returns what comes until the door closes, and the time that it took.
    async fn tell(&self, sent: &str) -> (String, Duration) {
        let mut caller = self.call();
        let began = Instant::now();
        caller.write_all(sent.as_bytes()).await.unwrap();
        (rest(&mut caller).await, began.elapsed())
    }

    async fn begins(&self, requests: usize) {
        while self.begun.load(Ordering::SeqCst) < requests {
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn leave(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

pub(super) async fn rest(caller: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    caller.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// One answer whose body ends with this.
async fn until(caller: &mut DuplexStream, end: &str) -> String {
    let mut answer = String::new();
    while !answer.ends_with(end) {
        answer.push(char::from(caller.read_u8().await.unwrap()));
    }
    answer
}

/// The status and the kind of problem of an answer.
pub(super) fn problem(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: `{answer}`"));
    assert!(head.contains("content-type: application/problem+json") && head.contains("date: "), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    let length = format!("content-length: {}", body.len());
    assert!(head.contains(&length), "{head}\n{body}");
    let body: Value = serde_json::from_str(body).unwrap();
    let kind = body["type"].as_str().unwrap().strip_prefix("https://api.example.com/problems/").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(body["status"], status);
    (status, kind.to_owned())
}

fn post_of(length: usize) -> String {
    format!("POST /jobs HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n")
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_sends_nothing_is_closed_after_the_idle_time() {
    let limits = Limits::default();
    let door = Door::open(limits);
    assert_eq!(door.tell("").await, (String::new(), limits.idle_timeout));
    // After an answer, too.
    let (answer, took) = door.tell("GET /missing HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert_eq!(took, limits.idle_timeout);
    door.leave().await;
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_answered_with_408_after_the_time_for_a_head() {
    let limits = Limits::default();
    let door = Door::open(limits);
    for half in ["G", "PRI ", "POST /jobs HTTP/1.1\r\nho", "POST /jobs HTTP/1.1\r\nhost: a\r\n"] {
        let (answer, took) = door.tell(half).await;
        assert_eq!((problem(&answer), took), ((408, "request-timeout".to_owned()), limits.head_timeout), "{half}");
    }
    door.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_in_drops_has_no_more_time_than_any_other() {
    let limits = Limits { head_timeout: Duration::from_secs(10), ..Limits::default() };
    let door = Door::open(limits);
    let mut caller = door.call();
    for byte in 0..10 {
        caller.write_u8(b"POST /jobs"[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(999)).await;
    }
    let answer = rest(&mut caller).await;
    assert_eq!(problem(&answer).0, 408);
    door.leave().await;
}

#[tokio::test(start_paused = true)]
async fn half_a_body_is_answered_with_408_after_the_time_for_a_body() {
    let limits = Limits::default();
    let door = Door::open(limits);
    let (answer, took) = door.tell(&(post_of(10) + "half")).await;
    assert_eq!((problem(&answer), took), ((408, "request-timeout".to_owned()), limits.body_timeout));
    door.leave().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_is_given_up() {
    let limits = Limits::default();
    let door = Door::open(limits);
    let mut caller = door.call();
    caller.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(limits.idle_timeout + Duration::from_secs(1)).await;
    assert_eq!(rest(&mut caller).await.len(), WIRE_BYTES, "what was on the way, and no more");
    door.leave().await;
}

#[tokio::test(start_paused = true)]
async fn unfinished_requests_are_closed_at_shutdown_and_whole_ones_are_answered() {
    let door = Door::open(Limits::default());
    let (mut whole, mut nothing, mut head, mut body) = (door.call(), door.call(), door.call(), door.call());
    whole.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    head.write_all(b"POST /jobs HTTP/1.1\r\n").await.unwrap();
    body.write_all((post_of(10) + "half").as_bytes()).await.unwrap();
    door.begins(1).await;
    let began = Instant::now();
    door.shutdown.cancel();
    assert_eq!(rest(&mut nothing).await, "");
    assert_eq!(rest(&mut head).await, "");
    assert_eq!(problem(&rest(&mut body).await), (503, "not-ready".to_owned()));
    door.go.notify_one();
    let answer = rest(&mut whole).await;
    assert!(answer.contains("connection: close") && answer.ends_with("done"), "{answer}");
    door.serving.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_does_not_stop_the_process_from_leaving() {
    let limits = Limits::default();
    let door = Door::open(limits);
    let mut caller = door.call();
    caller.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    door.begins(1).await;
    let began = Instant::now();
    door.leave().await;
    assert_eq!(began.elapsed(), limits.leave_timeout);
    assert_eq!(rest(&mut caller).await, "");
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_the_connection_that_was_idle_longest_makes_room() {
    let door = Door::open(Limits { connections_max: 2, ..Limits::default() });
    let (mut busy, mut idle) = (door.call(), door.call());
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    door.begins(1).await;
    let began = Instant::now();
    let mut third = door.call();
    third.write_all((post_of(2) + "hi").as_bytes()).await.unwrap();
    assert_eq!(rest(&mut idle).await, "");
    let answer = until(&mut third, "\r\n\r\n2").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    door.go.notify_one();
    until(&mut busy, "done").await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    door.leave().await;
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_a_request_that_only_waits_makes_room_too() {
    let door = Door::open(Limits { connections_max: 2, ..Limits::default() });
    let began = Instant::now();
    let (mut first, mut second) = (door.call(), door.call());
    first.write_all(b"GET /waits HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    door.begins(1).await;
    second.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let answer = rest(&mut first).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("room"), "{answer}");
    let mut third = door.call();
    third.write_all((post_of(2) + "hi").as_bytes()).await.unwrap();
    let answer = until(&mut third, "\r\n\r\n2").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    door.go.notify_one();
    until(&mut second, "done").await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    door.leave().await;
}

#[tokio::test(start_paused = true)]
async fn errors_below_the_router_are_problems_and_answers_of_handlers_stay_as_they_are() {
    let door = Door::open(Limits::default());
    let many: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let large = format!("x-large: {}\r\n", "x".repeat(LONG));
    let cases = [
        (format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(LONG)), 414, "uri-too-long"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431, "headers-too-large"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{large}\r\n"), 431, "headers-too-large"),
        ("GET / HTTP/1.1\r\nho st: a\r\n\r\n".to_owned(), 400, "bad-request"),
        ("nonsense\r\n\r\n".to_owned(), 400, "bad-request"),
    ];
    for (sent, status, kind) in cases {
        let mut caller = door.call();
        // The door may close before it has read everything.
        let _ = caller.write_all(sent.as_bytes()).await;
        assert_eq!(problem(&rest(&mut caller).await), (status, kind.to_owned()), "{}", &sent[..sent.len().min(60)]);
    }
    let two = "GET /missing HTTP/1.1\r\nhost: a\r\n\r\nGET /missing HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let (answer, _) = door.tell(two).await;
    assert_eq!(answer.matches("HTTP/1.1 404 Not Found").count(), 2, "{answer}");
    assert_eq!(answer.matches("/problems/not-found").count(), 2, "{answer}");
    door.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_in_a_coding_is_refused_before_any_of_it_is_asked_for() {
    let door = Door::open(Limits::default());
    let coded = post_of(2).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\ncontent-encoding: gzip\r\n\r\n");
    let (answer, _) = door.tell(&coded).await;
    assert!(answer.starts_with("HTTP/1.1 415 ") && answer.contains("accept-encoding: identity"), "{answer}");
    assert!(answer.contains("/problems/unsupported-media-type"), "{answer}");
    door.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_refused_before_any_of_it_is_asked_for() {
    let door = Door::open(Limits::default());
    let expecting = |length| post_of(length).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    let (answer, took) = door.tell(&expecting(1_001)).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && !answer.contains("100 Continue"), "{answer}");
    assert_eq!(took, Duration::ZERO);
    let mut caller = door.call();
    caller.write_all(expecting(2).as_bytes()).await.unwrap();
    assert_eq!(until(&mut caller, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    caller.write_all(b"hi").await.unwrap();
    until(&mut caller, "\r\n\r\n2").await;
    door.leave().await;
}

#[tokio::test]
async fn what_is_small_is_sent_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (connection, peer) = without_delay(listener).accept().await;
    assert_eq!(peer, caller.local_addr().unwrap());
    assert!(connection.nodelay().unwrap());
}
