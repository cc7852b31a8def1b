//! The cancels that were asked for, as `meanwhile.cancels` and this process have them: a status answered from memory
//! shows them too. The database has them all, a moment later.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bus::{Inbound, Reader, Table, TableTail, Unreadable};
use events::decode_cancel;
use flow::id::JobId;
use parking_lot::Mutex;
use service_kit::health::Readiness;
use service_kit::identity::Ids;
use service_kit::retry::until_ok;
use store::cancels::CancelWish;
use tokio_util::sync::CancellationToken;

use crate::recent::RecentJobs;

/// Cancels that are kept: those of the jobs that are in memory, and more.
const KEPT_MAX: usize = 100_000;
/// The pause before a cancel is read again that the registry kept from being read.
const RETRY: Duration = Duration::from_secs(1);

/// The first cancel of each job. It stays after the job's end.
pub(crate) struct Cancels {
    kept: Mutex<Kept>,
    /// Whoever waits for a change is woken here.
    recent: RecentJobs,
}

#[derive(Default)]
struct Kept {
    by_job: HashMap<JobId, CancelWish>,
    order: VecDeque<JobId>,
}

impl Cancels {
    pub(crate) fn new(recent: RecentJobs) -> Self {
        Self { kept: Mutex::default(), recent }
    }

    pub(crate) fn of(&self, job: JobId) -> Option<CancelWish> {
        self.kept.lock().by_job.get(&job).cloned()
    }

    /// Notes a cancel that is stored, unless there is an earlier one.
    pub(crate) fn note(&self, job: JobId, wish: CancelWish) {
        let mut kept = self.kept.lock();
        if kept.by_job.contains_key(&job) {
            return;
        }
        kept.by_job.insert(job, wish);
        kept.order.push_back(job);
        if kept.order.len() > KEPT_MAX
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.by_job.remove(&oldest);
        }
        drop(kept);
        self.recent.changed(job);
    }

    pub(crate) async fn learn(&self, reader: &Reader, records: &[Inbound]) {
        for record in records.iter().filter(|record| record.value.is_some()) {
            let read = loop {
                match reader.read(record.value.as_deref(), decode_cancel).await {
                    Err(Unreadable::NotNow(_)) => tokio::time::sleep(RETRY).await,
                    read => break read,
                }
            };
            match read {
                Ok(cancel) => {
                    let (requested_by, reason, at_ms) = (cancel.requested_by, cancel.reason, cancel.at_ms);
                    self.note(cancel.job, CancelWish { requested_by, reason, at_ms });
                }
                // The orchestrator keeps it as a dead letter.
                Err(error) => tracing::debug!(offset = record.offset, %error, "unreadable cancel skipped"),
            }
        }
    }
}

/// Reads the topic to its present end. None at shutdown.
pub(crate) async fn load(
    cancels: &Cancels,
    (readiness, ids, reader): (&Readiness, &Ids, &Reader),
    (bus, topic): (&bus::Settings, &str),
    shutdown: &CancellationToken,
) -> Option<TableTail> {
    let load = || Table::load(bus, topic);
    let (records, tail) = until_ok("kafka", readiness, ids, shutdown, load).await?;
    shutdown.run_until_cancelled(cancels.learn(reader, &records)).await?;
    Some(tail)
}

/// Follows the topic until shutdown.
pub(crate) async fn follow(
    cancels: &Cancels,
    tools: (&Readiness, &Ids, &Reader),
    bus: &bus::Settings,
    mut tail: TableTail,
    shutdown: &CancellationToken,
) {
    let topic = tail.topic().to_owned();
    loop {
        while let Some(records) = tail.next().await {
            cancels.learn(tools.2, &records).await;
        }
        match load(cancels, tools, (bus, &topic), shutdown).await {
            Some(again) => tail = again,
            None => return,
        }
    }
}
