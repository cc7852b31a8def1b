//! Work of the database for a request that waits for it.

use std::time::Duration;

use web::problem::Problem;

/// The time that Postgres has to store something, or to look through a page.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// The outcome of the work, or this problem when it fails or takes too long.
pub(crate) async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, store::Error>>,
    unavailable: impl Fn() -> Problem,
) -> Result<T, Problem> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome.map_err(|error| unavailable().caused_by(error)),
        Err(_) => Err(unavailable()),
    }
}
