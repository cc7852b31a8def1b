//! Flows as they come in from Kafka: at the start, and when one is applied.

use std::sync::Arc;

use bus::TableTail;
use events::Inbound;
use events::flow_document::FlowDocument;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::state::Api;

/// The addresses of active flows that are taken, told for a person.
pub(crate) fn addresses(catalog: &Catalog) -> Result<(), String> {
    let taken: Vec<String> = catalog.clashes().iter().map(ToString::to_string).collect();
    if taken.is_empty() { Ok(()) } else { Err(taken.join("; ")) }
}

pub(crate) fn learn(catalog: &Catalog, record: &Inbound) {
    let Some(value) = &record.value else { return catalog.forget(record.key.as_deref().unwrap_or_default()) };
    let read = FlowDocument::parse(value).and_then(|document| Ok((document.revision, document.definition()?)));
    match read {
        Ok((revision, definition)) => {
            tracing::info!(flow = definition.name(), version = definition.version(), "flow known");
            catalog.learn(revision, definition);
        }
        // The orchestrator keeps it as a dead letter.
        Err(error) => tracing::warn!(offset = record.offset, error = error.to_string(), "unreadable flow skipped"),
    }
}

pub(crate) async fn follow_flows(
    mut flows: TableTail,
    api: Arc<Api>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    while let Some(Some(records)) = shutdown.run_until_cancelled(flows.next()).await {
        records.iter().for_each(|record| learn(&api.catalog, record));
        // Only a start is held up: a process that serves other flows goes on.
        match addresses(&api.catalog) {
            Ok(()) => api.readiness.ready("flows"),
            Err(taken) => tracing::error!(taken, "flows have addresses that are taken; they lead nowhere"),
        }
    }
    Ok(())
}
