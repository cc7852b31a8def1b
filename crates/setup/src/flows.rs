//! Flows become active.

use std::collections::BTreeSet;
use std::fmt;

use bus::admin::Admin;
use events::Record;
use events::flow_document::FlowDocument;
use events::trace::{Trace, TraceContext, TraceId};
use flow::definition::Definition;
use service_kit::identity::Ids;
use store::Role;
use store::flows::Applied;

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
    /// Kafka, the registry or Postgres refuses or does not answer; the flows before that one stay applied.
    pub async fn apply_flows(&self, definitions: &[Definition]) -> anyhow::Result<AppliedFlows> {
        let topics_created = self.ensure_queues(definitions).await?;
        let pool = self.pool(Role::Ingest)?;
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
        let (admin, group) = (Admin::new(&self.bus)?, self.workers_group());
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

fn new_trace() -> Trace {
    let ids = Ids::system();
    Trace::new(TraceContext {
        trace_id: TraceId::new(u128::from_be_bytes(ids.trace_id())),
        span_id: u64::from_be_bytes(ids.span_id()),
        flags: 1,
    })
}
