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
/// The key of callers who show one, made up.
pub(crate) const API_KEY: &str = "mw_aaaaaaaaaaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
/// An answer's head and body together; ours have some 700 bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// One connection that sends requests, one after the other.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    asked: Asked,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// The requests of a load.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked {
    /// A job of three steps: 202 is its answer.
    Job,
    /// The same by a caller who shows [`API_KEY`].
    JobByKey,
    /// The same, whose end is waited for: 200.
    JobAndItsEnd,
    /// The old service's endpoint, straight or by ingest: 200.
    OldService,
}

impl Asked {
    fn request(self, address: SocketAddr) -> String {
        let jobs = "/v1/flows/three/jobs";
        let (path, more) = match self {
            Self::Job => (jobs, String::new()),
            Self::JobByKey => (jobs, format!("authorization: Bearer {API_KEY}\r\n")),
            Self::JobAndItsEnd => (jobs, "prefer: wait=30\r\n".to_owned()),
            Self::OldService => ("/reports", String::new()),
        };
        format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n{more}\
             content-length: {}\r\n\r\n{BODY}",
            BODY.len()
        )
    }
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr, asked: Asked) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connecting to ingest")?;
        stream.set_nodelay(true).context("TCP_NODELAY")?;
        let request = asked.request(address).into_bytes();
        Ok(Self { stream, asked, request, answer: Vec::with_capacity(ANSWER_BYTES_MAX) })
    }

    /// Submits one job; returns when its answer is here: 202, or 200 where its end is waited for.
    pub(crate) async fn submit(&mut self) -> Result<JobId> {
        let head = self.ask().await?;
        // `/v1/jobs/{job}`, and `/result` behind it where it has ended.
        let address = head.header("location").or_else(|| head.header("content-location")).context("no Location")?;
        let job = address.trim_end_matches("/result").rsplit('/').next().context("no job in the Location")?;
        job.parse().context("the job of the Location")
    }

    /// Sends the request once more; returns when its answer is whole.
    pub(crate) async fn ask(&mut self) -> Result<Head<'_>> {
        self.stream.write_all(&self.request).await.context("sending a request")?;
        self.answer.clear();
        while !is_whole(&self.answer)? {
            let read = self.stream.read_buf(&mut self.answer).await.context("reading an answer")?;
            if read == 0 || self.answer.len() > ANSWER_BYTES_MAX {
                bail!("the connection was closed, or the answer does not end");
            }
        }
        let head = Head::of(&self.answer)?.context("the answer has no head")?;
        let is_job = matches!(self.asked, Asked::Job | Asked::JobByKey);
        let wanted = if is_job { "HTTP/1.1 202" } else { "HTTP/1.1 200" };
        if !head.text.starts_with(wanted) {
            bail!("not {wanted}: {}", String::from_utf8_lossy(&self.answer));
        }
        Ok(head)
    }
}

/// The head of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    text: &'a str,
}

impl<'a> Head<'a> {
    /// None while more is to come.
    fn of(answer: &'a [u8]) -> Result<Option<Self>> {
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let text = end.map(|end| std::str::from_utf8(&answer[..end]).context("an answer's head")).transpose()?;
        Ok(text.map(|text| Self { text }))
    }

    fn header(self, name: &str) -> Option<&'a str> {
        let mut lines = self.text.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(head) = Head::of(answer)? else { return Ok(false) };
    let length = head.header("content-length").context("no content-length")?;
    Ok(answer.len() >= head.text.len() + 4 + length.parse::<usize>().context("content-length")?)
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

/// Each connection sends the next request as soon as the one before is answered.
pub(crate) async fn closed_loop(address: SocketAddr, asked: Asked, connections: usize, until: Until) -> Result<Done> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(address, asked).await?);
    }
    let began = Instant::now();
    let taken = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for mut connection in open {
        let taken = Arc::clone(&taken);
        tasks.spawn(async move {
            let mut latencies = histogram();
            while more(until, &taken, began) {
                let sent = Instant::now();
                connection.ask().await?;
                count(&mut latencies, sent.elapsed());
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
