//! What steps under way tell of themselves, as `meanwhile.progress` has it: a status shows it beside the events.
//!
//! Invariant: nothing waits for this, and nothing is decided by it. What cannot be read, or finds no room, is missing
//! in a status, and no more.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bus::{Inbound, Reader, Table, Tail};
use events::decode_progress;
use events::progress::{PERCENT, Progress, STARTED, short_message};
use events::time::rfc3339;
use flow::id::JobId;
use flow::slip::Phase;
use flow::view::{Begun, Report};
use parking_lot::Mutex;
use serde_json::json;
use service_kit::identity::Ids;
use service_kit::retry::Backoff;
use tokio_util::sync::CancellationToken;

use crate::recent::RecentJobs;
use crate::streams::Streams;

/// Jobs of which reports are kept. With the bounds below they take 20 MiB at most.
const JOBS_MAX: usize = 10_000;
/// Steps of one job of which reports are kept: the latest.
const STEPS_MAX: usize = 4;
/// The longest name of a step that is kept.
const STEP_BYTES_MAX: usize = 100;
/// Kafka may delay a fetch by this time.
const TAIL_FETCH_WAIT_MAX: Duration = Duration::from_millis(50);
/// At its start the process reads this many offsets back in each partition, so that a status after a restart knows what
/// the one before had shown.
const LOOK_BACK_OFFSETS: i64 = 2_000;

/// Those who are told of reports.
type Told<'a> = (&'a RecentJobs, &'a Streams);

/// The reports of jobs that have not ended, bounded in number. The jobs that were heard of first are forgotten first.
pub(crate) struct Reports {
    jobs_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_job: HashMap<JobId, OfJob>,
    /// With jobs that have been forgotten meanwhile.
    order: VecDeque<JobId>,
}

/// What is known of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OfJob {
    /// The offset of the last record that changed it. A job's records lie in one partition, so it only rises, and is
    /// the same for every process.
    pub(crate) offset: i64,
    /// The latest step comes last.
    pub(crate) reports: Vec<Report>,
}

impl Default for Reports {
    fn default() -> Self {
        Self::new(JOBS_MAX)
    }
}

impl Reports {
    fn new(jobs_max: usize) -> Self {
        Self { jobs_max, kept: Mutex::default() }
    }

    /// All that is known of a job.
    pub(crate) fn of(&self, job: JobId) -> Option<OfJob> {
        self.kept.lock().by_job.get(&job).cloned()
    }

    /// The job has ended.
    pub(crate) fn forget(&self, job: JobId) {
        self.kept.lock().by_job.remove(&job);
    }

    /// Reads records, notes what they say, and wakes those who wait for a change of their jobs.
    pub(crate) async fn learn(&self, reader: &Reader, (recent, streams): Told<'_>, records: &[Inbound]) {
        for record in records {
            match reader.read(record.value.as_deref(), decode_progress).await {
                Ok(progress) => {
                    let job = progress.job;
                    let text = || text(&progress);
                    if self.note(record.offset, progress.clone()) {
                        streams.reported(job, text);
                        recent.changed(job);
                    }
                }
                Err(error) => tracing::debug!(offset = record.offset, %error, "unreadable progress skipped"),
            }
        }
    }

    /// Returns whether the record says anything new.
    fn note(&self, offset: i64, progress: Progress) -> bool {
        let job = progress.job;
        let Some(report) = report_of(progress) else { return false };
        let mut kept = self.kept.lock();
        let kept = &mut *kept;
        let known = kept.by_job.entry(job).or_insert_with(|| {
            kept.order.push_back(job);
            OfJob { offset: -1, reports: Vec::new() }
        });
        if offset <= known.offset {
            return false;
        }
        let is_news = match known.reports.iter_mut().find(|known| known.step == report.step) {
            Some(known) => known.merge(report),
            None => {
                if known.reports.len() == STEPS_MAX {
                    known.reports.remove(0);
                }
                known.reports.push(report);
                true
            }
        };
        if is_news {
            known.offset = offset;
        }
        while kept.by_job.len() > self.jobs_max || kept.order.len() > 2 * self.jobs_max {
            let Some(oldest) = kept.order.pop_front() else { break };
            kept.by_job.remove(&oldest);
        }
        is_news
    }
}

/// A report as streams of its job have it.
fn text(progress: &Progress) -> String {
    let Progress { step, visit, attempt, percent, message, at_ms, .. } = progress;
    let mut body = json!({ "type": "progress", "at": rfc3339(*at_ms), "step": step, "visit": visit });
    if progress.kind == STARTED {
        body["attempt"] = (*attempt).into();
    }
    if let Some(percent) = percent {
        body["percent"] = (*percent).min(100).into();
    }
    if let Some(message) = message.as_deref().and_then(short_message) {
        body["message"] = message.into();
    }
    body.to_string()
}

/// What a record says of a step on its way forward; none where it says nothing that is shown.
fn report_of(progress: Progress) -> Option<Report> {
    let Progress { kind, step, phase, branch, hop, visit, attempt, percent, message, at_ms, .. } = progress;
    let step = step.filter(|step| phase == Phase::Forward && step.len() <= STEP_BYTES_MAX && branch.is_empty())?;
    let nothing = Report { step, visit, branch, begun: None, percent: None, message: None };
    match kind.as_str() {
        STARTED => Some(Report { begun: Some(Begun { hop, attempt, at_ms }), ..nothing }),
        PERCENT => {
            let (percent, message) = (percent.map(|percent| percent.min(100)), message.as_deref());
            Some(Report { percent, message: message.and_then(short_message), ..nothing })
        }
        // A kind of a later version.
        _ => None,
    }
}

/// Follows the topic until shutdown.
///
/// # Errors
/// None; the shape is that of [`service_kit::tasks::Tasks::spawn`].
pub(crate) async fn follow(
    (reports, recent, streams): (&Reports, &RecentJobs, &Streams),
    (reader, ids): (&Reader, &Ids),
    (bus, topic): (&bus::Settings, &str),
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let mut backoff = Backoff::default();
    loop {
        let begin = async {
            let tail = Tail::start(bus, topic, TAIL_FETCH_WAIT_MAX).await?;
            let (records, _) = Table::load_recent(bus, topic, LOOK_BACK_OFFSETS).await?;
            Ok::<_, bus::Error>((records, tail))
        };
        let following = async {
            match begin.await {
                Ok((records, mut tail)) => {
                    backoff.reset();
                    reports.learn(reader, (recent, streams), &records).await;
                    while let Some(records) = tail.next().await {
                        reports.learn(reader, (recent, streams), &records).await;
                    }
                }
                Err(error) => tracing::debug!(%error, "progress cannot be read; retrying"),
            }
        };
        if shutdown.run_until_cancelled(following).await.is_none() || !backoff.sleep(ids, shutdown).await {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(job: u128) -> JobId {
        JobId::new(uuid::Uuid::from_u128(job))
    }

    fn told(job: u128, kind: &str, percent: u8) -> Progress {
        Progress {
            job: id(job),
            tenant: "t".to_owned(),
            flow: "f".to_owned(),
            kind: kind.to_owned(),
            step: Some("one".to_owned()),
            phase: Phase::Forward,
            branch: String::new(),
            hop: 1,
            visit: 1,
            attempt: 1,
            percent: Some(percent),
            message: Some("a\nb".to_owned()),
            data: None,
            at_ms: 7,
        }
    }

    fn shown(reports: &Reports, job: u128) -> Option<(i64, Option<u8>)> {
        let of = reports.of(id(job))?;
        Some((of.offset, of.reports.last()?.percent))
    }

    #[test]
    fn the_latest_report_of_a_step_is_kept_with_its_offset_and_no_record_counts_twice() {
        let reports = Reports::default();
        reports.note(4, told(1, STARTED, 0));
        assert_eq!(shown(&reports, 1), Some((4, None)));
        reports.note(5, told(1, PERCENT, 30));
        reports.note(4, told(1, PERCENT, 90));
        assert_eq!(shown(&reports, 1), Some((5, Some(30))));
        // Nothing that is shown has changed.
        reports.note(6, told(1, PERCENT, 20));
        assert_eq!(shown(&reports, 1), Some((5, Some(30))));
        let report = &reports.of(id(1)).unwrap().reports[0];
        assert_eq!((report.message.as_deref(), report.begun.unwrap().at_ms), (Some("a b"), 7));
        reports.forget(id(1));
        assert_eq!(reports.of(id(1)), None);
    }

    #[test]
    fn unknown_kinds_ways_back_and_what_has_no_step_are_ignored() {
        let reports = Reports::default();
        let percent = || told(1, PERCENT, 30);
        for ignored in [
            told(1, "heartbeat", 30),
            told(1, "of-a-later-version", 30),
            Progress { phase: Phase::Undo, ..percent() },
            Progress { step: None, ..percent() },
            Progress { step: Some("x".repeat(STEP_BYTES_MAX + 1)), ..percent() },
        ] {
            reports.note(1, ignored);
        }
        assert_eq!(reports.of(id(1)), None);
    }

    #[test]
    fn neither_jobs_nor_steps_grow_without_bound() {
        let reports = Reports::new(10);
        for number in 0..100 {
            reports.note(1, told(number, PERCENT, 30));
            reports.forget(id(number + 1));
        }
        let kept = reports.kept.lock();
        assert_eq!((kept.by_job.len(), kept.order.len()), (10, 10));
        assert!(kept.by_job.contains_key(&id(99)) && !kept.by_job.contains_key(&id(89)));
        drop(kept);
        // Jobs that end leave room at once.
        for number in 0..100 {
            reports.note(1, told(number, PERCENT, 30));
            reports.forget(id(number));
        }
        assert!(reports.kept.lock().order.len() <= 20);
        for number in 0..10 {
            reports.note(10 + number, Progress { step: Some(number.to_string()), ..told(7, PERCENT, 30) });
        }
        let steps: Vec<String> = reports.of(id(7)).unwrap().reports.into_iter().map(|report| report.step).collect();
        assert_eq!(steps, ["6", "7", "8", "9"]);
    }
}
