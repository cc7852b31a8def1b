//! Clients of streams: server-sent events as a browser reads them, and a WebSocket.

use flow::event::{EventKind, JobEvent, JobStatus};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::stage::{Api, Ingest, PATIENCE};

/// What ends with an empty line.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) comment: Option<String>,
    pub(crate) retry: Option<String>,
}

impl Message {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.data.as_deref().unwrap()).unwrap()
    }
}

/// An open stream of server-sent events.
pub(crate) struct Sse {
    answer: reqwest::Response,
    text: String,
}

impl Sse {
    pub(crate) async fn open(api: &Api, path: &str, last: Option<&str>) -> Self {
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(last.map(|last| ("last-event-id", last)));
        let answer = api.stream(path, &headers).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let mut stream = Self { answer, text: String::new() };
        assert!(stream.next().await.unwrap().retry.is_some(), "a client is told when to come back");
        stream
    }

    /// A stream that was opened otherwise.
    pub(crate) fn of(answer: reqwest::Response) -> Self {
        assert_eq!(answer.status(), 200);
        Self { answer, text: String::new() }
    }

    /// The next message; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let message = parse(message);
                self.text = rest.to_owned();
                return Some(message);
            }
            let chunk = timeout(PATIENCE, self.answer.chunk()).await.expect("a message").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event; none at the end.
    pub(crate) async fn event(&mut self) -> Option<Message> {
        loop {
            let message = self.next().await?;
            if message.data.is_some() && message.name.is_none() {
                return Some(message);
            }
        }
    }

    /// Everything to the end.
    pub(crate) async fn rest(mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await {
            messages.push(message);
        }
        messages
    }
}

fn parse(text: &str) -> Message {
    let mut message = Message::default();
    for line in text.lines() {
        let (name, value) = line.split_once(':').unwrap();
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        let field = match name {
            "id" => &mut message.id,
            "event" => &mut message.name,
            "data" => &mut message.data,
            "" => &mut message.comment,
            "retry" => &mut message.retry,
            _ => panic!("no field of server-sent events: {line}"),
        };
        assert_eq!(field.replace(value), None, "{text}");
    }
    message
}

/// An open WebSocket.
pub(crate) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub(crate) async fn open(ingest: &Ingest, path: &str) -> Self {
        let (socket, _) = connect_async(format!("ws://{}{path}", ingest.address)).await.unwrap();
        Self(socket)
    }

    /// The next message, or the code and the reason of the close; pings are passed over.
    pub(crate) async fn next(&mut self) -> Result<Value, (u16, String)> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("a message").unwrap().unwrap() {
                Frame::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                Frame::Close(Some(frame)) => return Err((frame.code.into(), frame.reason.to_string())),
                Frame::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What happens to a job of two steps, in order.
pub(crate) fn course(accepted: &JobEvent) -> Vec<JobEvent> {
    let (running, ended) = (JobStatus::Running, JobStatus::Succeeded);
    let step = |step: &str, hop| JobEvent {
        kind: EventKind::StepSucceeded,
        status: running,
        step: Some(step.to_owned()),
        hop,
        visit: 1,
        attempts: 1,
        ..accepted.clone()
    };
    let end = JobEvent { kind: EventKind::JobSucceeded, status: ended, hop: 3, ..accepted.clone() };
    vec![accepted.clone(), step("reserve", 1), step("charge", 2), end]
}
