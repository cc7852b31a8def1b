//! Webhooks: the endpoints at which tenants want to be told of events (`ingest.webhook_endpoints`), the webhooks that
//! requests ask for their own jobs (`ingest.job_webhooks`), what is asked of the notifier (`ingest.webhook_requests`),
//! and its deliveries.
//!
//! Ingest writes what is registered and asked, the notifier what became of it; each reads the other's.

mod deliveries;
mod endpoints;
mod listing;
mod of_jobs;
mod outcomes;
mod requests;

use uuid::Uuid;

use crate::{Error, Listener, Pool};

pub use deliveries::{Due, Leased, NewDelivery, Subscription, insert, lease, next_due, subscriptions};
pub use endpoints::{Change, Changed, Endpoint, Kind, NewEndpoint, Signing, State};
pub use endpoints::{change, create, delete, enable, find, list, rotate};
pub use listing::{Attempt, Choice, Delivery, Status, attempts, find_delivery, list_deliveries};
pub use of_jobs::{JobSubscription, JobWebhook, end_of_jobs, forget_of_jobs, of_job, of_jobs};
pub use outcomes::{Disabled, Figures, Outcome, Rest, disable, figures, record, rest, retire};
pub use requests::{Action, Asked, Request, ask, forget, resend, take};

/// The channel on which notifiers listen.
pub(crate) const CHANNEL: &str = "meanwhile_webhooks";

/// The beginning of a delivery's id, as receivers know it.
const MESSAGE: &str = "msg_";

/// A delivery's id, as its receiver knows it: the `webhook-id`, the same for every attempt.
pub fn message_id(delivery: Uuid) -> String {
    format!("{MESSAGE}{}", delivery.simple())
}

/// The reverse of [`message_id`].
pub fn delivery_of(message_id: &str) -> Option<Uuid> {
    Uuid::try_parse(message_id.strip_prefix(MESSAGE)?).ok()
}

/// Hears of changes of endpoints, and of requests.
pub async fn listen(pool: &Pool) -> Result<Listener, Error> {
    Listener::on(pool, CHANNEL).await
}

/// Tells all notifiers that something is due.
pub async fn tell(pool: &Pool) -> Result<(), Error> {
    sqlx::query!("select pg_notify($1, '')", CHANNEL).execute(pool.raw()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_know_a_delivery_by_its_id_with_a_prefix() {
        let delivery = Uuid::from_u128(0x0190_a6f2_1111_7222_8333_4444_5555_6666);
        assert_eq!(message_id(delivery), "msg_0190a6f2111172228333444455556666");
        assert_eq!(delivery_of("msg_0190a6f2111172228333444455556666"), Some(delivery));
        for other in ["0190a6f2111172228333444455556666", "msg_", "msg_x"] {
            assert_eq!(delivery_of(other), None, "{other}");
        }
    }
}
