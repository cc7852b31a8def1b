//! The state of a connection, as far as its limits depend on it. Its wire and its requests note what happens.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Limits;

/// The first bytes of a connection that speaks HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The reason for which a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Neither side has sent anything.
    Idle,
    /// A head began and did not end.
    LateHead,
}

#[derive(Debug)]
struct State {
    /// Requests whose head has arrived and whose answer is not handed to the wire yet.
    requests: usize,
    /// True until the answers of these requests are on the wire.
    owed: bool,
    /// The time at which the head of the next request began to arrive.
    head_since: Option<Instant>,
    /// True once its first line has arrived.
    line_ended: bool,
    /// True for HTTP/2, which has frames at any time, so that no head can be told from them. None at first.
    http2: Option<bool>,
    /// The bytes of the preface that have arrived.
    preface_bytes: usize,
    /// The other side does not take what we send.
    stalled: bool,
    /// The time of the last byte in either direction, or of the last answer.
    progress_at: Instant,
}

impl State {
    fn recognise(&mut self, bytes: &[u8]) {
        if self.http2.is_some() {
            return;
        }
        let wanted = &PREFACE[self.preface_bytes..];
        let count = wanted.len().min(bytes.len());
        if wanted[..count] != bytes[..count] {
            self.http2 = Some(false);
        } else if count == wanted.len() {
            self.http2 = Some(true);
        } else {
            self.preface_bytes += count;
        }
    }
}

/// What a connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    /// Told of each answer that was handed to the wire.
    pub(super) answered: Notify,
}

impl Activity {
    /// A connection that was accepted now.
    pub(super) fn new() -> Self {
        let state = State {
            requests: 0,
            owed: false,
            head_since: None,
            line_ended: false,
            http2: None,
            preface_bytes: 0,
            stalled: false,
            progress_at: Instant::now(),
        };
        Self { state: Mutex::new(state), answered: Notify::new() }
    }

    /// These bytes came in.
    pub(super) fn read(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        state.progress_at = Instant::now();
        state.recognise(bytes);
        if state.http2 == Some(true) {
            state.head_since = None;
        }
        if state.http2 == Some(true) || state.requests > 0 {
            return;
        }
        state.line_ended |= bytes.contains(&b'\n');
        if state.head_since.is_none() {
            state.head_since = Some(state.progress_at);
        }
    }

    /// The wire took bytes, or took none for now.
    pub(super) fn wrote(&self, stalled: bool) {
        let mut state = self.state.lock();
        if !stalled {
            state.progress_at = Instant::now();
        }
        state.stalled = stalled;
    }

    /// Everything that was written is on the wire.
    pub(super) fn flushed(&self) {
        let mut state = self.state.lock();
        state.stalled = false;
        state.owed = state.requests > 0;
    }

    /// A request has arrived. The guard is dropped when its answer has been handed to the wire.
    pub(super) fn request(self: &Arc<Self>) -> Answering {
        let mut state = self.state.lock();
        state.requests += 1;
        state.owed = true;
        state.head_since = None;
        state.line_ended = false;
        Answering(Arc::clone(self))
    }

    /// True while no answer of a handler is being made or sent: what is written then is the library's own.
    pub(super) fn owes_nothing(&self) -> bool {
        let state = self.state.lock();
        state.requests == 0 && !state.owed
    }

    /// True while nothing of a request is there.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.requests == 0 && !state.owed && state.head_since.is_none()
    }

    /// True if the first line of the head that began has arrived.
    pub(super) fn line_ended(&self) -> bool {
        self.state.lock().line_ended
    }

    /// The end of this connection, if nothing happens before that time.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<(Instant, End)> {
        let state = self.state.lock();
        match state.head_since {
            _ if state.stalled => Some((state.progress_at + limits.idle_timeout, End::Idle)),
            _ if state.requests > 0 => None,
            Some(since) => Some((since + limits.head_timeout, End::LateHead)),
            None => Some((state.progress_at + limits.idle_timeout, End::Idle)),
        }
    }

    /// The time until which no deadline can come: that of the present state, or of one that begins now.
    pub(super) fn next_look(&self, limits: &Limits) -> Instant {
        let from_now = Instant::now() + limits.head_timeout.min(limits.idle_timeout);
        self.deadline(limits).map_or(from_now, |(at, _)| at.min(from_now))
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.requests -= 1;
        state.progress_at = Instant::now();
        drop(state);
        self.0.answered.notify_one();
    }
}
