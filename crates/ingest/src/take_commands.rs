//! Follows the topics of commands: that of the default tenant, and one of each tenant that has its own. The topic alone
//! says whose jobs they are; whoever may write to it is for Kafka to say.
//!
//! Each is followed for itself, so that commands of one tenant that wait for its allowance hold up no other's.

use std::sync::Arc;

use anyhow::Context;
use bus::FollowerOptions;
use futures_util::future::try_join_all;
use inbox::Inbox;
use tokio_util::sync::CancellationToken;

use crate::commands::Commands;
use crate::plan::Planner;
use crate::settings::Settings;
use crate::state::Api;

/// Takes commands in, until shutdown.
///
/// # Errors
/// A topic cannot be read: an offset is not in its log.
pub(crate) async fn take_commands(
    settings: Settings,
    api: Arc<Api>,
    planner: Planner,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let own = (settings.topics.ingest_group(), settings.topics.commands(), settings.config.commands_caller());
    let of_tenants = settings.config.commands_tenants.iter().map(|tenant| {
        let topic = settings.topics.commands_of(tenant);
        (settings.topics.trigger_group(&topic), topic, settings.config.commands_caller_of(tenant))
    });
    let doors = std::iter::once(own).chain(of_tenants).map(|(group, topic, caller)| {
        let inbox = Inbox::new(settings.bus.clone(), api.pool.clone(), api.readiness.clone());
        let commands = Commands { api: Arc::clone(&api), planner: planner.clone(), caller, is_waiting: false };
        let shutdown = &shutdown;
        async move {
            let outcome = inbox.run(FollowerOptions::new(group, [topic.as_str()]), commands, shutdown).await;
            let help = "see docs/runbooks/offset-out-of-range.md where an offset is not in the log";
            outcome.with_context(|| format!("reading {topic}: {help}"))
        }
    });
    try_join_all(doors).await.map(drop)
}
