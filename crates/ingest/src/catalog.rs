//! The flows that are known here, by name, version and route: loaded from the flows topic and
//! kept up to date by its tail.

use std::collections::HashMap;
use std::sync::Arc;

use events::flow_document::{FlowDocument, NotAFlow};
use flow::definition::{Clash, Definition, clashes};
use flow::event::{EventKind, JobEvent};
use flow::nearest::nearest;
use parking_lot::RwLock;
use store::flows::AppliedFlow;
use tokio::sync::watch;

/// The most versions that are kept; a deployment with more applies flows in a wrong way.
const VERSIONS_MAX: usize = 10_000;
/// The target of a request for a path.
#[derive(Clone)]
pub(crate) enum Routed {
    /// To a flow.
    Flow(Definition),
    /// To several flows, which must not be.
    Several(Clash),
    /// The path is a flow's, the method is not.
    OtherMethod(String),
    /// No flow has this path.
    Nothing,
}

#[derive(Default)]
struct Flows {
    active: HashMap<String, (i64, Definition)>,
    versions: HashMap<(String, String), Definition>,
    /// Told when another version is active.
    changed: watch::Sender<()>,
}

/// All known flows. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Catalog(Arc<RwLock<Flows>>);

impl Catalog {
    /// Takes in one flow document. The highest revision of a flow is the active one, in whatever order revisions come.
    pub(crate) fn learn(&self, revision: i64, definition: Definition) {
        let mut flows = self.0.write();
        if flows.versions.len() < VERSIONS_MAX {
            let identity = (definition.name().to_owned(), definition.version().to_owned());
            flows.versions.insert(identity, definition.clone());
        }
        let known = flows.active.get(definition.name()).map(|(revision, _)| *revision);
        if known.is_none_or(|known| known < revision) {
            flows.active.insert(definition.name().to_owned(), (revision, definition));
            flows.changed.send_replace(());
        }
    }

    /// Takes in a flow as Postgres has it.
    pub(crate) fn learn_stored(&self, applied: AppliedFlow) {
        let AppliedFlow { flow, version, revision, document, .. } = applied;
        let document = serde_json::from_str(&document).map_err(|error| NotAFlow::NotADocument(error.to_string()));
        let read = document.and_then(|document| {
            FlowDocument { flow: flow.clone(), version: version.clone(), revision, document }.definition()
        });
        match read {
            Ok(definition) => self.learn(revision, definition),
            Err(error) => {
                let error = error.to_string();
                tracing::error!(flow, version, error, "a stored flow cannot be read by this version; skipped");
            }
        }
    }

    /// Forgets a version that no job is on any more.
    pub(crate) fn forget(&self, key: &[u8]) {
        let Some((flow, version)) = str::from_utf8(key).ok().and_then(|key| key.split_once('@')) else { return };
        let mut flows = self.0.write();
        flows.versions.remove(&(flow.to_owned(), version.to_owned()));
    }

    /// The active version of a flow.
    pub(crate) fn active(&self, name: &str) -> Option<Definition> {
        let flows = self.0.read();
        flows.active.get(name).map(|(_, definition)| definition.clone())
    }

    /// One version of a flow.
    pub(crate) fn version(&self, name: &str, version: &str) -> Option<Definition> {
        let flows = self.0.read();
        flows.versions.get(&(name.to_owned(), version.to_owned())).cloned()
    }

    /// The end of the time for which the results of a version are given, for a job that ended then; none without one.
    pub(crate) fn result_until_ms(&self, (flow, version): (&str, &str), ended_ms: i64) -> Option<i64> {
        let ttl_ms = self.version(flow, version)?.result_ttl_ms()?;
        Some(ended_ms.saturating_add_unsigned(ttl_ms))
    }

    /// The same for the result in an event; none where it has no result.
    pub(crate) fn told_until_ms(&self, event: &JobEvent) -> Option<i64> {
        let has_result = event.kind == EventKind::JobSucceeded;
        has_result.then(|| self.result_until_ms((&event.flow, &event.version), event.at_ms)).flatten()
    }

    /// The flow whose own route this is.
    pub(crate) fn routed(&self, method: &str, path: &str) -> Routed {
        let flows = self.0.read();
        let (mut other, mut found) = (Routed::Nothing, Vec::new());
        for (_, definition) in flows.active.values() {
            let Some(route) = definition.route().filter(|route| route.path == path) else { continue };
            if route.method == method {
                found.push(definition);
            } else {
                other = Routed::OtherMethod(route.method.clone());
            }
        }
        found.sort_by_key(|flow| flow.name());
        match (found.as_slice(), clashes(found.iter().copied()).pop()) {
            ([], _) => other,
            (_, Some(clash)) => Routed::Several(clash),
            ([flow, ..], None) => Routed::Flow((*flow).clone()),
        }
    }

    /// Addresses of active flows that are taken: `flows apply` refuses them, but an older one did not.
    pub(crate) fn clashes(&self) -> Vec<Clash> {
        clashes(&self.list())
    }

    /// The active flows, by name.
    pub(crate) fn list(&self) -> Vec<Definition> {
        let flows = self.0.read();
        let mut list: Vec<_> = flows.active.values().map(|(_, definition)| definition.clone()).collect();
        list.sort_by(|one, other| one.name().cmp(other.name()));
        list
    }

    /// The active flows, each with its revision.
    pub(crate) fn active_revisions(&self) -> Vec<(i64, Definition)> {
        self.0.read().active.values().cloned().collect()
    }

    /// Hears when another version of a flow is active.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.read().changed.subscribe()
    }

    /// The text about an unknown name, with the nearest known one.
    pub(crate) fn no_such_flow(&self, name: &str) -> String {
        let flows = self.0.read();
        match nearest(name, flows.active.keys().map(String::as_str)) {
            Some(candidate) => format!("There is no flow `{name}`. Did you mean `{candidate}`?"),
            None if flows.active.is_empty() => format!("There is no flow `{name}`: no flow has been applied yet."),
            None => format!("There is no flow `{name}`."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, url: &str) -> Definition {
        let text = format!(
            "flow: {name}\nroute: POST /{name}s\nsteps:\n  - id: one\n    http: {{ method: POST, url: \"{url}\" }}\n"
        );
        Definition::parse_yaml("test.yaml", &text, &mut |_| Err("no references here".to_owned())).unwrap()
    }

    #[test]
    fn the_highest_revision_is_active_in_whatever_order_they_come() {
        let catalog = Catalog::default();
        let (old, new) = (definition("order", "http://a/"), definition("order", "http://b/"));
        catalog.learn(2, new.clone());
        catalog.learn(1, old.clone());
        assert_eq!(catalog.active("order").unwrap().version(), new.version());
        assert!(catalog.version("order", old.version()).is_some());
    }

    #[test]
    fn a_version_that_was_retired_is_forgotten_and_the_active_one_stays() {
        let catalog = Catalog::default();
        let (old, new) = (definition("order", "http://a/"), definition("order", "http://b/"));
        catalog.learn(1, old.clone());
        catalog.learn(2, new.clone());
        catalog.forget(format!("order@{}", old.version()).as_bytes());
        assert!(catalog.version("order", old.version()).is_none());
        assert_eq!(catalog.active("order").unwrap().version(), new.version());
    }

    #[test]
    fn a_route_leads_to_its_flow_and_another_method_is_told_apart_from_nothing() {
        let catalog = Catalog::default();
        catalog.learn(1, definition("order", "http://a/"));
        assert!(matches!(catalog.routed("POST", "/orders"), Routed::Flow(found) if found.name() == "order"));
        assert!(matches!(catalog.routed("PUT", "/orders"), Routed::OtherMethod(method) if method == "POST"));
        assert!(matches!(catalog.routed("POST", "/other"), Routed::Nothing));
    }

    #[test]
    fn an_address_of_two_flows_leads_to_neither() {
        let catalog = Catalog::default();
        let text = "flow: other\nroute: POST /orders\nsteps: [{ id: one, native: one }]\n";
        let other = Definition::parse_yaml("test.yaml", text, &mut |_| Err("no references here".to_owned())).unwrap();
        catalog.learn(1, definition("order", "http://a/"));
        assert!(catalog.clashes().is_empty());
        catalog.learn(2, other);
        assert!(matches!(catalog.routed("POST", "/orders"), Routed::Several(_)));
        assert_eq!(catalog.clashes()[0].to_string(), "`POST /orders` is the route of two flows, `order` and `other`");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_known_one() {
        let catalog = Catalog::default();
        catalog.learn(1, definition("order", "http://a/"));
        assert_eq!(catalog.no_such_flow("odrer"), "There is no flow `odrer`. Did you mean `order`?");
        assert_eq!(catalog.no_such_flow("something"), "There is no flow `something`.");
    }
}
