//! The events of one job: first its past, then what the tail sees.
//!
//! The mailbox is open before the past is read, so that nothing falls between the two. The cursor decides what of both
//! is sent: events up to it are passed over, also those that this instance sees later than another one did.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use flow::id::JobId;
use store::jobs::PastBounds;
use web::caller::Caller;
use web::problem::{Kind, Problem};

use super::item::{End, Item};
use super::mailbox::{News, Next};
use super::record::Seen;
use super::{Mailbox, Place};
use crate::past::{self, Rest};
use crate::state::Api;

/// The most of a job's past that is in memory for one stream.
const PAGE: PastBounds = PastBounds { events: 500, bytes: 256 * 1024 };
/// The pause before an event is read once more, while the registry does not answer.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);

enum Stage {
    /// Some of the past may not have been read yet.
    Past,
    Live,
    /// The last event is in the page, or was sent.
    Over,
}

/// See the module.
pub(super) struct JobSource {
    caller: Caller,
    job: JobId,
    mailbox: Arc<Mailbox>,
    _place: Place,
    after: i64,
    page: VecDeque<(i64, String)>,
    stage: Stage,
    /// Taken from the mailbox, and not sent yet.
    current: Option<Arc<Seen>>,
}

impl JobSource {
    /// # Errors
    /// There is no such job for this caller, no room, or its past cannot be read now.
    pub(super) async fn open(api: &Api, caller: &Caller, text: &str, after: i64) -> Result<Self, Problem> {
        let unknown = || Problem::new(Kind::UnknownJob, format!("There is no job `{text}`."));
        let job: JobId = text.parse().map_err(|_| unknown())?;
        let (place, mailbox) = api.streams.enter_job(job)?;
        let (caller, page) = (caller.clone(), VecDeque::new());
        let mut source = Self { caller, job, mailbox, _place: place, after, page, stage: Stage::Past, current: None };
        source.read_past(api).await?;
        Ok(source)
    }

    pub(super) fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Over) && self.page.is_empty()
    }

    async fn read_past(&mut self, api: &Api) -> Result<(), Problem> {
        // Never closed.
        let _turn = api.streams.histories.acquire().await.map_err(Problem::internal)?;
        let page = Box::pin(past::page(api, &self.caller, &self.job.to_string(), self.after, PAGE)).await?;
        self.page.extend(page.events);
        self.stage = match page.rest {
            Rest::More => Stage::Past,
            Rest::Live => Stage::Live,
            Rest::Over => Stage::Over,
        };
        Ok(())
    }

    /// The next thing that is there now. Cancel-safe.
    pub(super) async fn ready(&mut self, api: &Api) -> Option<Item> {
        loop {
            if let Some((cursor, text)) = self.page.pop_front() {
                self.after = cursor;
                return Some(Item::Event { cursor: cursor.to_string(), text });
            }
            match self.stage {
                Stage::Past => {
                    if let Err(problem) = self.read_past(api).await {
                        return Some(Item::End(End::Failed(problem)));
                    }
                    continue;
                }
                Stage::Over => return Some(Item::End(End::Finished)),
                Stage::Live => {}
            }
            if self.current.is_none() {
                match self.mailbox.next() {
                    Next::Dropped => return Some(Item::End(End::Slow)),
                    Next::Nothing => return None,
                    Next::News(News::Progress(text)) => return Some(Item::Progress(text)),
                    Next::News(News::Event(seen)) => self.current = Some(seen),
                }
            }
            let Some(seen) = self.current.clone() else { continue };
            if seen.offset > self.after {
                let told = match seen.told(&api.reader, &api.catalog).await {
                    Ok(told) => told,
                    Err(error) => {
                        tracing::debug!(%error, "the schema registry does not answer");
                        tokio::time::sleep(UNREADABLE_PAUSE).await;
                        continue;
                    }
                };
                if let Some(told) = told {
                    self.page.push_back((seen.offset, told.of_job(seen.offset, api.clock.now_ms())));
                    if told.status.is_final() {
                        self.stage = Stage::Over;
                    }
                }
            }
            self.current = None;
        }
    }

    /// Returns once there may be something more.
    pub(super) async fn news(&self) {
        self.mailbox.filled().await;
    }

    /// Returns once the stream was dropped, as it does not keep up.
    pub(super) async fn dropped(&self) {
        while !self.mailbox.is_dropped() {
            self.mailbox.filled().await;
        }
    }
}
