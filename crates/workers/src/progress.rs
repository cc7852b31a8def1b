//! What a worker tells of steps under way, on `meanwhile.progress`: that an attempt has begun, and how far it is.
//!
//! Invariant: nothing here is waited for, and nothing is decided by it. What finds no room is dropped. An attempt that
//! ends soon costs no record.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bus::LossyProducer;
use events::progress::{PERCENT, Progress, STARTED, short_message};
use events::trace::Trace;
use flow::slip::Slip;
use parking_lot::Mutex;
use service_kit::error_chain;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::run_step::Runner;

/// Of the reports of one attempt within this time, the last one is sent.
const INTERVAL: Duration = Duration::from_millis(200);

/// By this a native step tells how far it is. Cheap to clone; calling it never waits, and telling more often than a few
/// times per second costs nothing: only the last report of each fifth of a second is sent.
///
/// Reports may be lost. They are shown in the job's status, and nothing is decided by them. A default one tells nobody.
///
/// A function that takes long tells how far it is, and heeds a cancel of its job:
///
/// ```no_run
/// use std::time::Duration;
///
/// use serde_json::{Value, json};
/// use workers::{NativeCall, NativeError, Workers};
///
/// # async fn print(page: &Value) {}
/// async fn print_pages(call: NativeCall) -> Result<Value, NativeError> {
///     let pages = call.input["pages"].as_array().ok_or_else(|| NativeError::permanent("no pages"))?;
///     for (done, page) in pages.iter().enumerate() {
///         // Also as a future, to wait for beside others: `call.cancel.made()`.
///         if call.cancel.is_made() {
///             return Err(NativeError::uncertain("cancelled while it was printing"));
///         }
///         call.progress.report((100 * done / pages.len()) as u8, &format!("page {done} of {}", pages.len()));
///         print(page).await;
///     }
///     Ok(json!({ "pages": pages.len() }))
/// }
///
/// // Half a minute without a report: the call hangs, and is tried again.
/// let workers = Workers::builder().native("print", print_pages).heartbeat("print", Duration::from_secs(30)).build();
/// # drop(workers);
/// ```
#[derive(Clone, Default)]
pub struct ProgressReporter(Option<Arc<Told>>);

struct Told {
    state: Mutex<State>,
    news: Notify,
}

struct State {
    news: News,
    is_new: bool,
    last_sign: Instant,
}

/// What a step has told last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct News {
    percent: Option<u8>,
    message: Option<String>,
}

impl ProgressReporter {
    /// Of one attempt.
    pub(crate) fn new() -> Self {
        let state = State { news: News::default(), is_new: false, last_sign: Instant::now() };
        Self(Some(Arc::new(Told { state: Mutex::new(state), news: Notify::new() })))
    }

    /// Tells how much of the step is done, 0 to 100, and what is going on, for a person: one line of 200 bytes at most,
    /// which the job's caller sees. Within a visit of the step the percent shown never falls.
    pub fn report(&self, percent: u8, message: &str) {
        self.tell(Some(percent.min(100)), short_message(message));
    }

    /// The same without a message; an earlier one stays.
    pub fn percent(&self, percent: u8) {
        self.tell(Some(percent.min(100)), None);
    }

    /// Shows that the function still works, where it has nothing to report: see
    /// [`WorkersBuilder::heartbeat`](crate::WorkersBuilder::heartbeat). A report does so, too.
    pub fn alive(&self) {
        if let Some(told) = &self.0 {
            told.state.lock().last_sign = Instant::now();
        }
    }

    fn tell(&self, percent: Option<u8>, message: Option<String>) {
        let Some(told) = &self.0 else { return };
        let mut state = told.state.lock();
        state.last_sign = Instant::now();
        state.news.percent = percent.or(state.news.percent);
        state.news.message = message.or(state.news.message.take());
        state.is_new = true;
        drop(state);
        told.news.notify_one();
    }

    /// Waits for what has not been taken yet.
    async fn next(&self) -> News {
        let Some(told) = &self.0 else { return pending().await };
        loop {
            {
                let mut state = told.state.lock();
                if std::mem::take(&mut state.is_new) {
                    return state.news.clone();
                }
            }
            told.news.notified().await;
        }
    }

    /// Waits until there was no sign for so long.
    pub(crate) async fn is_silent_for(&self, time: Duration) {
        let Some(told) = &self.0 else { return pending().await };
        loop {
            let until = told.state.lock().last_sign + time;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl fmt::Debug for ProgressReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.0.as_ref().map(|told| told.state.lock().news.clone());
        f.debug_tuple("ProgressReporter").field(&told).finish()
    }
}

/// By what was told last.
impl PartialEq for ProgressReporter {
    fn eq(&self, other: &Self) -> bool {
        let told = |reporter: &Self| reporter.0.as_ref().map(|told| told.state.lock().news.clone());
        told(self) == told(other)
    }
}

/// The way to `meanwhile.progress`.
#[derive(Debug)]
pub(crate) struct ProgressTopic {
    producer: LossyProducer,
    /// The time after which an attempt is told of.
    after: Duration,
}

impl ProgressTopic {
    pub(crate) fn new(bus: &bus::Settings, after: Duration) -> Result<Self, bus::Error> {
        let lost = || metrics::counter!("meanwhile_progress_dropped_total", "role" => "workers").increment(1);
        Ok(Self { producer: LossyProducer::new(bus, lost)?, after })
    }
}

impl Runner {
    /// Makes a call, and tells of it while it lasts. `tells_begin`: the call is an attempt, and not a question about one.
    pub(crate) async fn telling<T>(
        &self,
        (slip, trace): (&Slip, &Trace),
        reporter: &ProgressReporter,
        tells_begin: bool,
        call: impl Future<Output = T>,
    ) -> T {
        tokio::select! {
            biased;
            ended = call => ended,
            never = self.tell_progress((slip, trace), reporter, tells_begin) => match never {},
        }
    }

    async fn tell_progress(
        &self,
        (slip, trace): (&Slip, &Trace),
        reporter: &ProgressReporter,
        tells_begin: bool,
    ) -> Infallible {
        let began_ms = self.clock.now_ms();
        let lasts = tokio::time::sleep(self.progress.after);
        tokio::pin!(lasts);
        let mut is_told = !tells_begin;
        loop {
            tokio::select! {
                () = &mut lasts, if !is_told => {
                    is_told = true;
                    self.send_progress((slip, trace), STARTED, News::default(), began_ms);
                }
                news = reporter.next() => {
                    self.send_progress((slip, trace), PERCENT, news, self.clock.now_ms());
                    tokio::time::sleep(INTERVAL).await;
                }
            }
        }
    }

    fn send_progress(&self, (slip, trace): (&Slip, &Trace), kind: &str, news: News, at_ms: i64) {
        let progress = Progress {
            job: slip.job,
            tenant: slip.tenant.clone(),
            flow: slip.flow.clone(),
            kind: kind.to_owned(),
            step: Some(slip.step.clone()),
            phase: slip.phase,
            branch: slip.branch.clone(),
            hop: slip.hop,
            visit: slip.visit,
            attempt: slip.attempt + 1,
            percent: news.percent,
            message: news.message,
            data: None,
            at_ms,
        };
        match self.writer.progress(&progress, trace) {
            Ok(record) => self.progress.producer.send(&record),
            Err(error) => tracing::debug!(error = error_chain(&error), "a report of progress cannot be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_report_counts_and_a_percent_alone_keeps_the_message() {
        let reporter = ProgressReporter::new();
        reporter.report(10, "first");
        reporter.report(250, "a\nb");
        reporter.percent(30);
        assert_eq!(reporter.next().await, News { percent: Some(30), message: Some("a b".to_owned()) });
        let nothing = tokio::time::timeout(Duration::from_millis(1), reporter.next()).await;
        assert!(nothing.is_err(), "nothing is told twice");
        reporter.alive();
        assert!(!reporter.0.as_ref().unwrap().state.lock().is_new, "a sign of life is no report");
        ProgressReporter::default().report(1, "nobody hears it");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_begins_anew_with_every_sign() {
        let (reporter, second) = (ProgressReporter::new(), Duration::from_secs(1));
        let began = Instant::now();
        let signs = async {
            for _ in 0..3 {
                tokio::time::sleep(second * 9).await;
                reporter.alive();
            }
        };
        tokio::join!(signs, reporter.is_silent_for(second * 10));
        assert_eq!(began.elapsed(), second * 37);
    }
}
