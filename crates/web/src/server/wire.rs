//! The two directions of a connection, watched.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Server;
use super::activity::Activity;

/// The beginning of an answer.
const VERSION: &[u8] = b"HTTP/1.";
/// The place of the status in an answer.
const STATUS: std::ops::Range<usize> = 9..12;

/// Notes what goes over a connection. Answers that the HTTP library makes by itself have no body; they are replaced.
pub(super) struct Wire<I> {
    /// Shared, so that it outlives the HTTP library's part of the connection.
    io: Arc<Mutex<I>>,
    activity: Arc<Activity>,
    server: Arc<Server>,
    replacement: Option<Replacement>,
}

struct Replacement {
    bytes: Vec<u8>,
    sent: usize,
}

impl<I> Wire<I> {
    pub(super) fn new(io: Arc<Mutex<I>>, activity: Arc<Activity>, server: Arc<Server>) -> Self {
        Self { io, activity, server, replacement: None }
    }

    /// True if what the library writes is dropped, since something else is sent.
    fn replaces(&mut self, written: &[u8]) -> bool {
        if self.replacement.is_none() && written.starts_with(VERSION) && self.activity.owes_nothing() {
            let status = written.get(STATUS).and_then(|status| StatusCode::from_bytes(status).ok());
            let status = status.unwrap_or(StatusCode::BAD_REQUEST);
            let bytes = self.server.refuse_head(status, self.activity.line_ended());
            self.replacement = Some(Replacement { bytes, sent: 0 });
        }
        self.replacement.is_some()
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Wire<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut *self.io.lock()).poll_read(cx, buffer);
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            self.activity.read(bytes);
        }
        outcome
    }
}

impl<I: AsyncWrite + Unpin> Wire<I> {
    fn note(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.wrote(outcome.is_pending());
        outcome
    }

    fn poll_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(Replacement { bytes, sent }) = self.replacement.as_mut().filter(|it| it.sent < it.bytes.len()) {
            let outcome = Pin::new(&mut *self.io.lock()).poll_write(cx, &bytes[*sent..]);
            self.activity.wrote(outcome.is_pending());
            match ready!(outcome)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *sent += count,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Wire<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.replaces(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let outcome = Pin::new(&mut *self.io.lock()).poll_write(cx, bytes);
        self.note(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.replaces(parts.first().map_or(&[], |part| part)) {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        let outcome = Pin::new(&mut *self.io.lock()).poll_write_vectored(cx, parts);
        self.note(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.lock().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        ready!(Pin::new(&mut *self.io.lock()).poll_flush(cx))?;
        self.activity.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        Pin::new(&mut *self.io.lock()).poll_shutdown(cx)
    }
}
