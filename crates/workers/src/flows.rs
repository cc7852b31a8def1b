//! The flows that this worker knows: read from their topic, then followed; and the queues that they use.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bus::{Inbound, Table, TableTail};
use events::flow_document::{FlowDocument, NotAFlow};
use flow::definition::Definition;
use parking_lot::RwLock;
use process::Process;
use service_kit::CancellationToken;
use service_kit::retry::Backoff;
use tokio::sync::{mpsc, oneshot, watch};

/// Slips that may ask at once for the topic to be read to its end; more wait.
const ASKS_MAX: usize = 1_000;

/// The flows by name and version. Shared by reference.
#[derive(Debug)]
pub(crate) struct Flows {
    definitions: RwLock<HashMap<String, HashMap<String, Definition>>>,
    queues: watch::Sender<BTreeSet<String>>,
    asks: mpsc::Sender<oneshot::Sender<()>>,
}

/// Follows the topic; see [`follow`].
#[derive(Debug)]
pub(crate) struct Follow {
    flows: Arc<Flows>,
    asks: mpsc::Receiver<oneshot::Sender<()>>,
    loaded: watch::Sender<bool>,
}

impl Flows {
    /// No flow yet. What is handed out beside it is for [`follow`]; the receiver tells when all flows are known.
    pub(crate) fn new() -> (Arc<Self>, Follow, watch::Receiver<bool>) {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let (loaded, is_loaded) = watch::channel(false);
        let queues = watch::Sender::new(BTreeSet::new());
        let flows = Arc::new(Self { definitions: RwLock::default(), queues, asks });
        (Arc::clone(&flows), Follow { flows, asks: asked, loaded }, is_loaded)
    }

    /// The definition that a slip names. None only after the topic was read to its present end in vain.
    pub(crate) async fn definition(&self, flow: &str, version: &str) -> Option<Definition> {
        let mut at_end = false;
        loop {
            let known = self.known(flow, version);
            if known.is_some() || at_end {
                return known;
            }
            let (answer, answered) = oneshot::channel();
            if self.asks.send(answer).await.is_err() {
                // Whoever follows is gone only when the process leaves: no answer is better than a wrong one.
                std::future::pending::<()>().await;
            }
            // An answer that was dropped means that the end was not reached: ask again.
            at_end = answered.await.is_ok();
        }
    }

    /// The queues of all flows, as they change.
    pub(crate) fn queues(&self) -> watch::Receiver<BTreeSet<String>> {
        self.queues.subscribe()
    }

    fn known(&self, flow: &str, version: &str) -> Option<Definition> {
        self.definitions.read().get(flow)?.get(version).cloned()
    }

    fn learn(&self, records: &[Inbound]) {
        for record in records {
            match read(record) {
                Ok(Some(definition)) => self.insert(definition),
                Ok(None) => {}
                Err(error) => {
                    let reason = error.to_string();
                    metrics::counter!("meanwhile_unreadable_skipped_total", "role" => "workers").increment(1);
                    tracing::warn!(offset = record.offset, reason, "a flow's document cannot be read; passed over");
                }
            }
        }
    }

    fn insert(&self, definition: Definition) {
        let queues: Vec<String> = definition.queues().into_iter().map(ToOwned::to_owned).collect();
        let (flow, version) = (definition.name().to_owned(), definition.version().to_owned());
        let mut definitions = self.definitions.write();
        definitions.entry(flow).or_default().insert(version, definition);
        drop(definitions);
        self.queues.send_if_modified(|known| {
            let before = known.len();
            known.extend(queues);
            known.len() > before
        });
    }
}

/// A definition; none for a tombstone (a version is kept: jobs may still be on it).
fn read(record: &Inbound) -> Result<Option<Definition>, NotAFlow> {
    let Some(value) = &record.value else { return Ok(None) };
    FlowDocument::parse(value)?.definition().map(Some)
}

/// Loads the flows and follows them until shutdown.
///
/// # Errors
/// None; the shape is that of [`service_kit::tasks::Tasks::spawn`].
pub(crate) async fn follow(
    mut follow: Follow,
    settings: bus::Settings,
    topic: String,
    process: Process,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Process { readiness, ids, .. } = process;
    let mut backoff = Backoff::default();
    loop {
        let loaded = shutdown.run_until_cancelled(Table::load(&settings, &topic)).await;
        let Some(loaded) = loaded else { return Ok(()) };
        match loaded {
            Ok((records, tail)) => {
                backoff.reset();
                follow.flows.learn(&records);
                follow.loaded.send_replace(true);
                if shutdown.run_until_cancelled(follow.tail(tail)).await.is_none() {
                    return Ok(());
                }
            }
            Err(error) => readiness.missing("kafka", format!("the flows cannot be read: {error}")),
        }
        if !backoff.sleep(&ids, &shutdown).await {
            return Ok(());
        }
    }
}

impl Follow {
    /// Learns what comes and answers who asks, until the tail ends; it must then be loaded again.
    async fn tail(&mut self, mut tail: TableTail) {
        loop {
            tokio::select! {
                records = tail.next() => match records {
                    Some(records) => self.flows.learn(&records),
                    None => return,
                },
                Some(first) = self.asks.recv() => {
                    let mut asks = vec![first];
                    while let Ok(more) = self.asks.try_recv() {
                        asks.push(more);
                    }
                    match tail.read_to_end_now().await {
                        Ok(records) => self.flows.learn(&records),
                        Err(error) => {
                            // The asks are dropped: nobody may conclude from this that a flow is unknown.
                            let error = service_kit::error_chain(&error);
                            tracing::warn!(error, "the flows cannot be read to their end");
                            return;
                        }
                    }
                    for ask in asks {
                        let _ = ask.send(());
                    }
                }
            }
        }
    }
}
