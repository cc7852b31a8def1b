//! Natural group commit: while one transaction is in flight, requests queue; the next transaction takes them all.
//!
//! The transactions run in a task of their own, so a caller that goes away cannot roll anybody back.
//!
//! Invariant: a caller is told `202` only after the commit that holds its job.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use service_kit::health::Readiness;
use service_kit::stop_at;
use store::Pool;
use store::acceptances::{Accepted, NewAcceptance, accept_batch};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Requests in one transaction, at most: more would only make the first of them wait for the last.
const BATCH_MAX: usize = 500;
/// Requests that may queue for the next transaction; beyond it callers get 503.
const QUEUE_MAX: usize = 20_000;

/// After this time the callers of a transaction learn that its outcome is unknown. Postgres ends a slow statement by
/// itself; a host that has vanished does not answer at all.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another request with the same key is being accepted right now.
    #[error("another request with this key is being accepted")]
    KeyInUse,
    /// More requests queue than are taken.
    #[error("{QUEUE_MAX} requests are waiting to be stored already")]
    Full,
    /// Postgres does not answer; the outcome may be unknown, and repeating with the key is safe.
    #[error("the database did not take the request")]
    Unavailable(#[source] Arc<store::Error>),
    /// Postgres took too long; the outcome is unknown, and repeating with the key is safe.
    #[error("the database did not answer within {} s", COMMIT_TIMEOUT.as_secs())]
    TooSlow,
    /// This request cannot be stored.
    #[error("the request could not be stored")]
    Refused(#[source] Arc<store::Error>),
    /// The service is going away.
    #[error("the service is shutting down")]
    Closed,
}

type Reply = oneshot::Sender<Result<Accepted, Error>>;
type PendingKey = (String, String, String);

struct Request {
    acceptance: NewAcceptance,
    reply: Reply,
    // Held until the transaction has ended, even when the caller does not wait for it.
    reservation: Option<Reservation>,
}

/// Hands requests to the group commit. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Acceptor {
    queue: mpsc::Sender<Request>,
    pending_keys: Arc<Mutex<HashSet<PendingKey>>>,
}

/// Takes the key out of the pending ones when dropped.
struct Reservation {
    keys: Arc<Mutex<HashSet<PendingKey>>>,
    key: PendingKey,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.key);
    }
}

impl Acceptor {
    /// The handle, and the loop that must run for it.
    pub(crate) fn start(pool: Pool, readiness: Readiness) -> (Self, impl Future<Output = ()>) {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        (Self { queue, pending_keys: Arc::default() }, commit_groups(pool, readiness, requests))
    }

    /// Stores the request, or finds the job that its key stands for. Returns after the commit.
    pub(crate) async fn accept(&self, acceptance: NewAcceptance) -> Result<Accepted, Error> {
        let reservation = self.reserve(&acceptance)?;
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Request { acceptance, reply, reservation }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Full,
            mpsc::error::TrySendError::Closed(_) => Error::Closed,
        })?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    fn reserve(&self, acceptance: &NewAcceptance) -> Result<Option<Reservation>, Error> {
        let Some(idempotency) = &acceptance.idempotency else { return Ok(None) };
        let tenant = acceptance.acceptance.tenant.clone();
        let key = (tenant, idempotency.scope.clone(), idempotency.key.clone());
        if !self.pending_keys.lock().insert(key.clone()) {
            return Err(Error::KeyInUse);
        }
        Ok(Some(Reservation { keys: Arc::clone(&self.pending_keys), key }))
    }
}

async fn commit_groups(pool: Pool, readiness: Readiness, mut requests: mpsc::Receiver<Request>) {
    let mut group = Vec::with_capacity(BATCH_MAX);
    while requests.recv_many(&mut group, BATCH_MAX).await > 0 {
        metrics::histogram!("meanwhile_accept_batch_size").record(group.len() as f64);
        let (batch, callers): (Vec<_>, Vec<_>) =
            group.drain(..).map(|request| (request.acceptance, (request.reply, request.reservation))).unzip();
        let outcomes = commit_one_group(&pool, &readiness, &batch).await;
        for ((reply, reservation), outcome) in callers.into_iter().zip(outcomes) {
            drop(reservation);
            // A caller that went away has its job all the same.
            let _ = reply.send(outcome);
        }
    }
}

async fn commit_one_group(pool: &Pool, readiness: &Readiness, batch: &[NewAcceptance]) -> Vec<Result<Accepted, Error>> {
    stop_at("ingest.before-commit");
    let Ok(outcome) = tokio::time::timeout(COMMIT_TIMEOUT, accept_batch(pool, batch)).await else {
        readiness.missing("postgres", Error::TooSlow);
        return batch.iter().map(|_| Err(Error::TooSlow)).collect();
    };
    stop_at("ingest.after-commit");
    match outcome {
        Ok(accepted) => {
            readiness.ready("postgres");
            accepted.into_iter().map(Ok).collect()
        }
        Err(error) if error.is_row_error() && batch.len() > 1 => one_by_one(pool, batch).await,
        Err(error) => {
            let row_error = error.is_row_error();
            if !row_error {
                readiness.missing("postgres", &error);
            }
            let error = Arc::new(error);
            let outcome = || match row_error {
                true => Err(Error::Refused(Arc::clone(&error))),
                false => Err(Error::Unavailable(Arc::clone(&error))),
            };
            batch.iter().map(|_| outcome()).collect()
        }
    }
}

/// One bad row costs only itself.
async fn one_by_one(pool: &Pool, batch: &[NewAcceptance]) -> Vec<Result<Accepted, Error>> {
    let mut outcomes = Vec::with_capacity(batch.len());
    for request in batch {
        let accepting = accept_batch(pool, std::slice::from_ref(request));
        let Ok(outcome) = tokio::time::timeout(COMMIT_TIMEOUT, accepting).await else {
            outcomes.push(Err(Error::TooSlow));
            continue;
        };
        outcomes.push(match outcome {
            Ok(accepted) => accepted.into_iter().next().ok_or(Error::Closed),
            Err(error) if error.is_row_error() => Err(Error::Refused(Arc::new(error))),
            Err(error) => Err(Error::Unavailable(Arc::new(error))),
        });
    }
    outcomes
}

/// Ends the loop of [`Acceptor::start`] at shutdown, once the last handle is gone or the queue is drained.
pub(crate) async fn until_shutdown(
    groups: impl Future<Output = ()>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    tokio::select! {
        () = groups => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}
