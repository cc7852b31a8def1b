//! A line between two parts: a TCP proxy that can be disturbed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::port::Port;

/// Bytes that are passed on at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// The state of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineState {
    /// Everything passes.
    Whole,
    /// Everything passes this much later.
    Delayed(Duration),
    /// Every connection breaks in the midst of the so-manieth chunk that passes on the line.
    Breaking(u32),
    /// Connections stay and are made, nothing passes: a half-open connection.
    Silent,
    /// Every connection is closed, new ones too.
    Cut,
}

/// A line to a port of this machine; whole at first.
#[derive(Debug)]
pub struct Line {
    port: Port,
    state: watch::Sender<LineState>,
    accepting: JoinHandle<()>,
}

impl Line {
    /// Lays a line to a port. The other end need not be there yet.
    pub async fn to(upstream: u16) -> Result<Self> {
        let port = Port::take()?;
        let listener = TcpListener::bind(("127.0.0.1", port.number())).await.context("the line's port")?;
        let state = watch::Sender::new(LineState::Whole);
        let accepting = tokio::spawn(accept(listener, upstream, state.subscribe()));
        Ok(Self { port, state, accepting })
    }

    /// The port of its near end.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Disturbs it, or mends it.
    pub fn set(&self, state: LineState) {
        self.state.send_replace(state);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, upstream: u16, state: watch::Receiver<LineState>) {
    let chunks = Arc::new(AtomicU32::default());
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(connection(near, upstream, state.clone(), Arc::clone(&chunks)));
    }
}

/// One connection, until an end closes it or the line does.
async fn connection(
    near: TcpStream,
    upstream: u16,
    mut state: watch::Receiver<LineState>,
    chunks: Arc<AtomicU32>,
) -> Result<()> {
    let (thither, hither) = (state.clone(), state.clone());
    let work = async {
        let far = TcpStream::connect(("127.0.0.1", upstream)).await?;
        for end in [&near, &far] {
            end.set_nodelay(true)?;
        }
        let ((near_reads, near_writes), (far_reads, far_writes)) = (near.into_split(), far.into_split());
        tokio::try_join!(
            pass_on(near_reads, far_writes, thither, &chunks),
            pass_on(far_reads, near_writes, hither, &chunks)
        )?;
        anyhow::Ok(())
    };
    tokio::select! {
        worked = work => worked,
        _ = state.wait_for(|state| *state == LineState::Cut) => Ok(()),
    }
}

/// One direction. Fails where the connection is to break.
async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<LineState>,
    chunks: &AtomicU32,
) -> Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        let now = *state.wait_for(|state| *state != LineState::Silent).await?;
        if length == 0 {
            return Ok(to.shutdown().await?);
        }
        match now {
            LineState::Delayed(delay) => tokio::time::sleep(delay).await,
            LineState::Breaking(chunk) if chunks.fetch_add(1, Ordering::Relaxed) % chunk == chunk - 1 => {
                to.write_all(&buffer[..length / 2]).await?;
                anyhow::bail!("the line breaks");
            }
            _ => {}
        }
        to.write_all(&buffer[..length]).await?;
    }
}
