//! How many jobs of a flow are not over. Nothing is asked for it while requests wait: the count is read once, from the
//! projection, and the events go on from there.
//!
//! Jobs of this process count from before they are stored. Those of others count once their acceptance is read, so for
//! that moment there may be more jobs than the limit, by what the other processes have accepted in it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bus::{Inbound, Reader, Unreadable};
use events::{decode_event, header};
use flow::event::EventKind;
use flow::id::JobId;
use parking_lot::Mutex;
use service_kit::error_chain;
use store::Pool;
use store::acceptances::Accepted;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accept;
use crate::limits::{Breadth, FlowLimits, Of};

const OPEN: &str = "meanwhile_jobs_open";
/// Events that wait to be counted, at most: some 30 MiB. Beyond it the count begins anew.
const NEWS_MAX: usize = 50_000;
/// Jobs that are read at once for the first count.
const PAGE_JOBS: u32 = 10_000;
/// The pause before another look at Postgres or the registry.
const PAUSE: Duration = Duration::from_secs(1);
/// A job of unknown outcome, of which no event has told by then, was not stored.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// A tenant and a flow.
type Name = (String, String);

/// An acceptance or an end, encoded.
struct News {
    partition: i32,
    offset: i64,
    value: Box<[u8]>,
}

/// A job of this process whose acceptance was not read back yet.
struct Admitted {
    at: Instant,
    /// False while nobody knows whether it was stored.
    is_stored: bool,
}

/// The jobs of one tenant and flow that are not over.
#[derive(Default)]
struct Count {
    /// As the events tell.
    told: u64,
    admitted: HashMap<JobId, Admitted>,
}

impl Count {
    fn all(&self) -> u64 {
        self.told + self.admitted.len() as u64
    }
}

#[derive(Default)]
struct State {
    counts: HashMap<Name, Count>,
    /// For each partition the offset below which events do not come here: a count that is read has to have them.
    floors: HashMap<i32, i64>,
    /// For each partition the offset behind the last event that came.
    next: HashMap<i32, i64>,
    /// True if an event found no room: the count is wrong.
    has_lost: bool,
}

pub(crate) struct OpenJobs {
    limits: FlowLimits,
    state: Mutex<State>,
    news: mpsc::Sender<News>,
    /// Taken by whoever counts.
    to_count: Mutex<Option<mpsc::Receiver<News>>>,
}

impl OpenJobs {
    pub(crate) fn new(limits: FlowLimits) -> Self {
        let (news, to_count) = mpsc::channel(NEWS_MAX);
        Self { limits, state: Mutex::default(), news, to_count: Mutex::new(Some(to_count)) }
    }

    /// Says where the tail has begun.
    pub(crate) fn begun_at(&self, starts: impl Iterator<Item = (i32, i64)>) {
        self.state.lock().floors.extend(starts);
    }

    /// Takes in a record of the events; most are none of its business.
    pub(crate) fn saw(&self, record: &Inbound) {
        if !self.limits.counts_jobs() || !self.counts(record) {
            return;
        }
        let Inbound { partition, offset, .. } = *record;
        if !self.state.lock().is_next(partition, offset) {
            return;
        }
        let value = record.value.as_deref().unwrap_or_default().into();
        if let Err(mpsc::error::TrySendError::Full(lost)) = self.news.try_send(News { partition, offset, value }) {
            let mut state = self.state.lock();
            state.has_lost = true;
            state.lose(&lost);
        }
    }

    fn counts(&self, record: &Inbound) -> bool {
        let kind = record.header_text(header::CE_TYPE).and_then(EventKind::parse);
        let is_news = kind.is_some_and(|kind| kind == EventKind::JobAccepted || kind.ends_job());
        let flow = record.header_text(header::CE_SOURCE).and_then(|source| source.rsplit('/').next());
        is_news && flow.is_some_and(|flow| self.limits.counts_jobs_of(flow))
    }

    /// The jobs that are not over, as far as is known here: of the flow, or of all flows of the tenant.
    pub(crate) fn count(&self, of: Of<'_>, breadth: Breadth) -> u64 {
        self.state.lock().count(of, breadth)
    }

    /// A place for each of these jobs, as far as both bounds leave them: that of the flow, and that of all flows of the
    /// tenant.
    ///
    /// # Errors
    /// The bound that leaves too few.
    pub(crate) fn admit(
        self: &Arc<Self>,
        of: Of<'_>,
        jobs: &[JobId],
        bounds: [Option<u64>; 2],
    ) -> Result<Admission, Breadth> {
        let (name, now) = ((of.0.to_owned(), of.1.to_owned()), Instant::now());
        let mut state = self.state.lock();
        let exceeded = |state: &State| {
            let bounds = [Breadth::Flow, Breadth::Together].into_iter().zip(bounds);
            let over = |max: u64, breadth| state.count(of, breadth) + jobs.len() as u64 > max;
            bounds.into_iter().find(|(breadth, max)| max.is_some_and(|max| over(max, *breadth)))
        };
        if exceeded(&state).is_some() {
            let of_tenant = state.counts.iter_mut().filter(|(name, _)| name.0 == of.0);
            of_tenant.for_each(|(_, count)| {
                count.admitted.retain(|_, one| one.is_stored || now.duration_since(one.at) < UNKNOWN_FOR);
            });
        }
        if let Some((breadth, _)) = exceeded(&state) {
            return Err(breadth);
        }
        let admitted = jobs.iter().map(|job| (*job, Admitted { at: now, is_stored: false }));
        state.counts.entry(name.clone()).or_default().admitted.extend(admitted);
        Ok(Admission { open_jobs: Arc::clone(self), name, open: jobs.iter().copied().collect() })
    }

    fn apply(&self, one: &News, next_offsets: &HashMap<i32, i64>, (name, job, kind): (Name, JobId, &EventKind)) {
        let flow = name.1.clone();
        let mut state = self.state.lock();
        let count = state.counts.entry(name).or_default();
        count.admitted.remove(&job);
        if one.offset < next_offsets.get(&one.partition).copied().unwrap_or(0) {
            return;
        }
        if kind.ends_job() {
            count.told = count.told.saturating_sub(1);
            metrics::gauge!(OPEN, "flow" => flow).decrement(1.0);
        } else {
            count.told += 1;
            metrics::gauge!(OPEN, "flow" => flow).increment(1.0);
        }
    }

    /// Begins with what was read.
    fn begin(&self, found: &HashMap<Name, u64>) {
        let mut state = self.state.lock();
        state.counts.values_mut().for_each(|count| count.told = 0);
        let mut by_flow: HashMap<&str, f64> = HashMap::new();
        for (name, jobs) in found.iter().filter(|(name, _)| self.limits.counts_jobs_of(&name.1)) {
            state.counts.entry(name.clone()).or_default().told = *jobs;
            *by_flow.entry(&name.1).or_default() += *jobs as f64;
        }
        for (flow, jobs) in by_flow {
            metrics::gauge!(OPEN, "flow" => flow.to_owned()).set(jobs);
        }
    }

    /// Forgets what was counted, and what waits to be. Jobs of this process go with it: it is not known any more
    /// whether their acceptances were read.
    fn give_up(&self, news: &mut mpsc::Receiver<News>) {
        self.state.lock().has_lost = false;
        while let Ok(one) = news.try_recv() {
            self.state.lock().lose(&one);
        }
        self.state.lock().counts.clear();
    }

    /// True if a count with these offsets has all that does not come here.
    fn covers(&self, next_offsets: &HashMap<i32, i64>) -> bool {
        let state = self.state.lock();
        state.floors.iter().all(|(partition, floor)| next_offsets.get(partition).copied().unwrap_or(0) >= *floor)
    }
}

impl State {
    fn count(&self, (tenant, flow): Of<'_>, breadth: Breadth) -> u64 {
        match breadth {
            Breadth::Flow => self.counts.get(&(tenant.to_owned(), flow.to_owned())).map_or(0, Count::all),
            Breadth::Together => {
                let of_tenant = self.counts.iter().filter(|(name, _)| name.0 == tenant);
                of_tenant.map(|(_, count)| count.all()).sum()
            }
        }
    }

    /// False for an event that comes again: the look back at a start overlaps with the tail.
    fn is_next(&mut self, partition: i32, offset: i64) -> bool {
        let next = self.next.entry(partition).or_default();
        let is_next = offset >= *next;
        *next = (*next).max(offset + 1);
        is_next
    }

    fn lose(&mut self, one: &News) {
        let floor = self.floors.entry(one.partition).or_default();
        *floor = (*floor).max(one.offset + 1);
    }
}

/// Counts until shutdown, where there is something to count.
pub(crate) async fn keep(
    open_jobs: &OpenJobs,
    (pool, reader): (&Pool, &Reader),
    topic: &str,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    if open_jobs.limits.counts_jobs() {
        shutdown.run_until_cancelled(count(open_jobs, (pool, reader), topic)).await;
    }
    shutdown.cancelled().await;
    Ok(())
}

async fn count(open_jobs: &OpenJobs, (pool, reader): (&Pool, &Reader), topic: &str) {
    let Some(mut news) = open_jobs.to_count.lock().take() else { return };
    loop {
        let next_offsets = begin(open_jobs, pool, topic).await;
        while !open_jobs.state.lock().has_lost {
            let Some(one) = news.recv().await else { return };
            if let Some(event) = read(reader, &one).await {
                let name = (event.tenant.clone(), event.flow.clone());
                open_jobs.apply(&one, &next_offsets, (name, event.job, &event.kind));
            }
        }
        tracing::warn!("events came faster than open jobs could be counted; counting begins anew");
        open_jobs.give_up(&mut news);
    }
}

/// Reads the count, once it has all that does not come here. Returns the offsets that it goes up to.
async fn begin(open_jobs: &OpenJobs, pool: &Pool, topic: &str) -> HashMap<i32, i64> {
    loop {
        let looked = store::offsets::projected(pool, topic).await;
        let reading = match looked.map(|offsets| open_jobs.covers(&offsets.into_iter().collect())) {
            Ok(false) => Ok(None),
            Ok(true) => store::open_jobs::count(pool, topic, PAGE_JOBS).await.map(Some),
            Err(error) => Err(error),
        };
        match reading {
            Ok(Some(found)) if open_jobs.covers(&found.next_offsets) => {
                open_jobs.begin(&found.counts);
                return found.next_offsets;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(error = error_chain(&error), "open jobs cannot be counted"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// None where it cannot be read: the orchestrator keeps it as a dead letter.
async fn read(reader: &Reader, one: &News) -> Option<flow::event::JobEvent> {
    loop {
        match reader.read(Some(&*one.value), decode_event).await {
            Ok(event) => return Some(event),
            Err(Unreadable::Never(_) | Unreadable::Newer(_)) => return None,
            Err(Unreadable::NotNow(error)) => {
                tracing::debug!(error = error_chain(&error), "open jobs cannot be counted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Places of jobs among those that are not over. They are given back when this is dropped, but for those of jobs that
/// were stored, or may have been.
pub(crate) struct Admission {
    open_jobs: Arc<OpenJobs>,
    name: Name,
    /// Those whose outcome has not been told.
    open: HashSet<JobId>,
}

impl Admission {
    /// Where there is no limit.
    pub(crate) fn unlimited(open_jobs: &Arc<OpenJobs>) -> Self {
        Self { open_jobs: Arc::clone(open_jobs), name: Name::default(), open: HashSet::new() }
    }

    /// Learns what has become of a job.
    pub(crate) fn learn(&mut self, job: JobId, outcome: Result<&Accepted, &accept::Error>) {
        let is_stored = match outcome {
            Ok(Accepted::New) => true,
            Err(accept::Error::Unavailable(_) | accept::Error::TooSlow) => false,
            Ok(Accepted::Replayed { .. }) | Err(_) => return,
        };
        if !self.open.remove(&job) {
            return;
        }
        let mut state = self.open_jobs.state.lock();
        // It is not there any more if its acceptance was read meanwhile.
        if let Some(one) = state.counts.get_mut(&self.name).and_then(|count| count.admitted.get_mut(&job)) {
            one.is_stored = is_stored;
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.open.is_empty() {
            return;
        }
        if let Some(count) = self.open_jobs.state.lock().counts.get_mut(&self.name) {
            count.admitted.retain(|job, _| !self.open.contains(job));
        }
    }
}

#[cfg(test)]
mod tests;
