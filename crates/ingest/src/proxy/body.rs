//! Bodies that are passed on frame by frame, trailers and all.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// The passing on of a request's body, as far as its time and its size are limited.
#[derive(Debug)]
pub(super) struct Progress(Mutex<State>);

#[derive(Debug)]
struct State {
    at: Instant,
    is_too_large: bool,
}

impl Progress {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { at: Instant::now(), is_too_large: false })))
    }

    /// Returns once nothing has been passed on for so long.
    pub(super) async fn silent_for(&self, time: Duration) {
        loop {
            let at = self.0.lock().at;
            sleep_until(at + time).await;
            if self.0.lock().at == at {
                return;
            }
        }
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.0.lock().is_too_large
    }
}

/// A request's body on its way.
pub(super) struct Sending {
    pub(super) body: Body,
    /// Bytes that it may still have.
    pub(super) left_bytes: u64,
    pub(super) progress: Arc<Progress>,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else { return Poll::Pending };
        let bytes =
            frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, |data| data.len() as u64);
        let mut state = self.progress.0.lock();
        state.at = Instant::now();
        let left_bytes = self.left_bytes.checked_sub(bytes);
        state.is_too_large |= left_bytes.is_none();
        drop(state);
        match left_bytes {
            Some(left_bytes) => {
                self.left_bytes = left_bytes;
                Poll::Ready(frame)
            }
            None => Poll::Ready(Some(Err(axum::Error::new("the body is too large")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body on its way. It fails when the service behind pauses for too long.
pub(super) struct Passing<B, G> {
    pub(super) body: B,
    pause_max: Duration,
    over: Pin<Box<Sleep>>,
    /// Held to the end of the body.
    guard: G,
}

impl<B, G> Passing<B, G> {
    pub(super) fn new(body: B, pause_max: Duration, guard: G) -> Self {
        Self { body, pause_max, over: Box::pin(sleep(pause_max)), guard }
    }
}

/// Told of the end of an answer's body.
pub(super) trait End: Send + Unpin + 'static {
    fn ended(&mut self);
}

impl<B, G: End> HttpBody for Passing<B, G>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.over.as_mut().reset(Instant::now() + this.pause_max);
            if frame.is_none() || this.body.is_end_stream() {
                this.guard.ended();
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        match this.over.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(axum::Error::new("the service behind paused for too long")))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The beginning of a body that was read, and the body as if nothing of it had been.
pub(crate) struct Peeked {
    /// The whole body, where it has no more bytes than were asked for.
    pub(crate) whole: Option<Vec<u8>>,
    pub(crate) body: Body,
}

/// Reads a body up to so many bytes.
///
/// # Errors
/// It did not arrive.
pub(crate) async fn peek(mut body: Body, bytes_max: usize) -> Result<Peeked, axum::Error> {
    let (mut frames, mut whole) = (VecDeque::new(), Vec::new());
    while whole.len() <= bytes_max {
        let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else {
            return Ok(Peeked { whole: Some(whole), body: Body::new(Replayed { frames, rest: None }) });
        };
        let frame = frame?;
        whole.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        frames.push_back(frame);
    }
    Ok(Peeked { whole: None, body: Body::new(Replayed { frames, rest: Some(body) }) })
}

struct Replayed {
    frames: VecDeque<Frame<Bytes>>,
    rest: Option<Body>,
}

impl HttpBody for Replayed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        self.rest.as_mut().map_or(Poll::Ready(None), |rest| Pin::new(rest).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read: usize = self.frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + read as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read as u64);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_was_looked_into_is_passed_on_whole() {
        for (bytes_max, is_whole) in [(10, true), (4, false)] {
            let parts = ["abc", "def"].map(|part| Ok::<_, std::io::Error>(Bytes::from(part)));
            let body = Body::from_stream(futures_util::stream::iter(parts));
            let peeked = peek(body, bytes_max).await.unwrap();
            assert_eq!(peeked.whole.as_deref(), is_whole.then_some(&b"abcdef"[..]));
            assert_eq!(peeked.body.size_hint().exact(), is_whole.then_some(6));
            assert_eq!(axum::body::to_bytes(peeked.body, 100).await.unwrap(), "abcdef");
        }
    }
}
