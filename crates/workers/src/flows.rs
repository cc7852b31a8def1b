//! The flows that this worker knows: read from their topic, then followed; and the queues that they use.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bus::Inbound;
use events::flow_document::{FlowDocument, NotAFlow};
use flow::definition::Definition;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::followed::{Ask, Following, Learn};

/// The flows by name and version. Shared by reference.
#[derive(Debug)]
pub(crate) struct Flows {
    definitions: RwLock<HashMap<String, HashMap<String, Definition>>>,
    queues: watch::Sender<BTreeSet<String>>,
    ask: Ask,
}

impl Learn for Flows {
    /// A version is kept once it is known: jobs may still be on it.
    fn load(&self, records: &[Inbound]) {
        self.learn(records);
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
}

impl Flows {
    /// No flow yet. The second is for [`crate::followed::follow`]; the receiver tells when all flows are known.
    pub(crate) fn new() -> (Arc<Self>, Following, watch::Receiver<bool>) {
        let (ask, following, is_loaded) = Following::new();
        let queues = watch::Sender::new(BTreeSet::new());
        (Arc::new(Self { definitions: RwLock::default(), queues, ask }), following, is_loaded)
    }

    /// The definition that a slip names. None only after the topic was read to its present end in vain.
    pub(crate) async fn definition(&self, flow: &str, version: &str) -> Option<Definition> {
        if let Some(known) = self.known(flow, version) {
            return Some(known);
        }
        self.ask.to_end().await;
        self.known(flow, version)
    }

    /// The queues of all flows, as they change.
    pub(crate) fn queues(&self) -> watch::Receiver<BTreeSet<String>> {
        self.queues.subscribe()
    }

    fn known(&self, flow: &str, version: &str) -> Option<Definition> {
        self.definitions.read().get(flow)?.get(version).cloned()
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
