//! Streams of events: of one job, or of all jobs of a tenant; as server-sent events, over a WebSocket, or page by page.
//!
//! The tail of the events fills them, never a look at the database: it is read for the past of a job only, before the
//! stream goes on with what the tail sees. All forms have one cursor, which is the same for every instance.
//!
//! Promise: a caller that comes back with the cursor that it had last misses no event and sees none twice. No stream
//! is buffered without bound: one that does not keep up is dropped, and told why.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flow::id::JobId;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use web::problem::{Kind, Problem};

mod cursor;
mod feed;
mod item;
mod job;
mod log;
mod mailbox;
mod page;
mod record;
mod routes;
mod socket;
mod sse;
mod tenant;

pub(crate) use routes::{of_all, of_job};

use self::cursor::Cursor;
use self::log::{Log, Overrun};
use self::mailbox::Mailbox;
pub(crate) use self::record::Seen;
use crate::config::Config;

/// Streams that read the past of their jobs at once: a job's past may be large.
const HISTORIES_MAX: usize = 8;
/// Streams that read the past of all jobs from Kafka at once: each has a consumer of its own.
const PASTS_MAX: usize = 4;
/// What a client that finds no room is told to wait, in seconds.
const RETRY_AFTER_S: u64 = 5;

/// All streams of this process.
pub(crate) struct Streams {
    streams_max: usize,
    stream_bytes_max: usize,
    streams_bytes_max: usize,
    log_bytes_max: usize,
    hub: Mutex<Hub>,
    /// The bytes that wait in all mailboxes.
    waiting_bytes: Arc<AtomicUsize>,
    /// The end of the log, told once for each batch of the tail.
    log_end: watch::Sender<u64>,
    /// Told when a stream ends.
    left: Notify,
    histories: Semaphore,
    pasts: Arc<Semaphore>,
}

#[derive(Default)]
struct Hub {
    open: usize,
    by_job: HashMap<JobId, Vec<Arc<Mailbox>>>,
    log: Log,
}

impl Streams {
    pub(crate) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            streams_max: config.streams_max,
            stream_bytes_max: config.stream_bytes_max,
            streams_bytes_max: config.streams_bytes_max,
            log_bytes_max: config.stream_log_bytes_max,
            hub: Mutex::default(),
            waiting_bytes: Arc::default(),
            log_end: watch::Sender::new(0),
            left: Notify::new(),
            histories: Semaphore::new(HISTORIES_MAX),
            pasts: Arc::new(Semaphore::new(PASTS_MAX)),
        })
    }

    /// Takes in one event from the tail.
    pub(crate) fn saw(&self, seen: Option<Seen>) {
        let Some(seen) = seen.map(Arc::new) else { return };
        let mut hub = self.hub.lock();
        if !hub.log.push(&seen, self.log_bytes_max) {
            return;
        }
        let Some(mailboxes) = hub.by_job.get(&seen.job) else { return };
        let is_slow = |mailbox: &&Arc<Mailbox>| !mailbox.push(Arc::clone(&seen), self.stream_bytes_max);
        let slow: Vec<Arc<Mailbox>> = mailboxes.iter().filter(is_slow).cloned().collect();
        for mailbox in slow {
            hub.drop_slow(seen.job, &mailbox, "slow");
        }
        while self.waiting_bytes.load(Ordering::Relaxed) > self.streams_bytes_max {
            let all = hub.by_job.iter().flat_map(|(job, mailboxes)| mailboxes.iter().map(|mailbox| (*job, mailbox)));
            let Some((job, largest)) = all.max_by_key(|(_, mailbox)| mailbox.bytes()) else { break };
            let largest = Arc::clone(largest);
            hub.drop_slow(job, &largest, "no-room");
        }
        drop(hub);
    }

    /// Wakes the streams of all jobs, once the events of a batch were seen.
    pub(crate) fn saw_all(&self) {
        let end = self.hub.lock().log.end();
        self.log_end.send_if_modified(|told| std::mem::replace(told, end) != end);
    }

    /// Says where the tail has begun: events below these offsets are not known here.
    pub(crate) fn begun_at(&self, starts: impl IntoIterator<Item = (i32, i64)>) {
        let mut hub = self.hub.lock();
        starts.into_iter().for_each(|(partition, start)| hub.log.begun_at(partition, start));
    }

    /// Tells the streams of a job of a report of progress; `text` makes its JSON where there are any.
    pub(crate) fn reported(&self, job: JobId, text: impl FnOnce() -> String) {
        let hub = self.hub.lock();
        let Some(mailboxes) = hub.by_job.get(&job) else { return };
        let text: Arc<str> = text().into();
        mailboxes.iter().for_each(|mailbox| mailbox.push_progress(&text));
    }

    /// A place for one more stream of a job. What the tail sees from now on comes into its mailbox.
    fn enter_job(self: &Arc<Self>, job: JobId) -> Result<(Place, Arc<Mailbox>), Problem> {
        let mut hub = self.room()?;
        let mailbox = Arc::new(Mailbox::new(Arc::clone(&self.waiting_bytes)));
        hub.by_job.entry(job).or_default().push(Arc::clone(&mailbox));
        Ok((Place { streams: Arc::clone(self), mailbox: Some((job, Arc::clone(&mailbox))) }, mailbox))
    }

    /// A place for one more stream of all jobs.
    fn enter(self: &Arc<Self>) -> Result<Place, Problem> {
        drop(self.room()?);
        Ok(Place { streams: Arc::clone(self), mailbox: None })
    }

    /// The place is taken when this returns.
    fn room(&self) -> Result<parking_lot::MutexGuard<'_, Hub>, Problem> {
        let mut hub = self.hub.lock();
        if hub.open >= self.streams_max || self.waiting_bytes.load(Ordering::Relaxed) >= self.streams_bytes_max {
            drop(hub);
            return Err(too_many("Too many streams are open on this instance, or too much waits in them."));
        }
        hub.open += 1;
        metrics::gauge!("meanwhile_streams").increment(1.0);
        Ok(hub)
    }

    /// Returns once no stream is open.
    pub(crate) async fn until_all_left(&self) {
        loop {
            let left = self.left.notified();
            if self.hub.lock().open == 0 {
                return;
            }
            left.await;
        }
    }

    /// Behind all that the tail has seen.
    fn position(&self) -> Cursor {
        self.hub.lock().log.position().clone()
    }

    /// The place in the log from which on a stream goes on behind this cursor, if all is there.
    fn place_of(&self, cursor: &Cursor) -> Option<u64> {
        self.hub.lock().log.place_of(cursor)
    }

    fn read(&self, place: &mut u64) -> Result<Vec<Arc<Seen>>, Overrun> {
        self.hub.lock().log.read(place)
    }
}

impl Hub {
    /// Ends a stream that does not keep up. It has its place no more, whatever its connection does.
    fn drop_slow(&mut self, job: JobId, mailbox: &Arc<Mailbox>, reason: &'static str) {
        mailbox.drop_all();
        self.leave(job, mailbox);
        dropped(reason);
    }

    fn leave(&mut self, job: JobId, mailbox: &Arc<Mailbox>) {
        let Some(mailboxes) = self.by_job.get_mut(&job) else { return };
        let before = mailboxes.len();
        mailboxes.retain(|known| !Arc::ptr_eq(known, mailbox));
        let is_gone = mailboxes.len() < before;
        if mailboxes.is_empty() {
            self.by_job.remove(&job);
        }
        if is_gone {
            self.left();
        }
    }

    fn left(&mut self) {
        self.open -= 1;
        metrics::gauge!("meanwhile_streams").decrement(1.0);
    }
}

/// A stream was ended before its end, for this reason.
fn dropped(reason: &'static str) {
    metrics::counter!("meanwhile_streams_dropped_total", "reason" => reason).increment(1);
}

/// The problem 503 for a client that may come back soon.
fn too_many(detail: &str) -> Problem {
    metrics::counter!("meanwhile_streams_refused_total").increment(1);
    Problem::new(Kind::TooManyStreams, detail).retry_after_s(RETRY_AFTER_S)
}

/// A stream's place among all. It is given back when this is dropped, with the stream.
struct Place {
    streams: Arc<Streams>,
    mailbox: Option<(JobId, Arc<Mailbox>)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut hub = self.streams.hub.lock();
        match &self.mailbox {
            Some((job, mailbox)) => hub.leave(*job, mailbox),
            None => hub.left(),
        }
        drop(hub);
        self.streams.left.notify_waiters();
    }
}
