//! Makes flows active.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::bail;
use bus::admin::Admin;
use events::Record;
use events::flow_document::FlowDocument;
use events::trace::Trace;
use flow::definition::{Definition, clashes};
use service_kit::identity::Ids;
use service_kit::trace::fresh;
use store::flows::Applied;
use store::{Pool, Role};

use crate::Target;

/// The outcome of [`Target::apply_flows`]. Displayed, it is one line per queue and flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedFlows {
    /// The topics of queues that had to be created.
    pub topics_created: Vec<String>,
    /// In the order in which they were given.
    pub flows: Vec<AppliedFlow>,
}

/// The outcome for one flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedFlow {
    /// Its name.
    pub flow: String,
    /// The version that is active now.
    pub version: String,
    /// The place of that version among all that were ever applied.
    pub revision: i64,
    /// False when this version was the active one before.
    pub is_new: bool,
}

impl fmt::Display for AppliedFlows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for topic in &self.topics_created {
            writeln!(f, "created  {topic}")?;
        }
        for AppliedFlow { flow, version, revision, is_new } in &self.flows {
            let outcome = if *is_new { "applied" } else { "as it was" };
            writeln!(f, "{outcome}  {flow} {version} (revision {revision})")?;
        }
        Ok(())
    }
}

impl Target {
    /// Makes these the active versions. A flow and its record for Kafka commit together.
    ///
    /// # Errors
    /// The address of a flow is taken, by another one of them or by an active one; nothing was changed then. Kafka, the
    /// registry or Postgres refuses or does not answer; the flows before that one stay applied.
    pub async fn apply_flows(&self, definitions: &[Definition]) -> anyhow::Result<AppliedFlows> {
        let pool = self.pool(Role::Ingest)?;
        check_addresses(&pool, definitions).await?;
        let topics_created = self.ensure_queues(definitions).await?;
        let mut flows = Vec::with_capacity(definitions.len());
        for definition in definitions {
            let mut tx = pool.begin().await?;
            let (flow, version) = (definition.name().to_owned(), definition.version().to_owned());
            let document = definition.document().to_string();
            let applied = store::flows::apply(&mut tx, &flow, &version, &document).await?;
            let (revision, is_new) = match applied {
                Applied::Changed { revision } => {
                    store::outbox::append(&mut tx, &[self.record(definition, revision)]).await?;
                    tx.commit().await?;
                    (revision, true)
                }
                Applied::Unchanged { revision } => {
                    tx.rollback().await?;
                    (revision, false)
                }
            };
            flows.push(AppliedFlow { flow, version, revision, is_new });
        }
        pool.close().await;
        Ok(AppliedFlows { topics_created, flows })
    }

    /// The topics that had to be created.
    async fn ensure_queues(&self, definitions: &[Definition]) -> anyhow::Result<Vec<String>> {
        let queues: BTreeSet<String> = definitions.iter().flat_map(Definition::queues).map(str::to_owned).collect();
        let (admin, group) = (Admin::new(&self.bus)?, self.topics.workers_group());
        let mut created = Vec::new();
        for queue in &queues {
            if admin.ensure_queue(&self.topics, queue, &group, None).await? {
                created.push(self.topics.steps(queue));
            }
        }
        self.register_subjects(&queues).await?;
        Ok(created)
    }

    fn record(&self, definition: &Definition, revision: i64) -> Record {
        let document = FlowDocument {
            flow: definition.name().to_owned(),
            version: definition.version().to_owned(),
            revision,
            document: definition.document().clone(),
        };
        events::flow_record(&self.topics, &document, &new_trace())
    }
}

/// Addresses are compared with those of the active flows, which may come from elsewhere.
async fn check_addresses(pool: &Pool, definitions: &[Definition]) -> anyhow::Result<()> {
    // Oldest revision first: of each flow the active version remains.
    let stored = store::flows::all(pool).await?.into_iter().map(|stored| (stored.flow.clone(), stored));
    let mut active: BTreeMap<_, _> = stored.collect();
    definitions.iter().for_each(|definition| drop(active.remove(definition.name())));
    let mut flows = Vec::new();
    for (name, stored) in active {
        let document = serde_json::from_str(&stored.document)?;
        let (version, revision) = (stored.version, stored.revision);
        // One that this version cannot read has no address here either.
        flows.extend(FlowDocument { flow: name, version, revision, document }.definition());
    }
    // Clashes among active flows were there before.
    let known = clashes(&flows).len();
    let found = clashes(flows.iter().chain(definitions)).split_off(known);
    if found.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    bail!(
        "nothing was changed: {}. An active flow gives its address up when it is applied with another one, or without",
        told.join("; ")
    )
}

#[expect(clippy::disallowed_methods, reason = "a command, which makes no id but this one")]
fn new_trace() -> Trace {
    fresh(&Ids::system(), 1)
}
