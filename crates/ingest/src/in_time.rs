//! Work of the database for a request that waits for it.

use std::time::Duration;

use web::problem::{Kind, Problem};

/// The time that Postgres has to store something, or to look through a page.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// The outcome of the work, or this problem when Postgres fails or takes too long. A value that Postgres does not take,
/// or that cannot be read, is no outage: the problem is 500, and nobody is told to come again.
pub(crate) async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, store::Error>>,
    unavailable: impl Fn() -> Problem,
) -> Result<T, Problem> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome.map_err(|error| told(error, unavailable)),
        Err(_) => Err(unavailable()),
    }
}

/// The problem of a read that was not answered.
pub(crate) fn unanswered() -> Problem {
    Problem::new(Kind::NotReady, "The database did not answer.").retry_after_s(1)
}

fn told(error: store::Error, unavailable: impl Fn() -> Problem) -> Problem {
    match error {
        store::Error::Row(_) | store::Error::Corrupt(_) => Problem::internal(error),
        error => unavailable().caused_by(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_that_cannot_be_read_is_no_outage() {
        let unavailable = || Problem::new(Kind::NotReady, "The database does not answer.");
        for (error, kind) in [
            (store::Error::Corrupt("a word".to_owned()), Kind::Internal),
            (store::Error::Conflict { topic: "t".to_owned(), partition: 0 }, Kind::NotReady),
        ] {
            let answer = in_time(STORE_TIMEOUT, async { Err::<(), _>(error) }, unavailable).await;
            assert_eq!(answer.unwrap_err().kind(), kind);
        }
    }
}
