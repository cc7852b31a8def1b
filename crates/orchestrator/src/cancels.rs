//! Cancels meet the holds of their jobs, in the transaction that takes in the one that comes second: what rests on its
//! way forward is sent on, and says why. Once a job has ended, its cancel is closed, and its record taken back.

use std::sync::Arc;
use std::time::Duration;

use bus::{Reader, RegistryError, Unreadable};
use events::cancel::Cancel;
use events::topic::Topics;
use events::{cancel_tombstone, peek_slip, release};
use flow::decide::is_cancellable;
use flow::id::JobId;
use flow::slip::ReleasedBy;
use inbox::Error;
use store::cancels::{self, Resting};
use store::holds::NewHold;
use store::jobs::ObservedEvent;
use store::{Pool, Tx, outbox};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::trace::trace_of;

/// The pause after cancels came: transactions that were under way then are over.
const SOON: Duration = Duration::from_secs(5);

/// The changes that cancels made, to be counted once they are committed.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Met {
    /// Tokens that were sent on.
    released: u64,
    /// Cancels whose jobs have ended.
    ended: u64,
}

impl Met {
    /// Counts, after the commit.
    pub(crate) fn count(self) {
        metrics::counter!("meanwhile_holds_released_total").increment(self.released);
        metrics::counter!("meanwhile_cancels_ended_total").increment(self.ended);
    }
}

/// Notes the cancels, and sends on the tokens that they end: those that rest already, and those of these holds. Closes
/// the cancels of jobs that have ended.
pub(crate) async fn meet(
    tx: &mut Tx,
    (topics, reader): (&Topics, &Reader),
    (holds, events): (&[NewHold], &[ObservedEvent]),
    wanted: &[Cancel],
) -> Result<Met, Error> {
    cancels::insert(tx, wanted).await?;
    let wanted = || wanted.iter().map(|cancel| cancel.job);
    let jobs = each_once(holds.iter().map(|hold| hold.token.job).chain(wanted()));
    let resting = cancels::resting(tx, &jobs).await?;
    let mut taken = Vec::with_capacity(resting.len());
    for one in resting {
        if ends_by_cancel(reader, &one).await? {
            taken.push(one);
        }
    }
    cancels::take(tx, &taken.iter().map(|one| &one.token).collect::<Vec<_>>()).await?;
    let records: Vec<_> = taken
        .into_iter()
        .map(|Resting { mut record, .. }| {
            release::mark(&mut record, ReleasedBy::Cancel, None);
            record
        })
        .collect();
    outbox::append(tx, &records).await?;
    let over = events.iter().filter(|observed| observed.event.status.is_final()).map(|observed| observed.event.job);
    let ended = take_back(tx, topics, &each_once(over.chain(wanted()))).await?;
    Ok(Met { released: u64::try_from(records.len()).unwrap_or(u64::MAX), ended })
}

/// Cancels that are noted in the moment in which their jobs end.
pub(crate) struct Late {
    pub(crate) pool: Pool,
    pub(crate) topics: Topics,
    /// Woken when cancels were noted.
    pub(crate) cancel_came: Arc<Notify>,
}

impl Late {
    pub(crate) fn new(pool: &Pool, topics: &Topics) -> Self {
        Self { pool: pool.clone(), topics: topics.clone(), cancel_came: Arc::default() }
    }
}

/// Closes late cancels, soon after some were noted. Events and cancels are taken in by transactions of their own, each
/// of which may end before it sees the other.
pub(crate) async fn close_late(late: &Late, shutdown: &CancellationToken) {
    let Late { pool, topics, cancel_came } = late;
    let close = async {
        loop {
            cancel_came.notified().await;
            tokio::time::sleep(SOON).await;
            if let Err(error) = sweep(pool, topics).await {
                tracing::debug!(%error, "late cancels are not closed; trying again");
                cancel_came.notify_one();
            }
        }
    };
    let _: Option<std::convert::Infallible> = shutdown.run_until_cancelled(close).await;
}

/// Closes the open cancels of all jobs that have ended: a job may have ended before its cancel was noted, by another
/// process.
pub(crate) async fn sweep(pool: &Pool, topics: &Topics) -> Result<(), store::Error> {
    let mut after = None;
    loop {
        let jobs = cancels::open_after(pool, after).await?;
        let Some(last) = jobs.last() else { return Ok(()) };
        after = Some(*last);
        let mut tx = pool.begin().await?;
        let ended = take_back(&mut tx, topics, &jobs).await?;
        tx.commit().await?;
        Met { ended, ..Met::default() }.count();
    }
}

/// A slip that cannot be read by this version is left to rest.
async fn ends_by_cancel(reader: &Reader, resting: &Resting) -> Result<bool, RegistryError> {
    match reader.read(resting.record.value.as_deref(), peek_slip).await {
        Ok(slip) => Ok(is_cancellable(&slip)),
        Err(Unreadable::Never(_) | Unreadable::Newer(_)) => Ok(false),
        Err(Unreadable::NotNow(error)) => Err(error),
    }
}

async fn take_back(tx: &mut Tx, topics: &Topics, jobs: &[JobId]) -> Result<u64, store::Error> {
    let ended = cancels::end(tx, jobs).await?;
    let tombstones: Vec<_> = ended.iter().map(|job| cancel_tombstone(topics, *job, &trace_of(*job))).collect();
    outbox::append(tx, &tombstones).await?;
    Ok(u64::try_from(ended.len()).unwrap_or(u64::MAX))
}

fn each_once(jobs: impl Iterator<Item = JobId>) -> Vec<JobId> {
    let mut jobs: Vec<JobId> = jobs.collect();
    jobs.sort_unstable();
    jobs.dedup();
    jobs
}
