//! Group commit: while one transaction is in flight, requests queue; the next transaction takes them all.
//!
//! The transactions run in a task of their own, so a caller that goes away cannot roll back the requests of others. One
//! that goes away before its turn is forgotten.
//!
//! Invariant: a caller is told `202` only after the commit that holds its job.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use events::Record;
use parking_lot::Mutex;
use service_kit::health::Readiness;
use service_kit::stop_at;
use store::acceptances::{Accepted, NewAcceptance, accept_batch, accept_batch_in};
use store::webhooks::JobWebhook;
use store::{Pool, outbox};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// The bounds of the queue and of one transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Requests that may queue; beyond it callers get 503.
    queue_requests_max: usize,
    /// Bytes of the requests that queue or are being stored; beyond it callers get 503.
    queue_bytes_max: usize,
    /// Requests in one transaction: with more, the first would only wait longer for the last.
    group_requests_max: usize,
    /// Bytes in one transaction, which are copied several times on their way. A larger request goes alone.
    group_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_requests_max: 20_000,
            queue_bytes_max: 64 * 1024 * 1024,
            group_requests_max: 500,
            group_bytes_max: 8 * 1024 * 1024,
        }
    }
}

/// What a request takes beside its input and its records.
const REQUEST_BYTES: usize = 1_024;
/// The time after which a caller is told that the outcome is unknown: its turn, and then its transaction.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The time after which the callers of a transaction are told that its outcome is unknown. Postgres ends a slow
/// statement by itself; a lost host does not answer at all.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The shortest time between two notifications of a relay that polls: Postgres commits them one after the other.
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(2);

/// The reason for which a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another request with the same key is being accepted right now.
    #[error("another request with this key is being accepted")]
    KeyInUse,
    /// More requests queue than are taken.
    #[error("too many or too large requests are waiting to be stored already")]
    Full,
    /// Postgres does not answer; the outcome may be unknown, and repeating with the key is safe.
    #[error("the database did not take the request")]
    Unavailable(#[source] Arc<store::Error>),
    /// Postgres took too long; the outcome is unknown, and repeating with the key is safe.
    #[error("the database did not answer in time")]
    TooSlow,
    /// This request cannot be stored.
    #[error("the request could not be stored")]
    Refused(#[source] Arc<store::Error>),
    /// The service is going away.
    #[error("the service is shutting down")]
    Closed,
}

impl From<Arc<store::Error>> for Error {
    fn from(error: Arc<store::Error>) -> Self {
        if error.is_row_error() { Self::Refused(error) } else { Self::Unavailable(error) }
    }
}

type Reply = oneshot::Sender<Result<Accepted, Error>>;
type PendingKey = (String, String, String);

struct Request {
    acceptance: NewAcceptance,
    reply: Reply,
    // Both are held until the transaction has ended, even when the caller does not wait for it.
    reservation: Option<Reservation>,
    room: Room,
}

/// Hands requests to the group commit. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Acceptor {
    queue: mpsc::Sender<Request>,
    pending_keys: Arc<Mutex<HashSet<PendingKey>>>,
    used_bytes: Arc<AtomicUsize>,
    limits: Limits,
}

/// The bytes of a request, given back when dropped.
struct Room {
    used_bytes: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Groups of requests, each for one transaction.
struct Groups {
    requests: mpsc::Receiver<Request>,
    /// The request that did not fit into the last group.
    left: Option<Request>,
    limits: Limits,
}

impl Groups {
    /// All requests that wait, as far as they fit; at least one. Empty when nobody can send any more.
    async fn next(&mut self) -> Vec<Request> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < self.limits.group_requests_max {
            let request = match self.left.take() {
                Some(left) => Some(left),
                None if group.is_empty() => self.requests.recv().await,
                None => self.requests.try_recv().ok(),
            };
            let Some(request) = request else { break };
            // Its caller has left before its turn: nothing was promised.
            if request.reply.is_closed() {
                continue;
            }
            bytes += request.room.bytes;
            if bytes > self.limits.group_bytes_max && !group.is_empty() {
                self.left = Some(request);
                break;
            }
            group.push(request);
        }
        group
    }
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
        let (acceptor, groups) = Self::new(Limits::default());
        (acceptor, commit_and_announce(pool, readiness, groups))
    }

    fn new(limits: Limits) -> (Self, Groups) {
        let (queue, requests) = mpsc::channel(limits.queue_requests_max);
        let acceptor = Self { queue, pending_keys: Arc::default(), used_bytes: Arc::default(), limits };
        (acceptor, Groups { requests, left: None, limits })
    }

    /// Stores the request, or finds the job that its key stands for. Returns after the commit.
    pub(crate) async fn accept(&self, acceptance: NewAcceptance) -> Result<Accepted, Error> {
        let room = self.room(&acceptance)?;
        let reservation = self.reserve(&acceptance)?;
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Request { acceptance, reply, reservation, room }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Full,
            mpsc::error::TrySendError::Closed(_) => Error::Closed,
        })?;
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(answer) => answer.unwrap_or(Err(Error::Closed)),
            Err(_) => Err(Error::TooSlow),
        }
    }

    /// Stores all requests in one transaction, or none: nothing where one has the key of an earlier, other request,
    /// which its outcome says. Returns after the commit.
    pub(crate) async fn accept_all(&self, pool: &Pool, batch: Vec<NewAcceptance>) -> Result<Vec<Accepted>, Error> {
        let _room = batch.iter().map(|request| self.room(request)).collect::<Result<Vec<_>, _>>()?;
        // Repeated keys within the batch are the store's to tell apart.
        let mut keys = HashSet::new();
        let first =
            |request: &&NewAcceptance| request.idempotency.as_ref().is_none_or(|own| keys.insert(own.key.clone()));
        let _reserved =
            batch.iter().filter(first).map(|request| self.reserve(request)).collect::<Result<Vec<_>, _>>()?;
        let storing = async {
            let mut tx = pool.begin().await?;
            let outcomes = accept_batch_in(&mut tx, &batch).await?;
            let differs = |outcome: &Accepted| matches!(outcome, Accepted::Replayed { same_fingerprint: false, .. });
            if !outcomes.iter().any(differs) {
                tx.commit().await?;
            }
            Ok(outcomes)
        };
        let outcome = tokio::time::timeout(COMMIT_TIMEOUT, storing).await.map_err(|_| Error::TooSlow)?;
        outcome.map_err(|error: store::Error| Arc::new(error).into())
    }

    /// Room for a request, unless the budget is spent.
    fn room(&self, acceptance: &NewAcceptance) -> Result<Room, Error> {
        let records: usize = acceptance.records.iter().map(Record::size_bytes).sum();
        let webhook = acceptance.webhook.as_ref().map_or(0, JobWebhook::size_bytes);
        let bytes = REQUEST_BYTES + acceptance.acceptance.input.len() + records + webhook;
        let bytes_max = self.limits.queue_bytes_max;
        let more = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        match self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Room { used_bytes: Arc::clone(&self.used_bytes), bytes }),
            Err(_) => Err(Error::Full),
        }
    }

    /// True while a request with this key is being stored.
    pub(crate) fn is_pending(&self, tenant: &str, scope: &str, key: &str) -> bool {
        self.pending_keys.lock().contains(&(tenant.to_owned(), scope.to_owned(), key.to_owned()))
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

/// Counts a job that was accepted.
pub(crate) fn count(flow: &str) {
    metrics::counter!("meanwhile_jobs_accepted_total", "flow" => flow.to_owned()).increment(1);
}

/// Commits groups, and beside that tells a relay that polls of them. No caller waits for that.
async fn commit_and_announce(pool: Pool, readiness: Readiness, groups: Groups) {
    let committed = Notify::new();
    let announcing = async {
        loop {
            committed.notified().await;
            if outbox::announce(&pool).await {
                tokio::time::sleep(ANNOUNCE_PAUSE).await;
            }
        }
    };
    tokio::select! {
        () = commit_groups(&pool, readiness, groups, &committed) => {}
        () = announcing => {}
    }
}

async fn commit_groups(pool: &Pool, readiness: Readiness, mut groups: Groups, committed: &Notify) {
    loop {
        let group = groups.next().await;
        if group.is_empty() {
            return;
        }
        metrics::histogram!("meanwhile_accept_batch_size").record(group.len() as f64);
        let (batch, callers): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|request| (request.acceptance, (request.reply, request.reservation, request.room)))
            .unzip();
        let outcomes = commit_one_group(pool, &readiness, &batch).await;
        committed.notify_one();
        drop(batch);
        for ((reply, reservation, room), outcome) in callers.into_iter().zip(outcomes) {
            drop((reservation, room));
            // The caller may be gone; its job is stored all the same.
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
            if !error.is_row_error() {
                readiness.missing("postgres", &error);
            }
            let error = Arc::new(error);
            batch.iter().map(|_| Err(Arc::clone(&error).into())).collect()
        }
    }
}

/// Accepts requests one by one, so that a bad row fails only its own request.
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
            Err(error) => Err(Arc::new(error).into()),
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

#[cfg(test)]
mod tests;
