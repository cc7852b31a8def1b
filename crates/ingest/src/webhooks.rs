//! Webhooks, as tenants register them and see what became of them: `/v1/webhooks/...`. The notifier sends them.
//!
//! Invariant: a secret leaves this process in the answer to its creation or rotation, and never again.

pub(crate) mod deliveries;
pub(crate) mod endpoints;
mod form;
pub(crate) mod of_job;

use uuid::Uuid;
use web::problem::{Kind, Problem};

use crate::in_time::{STORE_TIMEOUT, in_time, unanswered};

/// The path of endpoints.
pub(crate) const ENDPOINTS: &str = "/v1/webhooks/endpoints";
/// The path of deliveries.
pub(crate) const DELIVERIES: &str = "/v1/webhooks/deliveries";

fn unknown_endpoint(text: &str) -> Problem {
    Problem::new(Kind::UnknownEndpoint, format!("There is no endpoint `{text}`."))
}

fn endpoint_id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| unknown_endpoint(text))
}

fn unknown_delivery(text: &str) -> Problem {
    Problem::new(Kind::UnknownDelivery, format!("There is no delivery `{text}`."))
}

fn delivery_id(text: &str) -> Result<Uuid, Problem> {
    store::webhooks::delivery_of(text).ok_or_else(|| unknown_delivery(text))
}

async fn read<T>(work: impl Future<Output = Result<T, store::Error>>) -> Result<T, Problem> {
    in_time(STORE_TIMEOUT, work, unanswered).await
}

async fn stored<T>(work: impl Future<Output = Result<T, store::Error>>) -> Result<T, Problem> {
    let unavailable = || {
        Problem::new(Kind::NotReady, "The database did not answer, so it is not certain that this is done.")
            .retry_after_s(1)
    };
    in_time(STORE_TIMEOUT, work, unavailable).await
}
