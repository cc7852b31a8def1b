//! What the events say, as it comes: who has ended and when, and whose call was told to take long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::Tail;
use events::header;
use flow::id::JobId;
use parking_lot::{Mutex, MutexGuard};
use test_kit::{TestSystem, eventually};
use tokio::task::JoinHandle;

use crate::stage::PATIENCE;

/// The consumer asks again after so long without records; it is answered at once when there are some.
const FETCH_WAIT_MAX: Duration = Duration::from_millis(100);
/// Without an end for so long, jobs stand still: no machine is so slow.
const STANDSTILL: Duration = Duration::from_secs(45);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Follows the events of a system until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What came so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When the final event of each job came, and what it was.
    pub(crate) ends: BTreeMap<JobId, (Instant, String)>,
    /// Jobs with an event `step.running`.
    pub(crate) running: BTreeSet<JobId>,
}

impl Seen {
    fn ends_besides(&self, besides: &[JobId]) -> usize {
        self.ends.len() - besides.iter().filter(|job| self.ends.contains_key(job)).count()
    }
}

impl Watch {
    pub(crate) async fn start(system: &TestSystem) -> Self {
        let mut tail = Tail::start(&system.settings(), &system.topics().events(), FETCH_WAIT_MAX).await.unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let told = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Some(records) = tail.next().await {
                let now = Instant::now();
                let mut seen = told.lock();
                for record in records {
                    let kind = record.header_text(header::CE_TYPE).unwrap_or_default().to_owned();
                    let job: JobId = record.header_text(header::JOB_ID).unwrap().parse().unwrap();
                    match kind.as_str() {
                        "step.running" => drop(seen.running.insert(job)),
                        "job.succeeded" | "job.failed" => drop(seen.ends.insert(job, (now, kind))),
                        _ => {}
                    }
                }
            }
        });
        Self { seen, task }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }

    /// How many jobs have ended besides these.
    pub(crate) fn ended(&self, besides: &[JobId]) -> usize {
        self.seen().ends_besides(besides)
    }

    /// Waits until so many jobs have ended besides these, for as long as some end.
    pub(crate) async fn until_ended(&self, jobs: usize, besides: &[JobId]) {
        let (mut ended, mut at) = (0, Instant::now());
        while ended < jobs {
            let now = self.ended(besides);
            if now > ended {
                (ended, at) = (now, Instant::now());
            }
            assert!(at.elapsed() < STANDSTILL, "{ended} of {jobs} jobs have ended, and none for {STANDSTILL:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until each of these jobs has ended.
    pub(crate) async fn until_all_ended<'a>(&self, jobs: impl IntoIterator<Item = &'a JobId>) {
        let mut missing: Vec<&JobId> = jobs.into_iter().collect();
        let what = format!("{} jobs have ended", missing.len());
        eventually(PATIENCE, &what, async || {
            let seen = self.seen();
            missing.retain(|job| !seen.ends.contains_key(job));
            missing.is_empty().then_some(())
        })
        .await;
    }

    /// Waits until each of these calls was told to take long.
    pub(crate) async fn until_running(&self, jobs: &[JobId]) {
        let look = async || jobs.iter().all(|job| self.seen().running.contains(job)).then_some(());
        eventually(PATIENCE, &format!("{} calls are known to take long", jobs.len()), look).await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
