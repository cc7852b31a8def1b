//! Load over HTTP/1.1 keep-alive. Written on the socket, so that on a small machine the load costs as little as it can.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use flow::id::JobId;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::figures::{count, histogram};

/// The input of each job.
const BODY: &str =
    r#"{"customer":"customer-1","items":[{"sku":"tea","qty":2},{"sku":"cup","qty":1}],"note":"a small input"}"#;
/// An answer's head and body together; ours have some 700 bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// One connection that submits jobs, one after the other.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connecting to ingest")?;
        stream.set_nodelay(true).context("TCP_NODELAY")?;
        let request = format!(
            "POST /v1/flows/three/jobs HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{BODY}",
            BODY.len()
        );
        Ok(Self { stream, request: request.into_bytes(), answer: Vec::with_capacity(ANSWER_BYTES_MAX) })
    }

    /// Submits one job; returns when the 202 is here.
    pub(crate) async fn submit(&mut self) -> Result<JobId> {
        self.stream.write_all(&self.request).await.context("sending a request")?;
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await.context("reading an answer")?;
            if read == 0 || self.answer.len() > ANSWER_BYTES_MAX {
                bail!("ingest closed the connection, or its answer does not end");
            }
            if let Some(job) = accepted(&self.answer)? {
                return Ok(job);
            }
        }
    }
}

/// The job of a complete 202; none while more is to come.
fn accepted(answer: &[u8]) -> Result<Option<JobId>> {
    let Some(head_end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..head_end]).context("an answer's head")?;
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let length: usize = header("content-length").context("no content-length")?.parse().context("content-length")?;
    if answer.len() < head_end + 4 + length {
        return Ok(None);
    }
    if !head.starts_with("HTTP/1.1 202") {
        bail!("not accepted: {}", String::from_utf8_lossy(answer));
    }
    let job = header("location").and_then(|location| location.rsplit('/').next()).context("no Location")?;
    job.parse().context("the job of the Location").map(Some)
}

/// When a load ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// After so many requests in all.
    Requests(u64),
    /// After this time.
    Passed(Duration),
}

/// The outcome of a load.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) latencies: Histogram<u64>,
    pub(crate) took: Duration,
}

impl Done {
    pub(crate) fn per_s(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}

/// Each connection submits the next job as soon as the one before is accepted.
pub(crate) async fn closed_loop(address: SocketAddr, connections: usize, until: Until) -> Result<Done> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    let began = Instant::now();
    let taken = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for mut connection in open {
        let taken = Arc::clone(&taken);
        tasks.spawn(async move {
            let mut latencies = histogram();
            while more(until, &taken, began) {
                let asked = Instant::now();
                connection.submit().await?;
                count(&mut latencies, asked.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = histogram();
    while let Some(ended) = tasks.join_next().await {
        latencies.add(ended.context("a connection's task")??).context("adding latencies")?;
    }
    Ok(Done { latencies, took: began.elapsed() })
}

fn more(until: Until, taken: &AtomicU64, began: Instant) -> bool {
    match until {
        Until::Requests(requests) => taken.fetch_add(1, Ordering::Relaxed) < requests,
        Until::Passed(time) => began.elapsed() < time,
    }
}
