//! The flows that this worker knows, and the queues that they use. Flows are loaded from their topic, which is then
//! followed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bus::Inbound;
use events::flow_document::{FlowDocument, NotAFlow};
use flow::decide::{Env, limits};
use flow::definition::{Definition, Limits};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::followed::{Ask, Following, Learn};

/// The flows by name and version. Shared by reference.
#[derive(Debug)]
pub(crate) struct Flows {
    definitions: RwLock<HashMap<String, HashMap<String, Known>>>,
    /// By downstream: the limits that the active versions give it together.
    limits: RwLock<HashMap<String, Limits>>,
    env: Env,
    /// By `flow@version`: why this version cannot read the document.
    unreadable: RwLock<HashMap<Vec<u8>, String>>,
    queues: watch::Sender<BTreeSet<String>>,
    ask: Ask,
}

/// One version of a flow.
#[derive(Debug)]
struct Known {
    definition: Definition,
    /// The highest one of a flow is active.
    revision: i64,
}

impl Learn for Flows {
    /// A version is kept until its tombstone comes: jobs may still be on it.
    async fn load(&self, records: &[Inbound]) {
        self.learn(records).await;
    }

    async fn learn(&self, records: &[Inbound]) {
        for record in records {
            match read(record) {
                Ok(Some(known)) => self.insert(known),
                Ok(None) => self.forget(record.key.as_deref().unwrap_or_default()),
                Err(error) => {
                    let reason = error.to_string();
                    metrics::counter!("meanwhile_unreadable_skipped_total", "role" => "workers").increment(1);
                    tracing::warn!(offset = record.offset, reason, "a flow's document cannot be read; its jobs wait");
                    self.unreadable.write().insert(record.key.clone().unwrap_or_default(), reason);
                }
            }
        }
        self.add_up_limits();
    }
}

impl Flows {
    /// Starts without any flow. `env` says where calls go. The second value is for [`crate::followed::follow`]; the
    /// receiver becomes true once all flows are known.
    pub(crate) fn new(env: Env) -> (Arc<Self>, Following, watch::Receiver<bool>) {
        let (ask, following, is_loaded) = Following::new();
        let queues = watch::Sender::new(BTreeSet::new());
        (
            Arc::new(Self {
                definitions: RwLock::default(),
                limits: RwLock::default(),
                env,
                unreadable: RwLock::default(),
                queues,
                ask,
            }),
            following,
            is_loaded,
        )
    }

    /// The limits of a downstream: those that a step declares, and those of every other step of an active flow. They
    /// are the downstream's, whoever declares them.
    pub(crate) fn limits_of(&self, downstream: &str, declared: Limits) -> Limits {
        declared.strictest(self.limits.read().get(downstream).copied().unwrap_or_default())
    }

    fn add_up_limits(&self) {
        let mut sums: HashMap<String, Limits> = HashMap::new();
        for versions in self.definitions.read().values() {
            let active = versions.values().max_by_key(|known| known.revision);
            for (downstream, declared) in active.map(|known| limits(&known.definition, &self.env)).unwrap_or_default() {
                let sum = sums.entry(downstream).or_default();
                *sum = sum.strictest(declared);
            }
        }
        *self.limits.write() = sums;
    }

    /// The definition that a slip names, or why there is none: only after the topic was read to its present end in
    /// vain.
    pub(crate) async fn definition(&self, flow: &str, version: &str) -> Result<Definition, String> {
        if let Some(known) = self.known(flow, version) {
            return Ok(known);
        }
        self.ask.to_end().await;
        self.known(flow, version).ok_or_else(|| {
            let key = format!("{flow}@{version}");
            match self.unreadable.read().get(key.as_bytes()) {
                Some(reason) => format!("this worker cannot read the document of flow {key}: {reason}"),
                None => format!("flow {key} is not known at this worker"),
            }
        })
    }

    /// The queues of all flows, as they change.
    pub(crate) fn queues(&self) -> watch::Receiver<BTreeSet<String>> {
        self.queues.subscribe()
    }

    fn known(&self, flow: &str, version: &str) -> Option<Definition> {
        self.definitions.read().get(flow)?.get(version).map(|known| known.definition.clone())
    }

    /// No job is on this version any more.
    fn forget(&self, key: &[u8]) {
        self.unreadable.write().remove(key);
        if let Some((flow, version)) = str::from_utf8(key).ok().and_then(|key| key.split_once('@'))
            && let Some(versions) = self.definitions.write().get_mut(flow)
        {
            versions.remove(version);
        }
    }

    fn insert(&self, known: Known) {
        let definition = &known.definition;
        let queues: Vec<String> = definition.queues().into_iter().map(ToOwned::to_owned).collect();
        let (flow, version) = (definition.name().to_owned(), definition.version().to_owned());
        self.unreadable.write().remove(format!("{flow}@{version}").as_bytes());
        let mut definitions = self.definitions.write();
        definitions.entry(flow).or_default().insert(version, known);
        drop(definitions);
        self.queues.send_if_modified(|known| {
            let before = known.len();
            known.extend(queues);
            known.len() > before
        });
    }
}

/// A version; none for a tombstone.
fn read(record: &Inbound) -> Result<Option<Known>, NotAFlow> {
    let Some(value) = &record.value else { return Ok(None) };
    let document = FlowDocument::parse(value)?;
    Ok(Some(Known { definition: document.definition()?, revision: document.revision }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version of a flow whose step calls this with these limits.
    fn version(flow: &str, revision: i64, url: &str, limits: &str) -> Inbound {
        let text =
            format!("flow: {flow}\nsteps: [{{ id: a, http: {{ method: POST, url: \"{url}\" }}, limits: {limits} }}]");
        let definition = Definition::parse_yaml("t.yaml", &text, &mut |_| Err(String::new())).unwrap();
        let version = definition.version().to_owned();
        let document =
            FlowDocument { flow: flow.to_owned(), version, revision, document: definition.document().clone() };
        Inbound { key: Some(document.key().into_bytes()), value: Some(document.to_json()), ..Inbound::default() }
    }

    #[tokio::test]
    async fn the_strictest_limits_of_the_active_flows_and_of_the_step_itself_count() {
        let env = Env { vars: [("PAY".to_owned(), "http://pay".to_owned())].into(), ..Env::default() };
        let (flows, ..) = Flows::new(env);
        let of = |per_minute, in_flight| Limits { per_minute, in_flight };
        let limits = |declared| flows.limits_of("pay", declared);
        flows.learn(&[version("loose", 1, "http://pay/x", "{ rate: 10/s, in_flight: 9 }")]).await;
        assert_eq!(limits(Limits::default()), of(Some(600), Some(9)), "whoever calls it");
        flows.learn(&[version("strict", 2, "{{ env.PAY }}/y", "{ rate: 1/s }")]).await;
        assert_eq!(limits(of(Some(600), Some(9))), of(Some(60), Some(9)));
        assert_eq!(limits(of(Some(6), None)), of(Some(6), Some(9)), "a job of an earlier version keeps its own");
        assert_eq!(flows.limits_of("other", Limits::default()), Limits::default());
        flows.learn(&[version("strict", 3, "{{ env.PAY }}/y", "{ rate: 5/s }")]).await;
        assert_eq!(limits(Limits::default()), of(Some(300), Some(9)), "the version that is active now");
    }
}
