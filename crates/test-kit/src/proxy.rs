//! A proxy in front of a Kafka broker. It can hold one request back, as a stalled connection does, and hide the brokers
//! from a client, as a broker does that has just started.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use crate::port::Port;
use crate::{Kafka, KafkaOptions};

/// The largest frame that is taken; Kafka's own default is 100 MiB.
const FRAME_BYTES_MAX: usize = 100 * 1024 * 1024;

/// Kafka's number for a kind of request.
pub type ApiKey = i16;
/// `Produce`, which brings records.
pub const PRODUCE: ApiKey = 0;
/// `EndTxn`, which commits or aborts.
pub const END_TXN: ApiKey = 26;
/// `Metadata`, which names brokers, topics and partitions.
const METADATA: ApiKey = 3;

type Wanted = Arc<Mutex<Option<Wish>>>;

/// A request that is to be held back.
#[derive(Debug)]
struct Wish {
    api_key: ApiKey,
    /// A part of the client's name.
    of: String,
    sender: oneshot::Sender<HeldRequest>,
}

impl Wish {
    fn is_for(&self, frame: &[u8]) -> bool {
        let of_client = || client_id(frame).is_ok_and(|client| client.contains(&self.of));
        self.api_key == i16::from_be_bytes([frame[0], frame[1]]) && of_client()
    }
}

/// The clients from which the brokers are hidden, and how many answers hid them.
type Hidden = Arc<watch::Sender<HashMap<String, usize>>>;

/// A broker that its clients reach only through a proxy.
#[derive(Debug)]
pub struct ProxiedKafka {
    port: Port,
    wanted: Wanted,
    hidden: Hidden,
    /// Its own, so that several tests can share the proxy. None when dropped.
    runtime: Option<Runtime>,
    _kafka: Kafka,
}

/// A request that the broker has not got. Its client has lost the connection, and tries again on another.
#[derive(Debug)]
pub struct HeldRequest {
    frame: Vec<u8>,
    broker: (OwnedReadHalf, OwnedWriteHalf),
}

impl ProxiedKafka {
    /// Starts a broker and its proxy.
    pub async fn start(mut options: KafkaOptions) -> Result<Self> {
        let port = Port::take()?;
        let address = format!("127.0.0.1:{}", port.number());
        options.properties.push(("advertised.listeners".to_owned(), format!("PLAINTEXT://{address}")));
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_io().build().context("the proxy's runtime")?;
        let (wanted, hidden, upstream) = (Wanted::default(), Hidden::default(), watch::Sender::new(None));
        let through =
            Through { wanted: Arc::clone(&wanted), hidden: Arc::clone(&hidden), upstream: upstream.subscribe() };
        // The broker calls itself by that address from its start on.
        let listening = async move {
            let listener = TcpListener::bind(&address).await.context("the proxy's port")?;
            tokio::spawn(accept(listener, through));
            anyhow::Ok(())
        };
        runtime.spawn(listening).await.context("the proxy's runtime")??;
        let kafka = Kafka::start(options).await?;
        upstream.send_replace(Some(kafka.brokers()));
        Ok(Self { port, wanted, hidden, runtime: Some(runtime), _kafka: kafka })
    }

    /// `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Holds the next request of this kind back, and cuts its client's connection off.
    pub fn hold(&self, api_key: ApiKey) -> oneshot::Receiver<HeldRequest> {
        self.hold_of(api_key, "")
    }

    /// The same of a client with this in its name.
    pub fn hold_of(&self, api_key: ApiKey, of: &str) -> oneshot::Receiver<HeldRequest> {
        let (sender, receiver) = oneshot::channel();
        *self.wanted.lock() = Some(Wish { api_key, of: of.to_owned(), sender });
        receiver
    }

    /// From now on answers to this client about metadata name no broker; the rest of them is true.
    pub fn hide_brokers_from(&self, client_id: &str) {
        self.hidden.send_modify(|hidden| {
            hidden.insert(client_id.to_owned(), 0);
        });
    }

    /// Returns once that many such answers were given.
    pub async fn until_hidden_from(&self, client_id: &str, answers: usize) {
        let given = |hidden: &HashMap<String, usize>| hidden.get(client_id).is_none_or(|given| *given >= answers);
        // The sender is ours, so there is no error.
        let _ = self.hidden.subscribe().wait_for(given).await;
    }

    /// From now on answers are true again.
    pub fn show_brokers_to(&self, client_id: &str) {
        self.hidden.send_modify(|hidden| {
            hidden.remove(client_id);
        });
    }
}

impl Drop for ProxiedKafka {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl HeldRequest {
    /// Lets the broker have a [`PRODUCE`]. Returns the error's number of the first partition in the broker's answer.
    pub async fn release_produce(self) -> Result<i16> {
        let version = i16::from_be_bytes([self.frame[2], self.frame[3]]);
        let answer = self.release().await?;
        // Head and tags; from then on: topics, the first one's name, its partitions, the first one's index.
        let mut rest = answer.as_slice();
        skip(&mut rest, ANSWER_HEAD_BYTES)?;
        anyhow::ensure!((3..=12).contains(&version), "produce of version {version}");
        if version >= 9 {
            skip(&mut rest, 1)?;
            compact_length(&mut rest)?;
            let name = compact_length(&mut rest)?;
            skip(&mut rest, name)?;
            compact_length(&mut rest)?;
        } else {
            skip(&mut rest, 4)?;
            let name = rest.get(..2).context("a topic's name")?;
            let name = usize::try_from(i16::from_be_bytes([name[0], name[1]]))?;
            skip(&mut rest, 2 + name + 4)?;
        }
        skip(&mut rest, 4)?;
        let error = rest.get(..2).context("an error's number")?;
        Ok(i16::from_be_bytes([error[0], error[1]]))
    }

    /// Lets the broker have it. Returns the broker's answer, without its length.
    pub async fn release(mut self) -> Result<Vec<u8>> {
        write_frame(&mut self.broker.1, &self.frame).await?;
        let correlation = &self.frame[4..8];
        loop {
            let answer = read_frame(&mut self.broker.0, ANSWER_HEAD_BYTES).await?;
            // Answers to earlier requests of that connection may come first.
            if &answer[..4] == correlation {
                return Ok(answer);
            }
        }
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Through {
    wanted: Wanted,
    hidden: Hidden,
    upstream: watch::Receiver<Option<String>>,
}

async fn accept(listener: TcpListener, through: Through) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(pass_on(client, through.clone()));
    }
}

/// Requests for metadata on one connection that are not answered yet: version and client, by correlation.
type Asked = Mutex<HashMap<[u8; 4], (i16, String)>>;

/// One connection: requests and answers, frame by frame.
async fn pass_on(client: TcpStream, mut through: Through) -> Result<()> {
    let address = through.upstream.wait_for(Option::is_some).await?.clone().context("the broker's address")?;
    let broker = TcpStream::connect(address).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (mut requests, mut to_client) = client.into_split();
    let (mut answers, mut to_broker) = broker.into_split();
    let asked = Asked::default();
    let held = tokio::select! {
        held = ask(&mut requests, &mut to_broker, &through, &asked) => held?,
        answered = answer(&mut answers, &mut to_client, &through, &asked) => return answered,
    };
    let (frame, receiver) = held;
    let _ = receiver.send(HeldRequest { frame, broker: (answers, to_broker) });
    Ok(())
}

/// Passes requests on until one is to be held back.
async fn ask(
    requests: &mut OwnedReadHalf,
    to_broker: &mut OwnedWriteHalf,
    through: &Through,
    asked: &Asked,
) -> Result<(Vec<u8>, oneshot::Sender<HeldRequest>)> {
    loop {
        let frame = read_frame(requests, REQUEST_HEAD_BYTES).await?;
        let api_key = i16::from_be_bytes([frame[0], frame[1]]);
        let held = through.wanted.lock().take_if(|wish| wish.is_for(&frame));
        if let Some(held) = held {
            return Ok((frame, held.sender));
        }
        if api_key == METADATA {
            let client = client_id(&frame)?;
            if through.hidden.borrow().contains_key(&client) {
                let (version, correlation) = (i16::from_be_bytes([frame[2], frame[3]]), correlation(&frame[4..]));
                asked.lock().insert(correlation, (version, client));
            }
        }
        write_frame(to_broker, &frame).await?;
    }
}

async fn answer(
    answers: &mut OwnedReadHalf,
    to_client: &mut OwnedWriteHalf,
    through: &Through,
    asked: &Asked,
) -> Result<()> {
    loop {
        let mut answer = read_frame(answers, ANSWER_HEAD_BYTES).await?;
        let metadata = asked.lock().remove(&correlation(&answer));
        if let Some((version, client)) = metadata {
            answer = without_brokers(&answer, version)?;
            through.hidden.send_modify(|hidden| {
                hidden.entry(client).and_modify(|given| *given += 1);
            });
        }
        write_frame(to_client, &answer).await?;
    }
}

fn correlation(head: &[u8]) -> [u8; 4] {
    [head[0], head[1], head[2], head[3]]
}

/// The client's name in a request's head: behind kind, version and correlation.
fn client_id(frame: &[u8]) -> Result<String> {
    let length = frame.get(8..10).context("a request's head")?;
    let length = usize::try_from(i16::from_be_bytes([length[0], length[1]])).unwrap_or(0);
    Ok(String::from_utf8_lossy(frame.get(10..10 + length).context("a client's name")?).into_owned())
}

/// An answer about metadata whose list of brokers is empty. Its head is the correlation and no tags; the throttle time
/// follows, then the brokers: id, host, port, rack and tags of each.
fn without_brokers(answer: &[u8], version: i16) -> Result<Vec<u8>> {
    anyhow::ensure!((9..=13).contains(&version), "metadata of version {version}");
    let start = 4 + 1 + 4;
    let mut rest = answer.get(start..).context("an answer about metadata")?;
    for _ in 0..compact_length(&mut rest)? {
        skip(&mut rest, 4)?;
        let host = compact_length(&mut rest)?;
        skip(&mut rest, host + 4)?;
        let rack = compact_length(&mut rest)?;
        skip(&mut rest, rack)?;
        anyhow::ensure!(varint(&mut rest)? == 0, "a broker with tags");
    }
    Ok([&answer[..start], &[1], rest].concat())
}

/// The length of a compact text or array. None at all counts as empty.
fn compact_length(rest: &mut &[u8]) -> Result<usize> {
    Ok(varint(rest)?.saturating_sub(1))
}

fn varint(rest: &mut &[u8]) -> Result<usize> {
    let mut value = 0;
    for shift in (0..28).step_by(7) {
        let byte = *rest.first().context("a number")?;
        skip(rest, 1)?;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    anyhow::bail!("a number of more than four bytes")
}

fn skip(rest: &mut &[u8], bytes: usize) -> Result<()> {
    *rest = rest.get(bytes..).context("an answer that ends too soon")?;
    Ok(())
}

/// A request's kind, version and correlation.
const REQUEST_HEAD_BYTES: usize = 8;
/// An answer's correlation.
const ANSWER_HEAD_BYTES: usize = 4;

/// A frame without its length; at least its head.
async fn read_frame(from: &mut OwnedReadHalf, bytes_min: usize) -> Result<Vec<u8>> {
    let length = usize::try_from(from.read_i32().await?)?;
    anyhow::ensure!((bytes_min..=FRAME_BYTES_MAX).contains(&length), "a frame of {length} bytes");
    let mut frame = vec![0; length];
    from.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn write_frame(to: &mut OwnedWriteHalf, frame: &[u8]) -> Result<()> {
    let length = i32::try_from(frame.len())?.to_be_bytes();
    to.write_all(&[&length[..], frame].concat()).await?;
    Ok(())
}
