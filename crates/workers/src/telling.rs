//! A call under way is told of: that it has begun, and what its step reports.

use std::convert::Infallible;
use std::time::Duration;

use events::progress::{PERCENT, Progress, STARTED};
use events::trace::Trace;
use flow::slip::Slip;
use service_kit::error_chain;

use crate::progress::{News, ProgressReporter};
use crate::run_step::Runner;

/// Of the reports of one attempt within this time, the last one is sent.
const INTERVAL: Duration = Duration::from_millis(200);

impl Runner {
    /// Makes a call, and tells of it while it lasts. `tells_begin`: the call is an attempt, and no question about one.
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
