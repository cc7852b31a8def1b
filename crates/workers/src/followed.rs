//! A compacted topic that is loaded at start and then followed, and that can be asked to be read to its present end.

use std::sync::Arc;

use bus::{Inbound, Table, TableTail};
use process::Process;
use service_kit::CancellationToken;
use service_kit::retry::Backoff;
use tokio::sync::{mpsc, oneshot, watch};

/// The count of requests for the topic's end that may be queued; further callers wait to get into the queue.
const ASKS_MAX: usize = 1_000;

/// Learns what a topic holds.
pub(crate) trait Learn: Send + Sync {
    /// Replaces all knowledge by the topic's records, at the start and after each interruption.
    fn load(&self, records: &[Inbound]) -> impl Future<Output = ()> + Send;
    /// Adds records that were written later.
    fn learn(&self, records: &[Inbound]) -> impl Future<Output = ()> + Send;
}

/// Asks for the topic's present end.
#[derive(Debug)]
pub(crate) struct Ask(mpsc::Sender<oneshot::Sender<()>>);

/// The other side of [`Ask`], for [`follow`].
#[derive(Debug)]
pub(crate) struct Following {
    asks: mpsc::Receiver<oneshot::Sender<()>>,
    loaded: watch::Sender<bool>,
}

impl Following {
    /// A new pair; the receiver becomes true once the topic has been loaded.
    pub(crate) fn new() -> (Ask, Self, watch::Receiver<bool>) {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let (loaded, is_loaded) = watch::channel(false);
        (Ask(asks), Self { asks: asked, loaded }, is_loaded)
    }

    /// Passes new records to the learner and answers requests until the tail ends; the topic must then be loaded again.
    async fn tail(&mut self, learner: &impl Learn, mut tail: TableTail) {
        loop {
            tokio::select! {
                records = tail.next() => match records {
                    Some(records) => learner.learn(&records).await,
                    None => return,
                },
                Some(first) = self.asks.recv() => {
                    let mut asks = vec![first];
                    while let Ok(more) = self.asks.try_recv() {
                        asks.push(more);
                    }
                    match tail.read_to_end_now().await {
                        Ok(records) => learner.learn(&records).await,
                        Err(error) => {
                            // The requests are dropped without an answer, since the end was not reached.
                            tracing::warn!(%error, "a table cannot be read to its end");
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

impl Ask {
    /// Waits until all records have been learnt that were visible when this was called.
    pub(crate) async fn to_end(&self) {
        loop {
            let (answer, answered) = oneshot::channel();
            if self.0.send(answer).await.is_err() {
                // The follower ends only with the process: no answer is better than a wrong one.
                std::future::pending::<()>().await;
            }
            // An answer that was dropped means that the end was not reached: ask again.
            if answered.await.is_ok() {
                return;
            }
        }
    }
}

/// Loads the topic and follows it until shutdown.
///
/// # Errors
/// None; the shape is that of [`service_kit::tasks::Tasks::spawn`].
pub(crate) async fn follow(
    mut following: Following,
    learner: Arc<impl Learn>,
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
                if shutdown.run_until_cancelled(learner.load(&records)).await.is_none() {
                    return Ok(());
                }
                following.loaded.send_replace(true);
                if shutdown.run_until_cancelled(following.tail(&*learner, tail)).await.is_none() {
                    return Ok(());
                }
            }
            Err(error) => readiness.missing("kafka", format!("{topic} cannot be read: {error}")),
        }
        if !backoff.sleep(&ids, &shutdown).await {
            return Ok(());
        }
    }
}
