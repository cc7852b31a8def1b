//! The triggers (`on` of a flow) start jobs beside requests and commands: signed webhooks, schedules, records of topics
//! of others. All go through the same plan and the same acceptance as requests do.
//!
//! Their ids have a space of their own in the table of idempotency keys, so that nobody takes the place of a webhook by
//! a request with its id. The first input of an id counts: senders repeat themselves, in slightly other words.

use std::sync::Arc;

use events::time::DAY_MS;
use store::acceptances::NewAcceptance;
use tokio_util::sync::CancellationToken;

use crate::plan::Planner;
use crate::settings::Settings;
use crate::state::Api;

mod records;
mod schedules;
mod topics;
pub(crate) mod webhook;

/// Ids are remembered for so long at least: GitHub and Stripe send again for three days.
const REMEMBERED_MS_MIN: i64 = 7 * DAY_MS;

/// The acceptance of an input with an id, if it has one.
fn of_trigger(mut acceptance: NewAcceptance) -> NewAcceptance {
    if let Some(idempotency) = &mut acceptance.idempotency {
        idempotency.scope = format!("triggers/{}", acceptance.acceptance.facts.flow);
        idempotency.retention_ms = idempotency.retention_ms.max(REMEMBERED_MS_MIN);
        // Equal for all: another input with the same id is a repetition.
        idempotency.fingerprint.clear();
    }
    acceptance
}

/// The name of what has no other.
fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", flow::document::sha256(bytes))
}

/// Keeps schedules and topics, until shutdown.
pub(crate) async fn keep(
    api: Arc<Api>,
    planner: Planner,
    settings: Settings,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let schedules = schedules::keep(&api, &planner, &shutdown);
    let topics = topics::keep(&api, &planner, &settings, &shutdown);
    tokio::join!(schedules, topics);
    Ok(())
}
