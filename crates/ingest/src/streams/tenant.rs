//! The events of all jobs of a tenant, from a cursor on: from the log of this process, or first from Kafka where the
//! log does not go back so far.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bus::Past;
use flow::event::JobStatus;
use service_kit::error_chain;
use tokio::sync::{OwnedSemaphorePermit, watch};
use web::problem::{Kind, Problem};

use super::cursor::Cursor;
use super::item::{End, Item};
use super::log::Overrun;
use super::record::{Seen, Told};
use super::{Place, dropped, too_many};
use crate::state::Api;

/// The pause before an event is read once more, while the registry does not answer.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);

/// The choice of events; what is none chooses all.
pub(super) struct Choice {
    pub(super) tenant: String,
    pub(super) flow: Option<String>,
    /// Statuses of the job after the event.
    pub(super) statuses: Option<Vec<JobStatus>>,
}

impl Choice {
    fn fits(&self, told: &Told) -> bool {
        told.tenant == self.tenant
            && self.flow.as_ref().is_none_or(|flow| *flow == told.flow)
            && self.statuses.as_ref().is_none_or(|statuses| statuses.contains(&told.status))
    }
}

/// Where the next events are.
enum Way {
    /// On Kafka, up to this cursor at least.
    Past { past: Box<Past>, reach: Cursor, _turn: OwnedSemaphorePermit },
    /// In the log, from this place on.
    Log { place: u64, end: watch::Receiver<u64> },
}

/// See the module.
pub(super) struct TenantSource {
    choice: Choice,
    cursor: Cursor,
    /// True once the cursor has moved on without an event.
    has_moved: bool,
    waiting: VecDeque<Arc<Seen>>,
    way: Way,
    _place: Place,
}

impl TenantSource {
    /// Without a cursor, from now on.
    ///
    /// # Errors
    /// There is no room, the events are not kept any more, or Kafka cannot be read now.
    pub(super) async fn open(api: &Api, choice: Choice, after: Option<Cursor>) -> Result<Self, Problem> {
        api.ready()?;
        let place = api.streams.enter()?;
        let cursor = after.unwrap_or_else(|| api.streams.position());
        let way = way(api, &cursor).await?;
        Ok(Self { choice, cursor, has_moved: false, waiting: VecDeque::new(), way, _place: place })
    }

    /// The cursor behind all that was returned, or passed over.
    pub(super) fn cursor(&self) -> String {
        self.cursor.text(&self.choice.tenant)
    }

    /// The cursor, if it has moved on without an event.
    pub(super) fn moved(&mut self) -> Option<String> {
        std::mem::take(&mut self.has_moved).then(|| self.cursor())
    }

    /// The next thing that is there now. Cancel-safe.
    pub(super) async fn ready(&mut self, api: &Api) -> Option<Item> {
        loop {
            if let Some(event) = self.next_waiting(api).await {
                return Some(event);
            }
            match &mut self.way {
                Way::Log { place, .. } => match api.streams.read(place) {
                    Ok(read) if read.is_empty() => return None,
                    Ok(read) => self.waiting.extend(read),
                    Err(Overrun) => {
                        dropped("slow");
                        return Some(Item::End(End::Slow));
                    }
                },
                Way::Past { past, reach, .. } => match past.next().await {
                    Ok(Some(records)) => {
                        self.waiting.extend(records.iter().filter_map(Seen::of).map(Arc::new));
                    }
                    Ok(None) => {
                        self.cursor.raise_to(reach);
                        match way(api, &self.cursor).await {
                            Ok(way) => self.way = way,
                            Err(problem) => return Some(Item::End(End::Failed(problem))),
                        }
                    }
                    Err(error) => return Some(Item::End(End::Failed(unreadable(&error)))),
                },
            }
        }
    }

    /// The next event of those that were read that is behind the cursor, and chosen.
    async fn next_waiting(&mut self, api: &Api) -> Option<Item> {
        while let Some(seen) = self.waiting.front().cloned() {
            let is_new = seen.offset >= self.cursor.next(seen.partition);
            let told = match seen.told(&api.reader, &api.catalog).await {
                Ok(told) => told.filter(|told| is_new && self.choice.fits(told)),
                Err(error) => {
                    tracing::debug!(error = error_chain(&error), "the schema registry does not answer");
                    tokio::time::sleep(UNREADABLE_PAUSE).await;
                    continue;
                }
            };
            self.waiting.pop_front();
            self.cursor.raise(seen.partition, seen.offset + 1);
            self.has_moved = told.is_none();
            if let Some(told) = told {
                let cursor = self.cursor();
                let text = told.of_any(&cursor, seen.job, api.clock.now_ms());
                return Some(Item::Event { cursor, text });
            }
        }
        None
    }

    /// Returns once there may be something more.
    pub(super) async fn news(&mut self) {
        match &mut self.way {
            // The log lives as long as the process.
            Way::Log { end, place } => drop(end.wait_for(|end| *end > *place).await),
            Way::Past { .. } => {}
        }
    }
}

async fn way(api: &Api, cursor: &Cursor) -> Result<Way, Problem> {
    let end = api.streams.log_end.subscribe();
    if let Some(place) = api.streams.place_of(cursor) {
        return Ok(Way::Log { place, end });
    }
    let turn = Arc::clone(&api.streams.pasts).try_acquire_owned();
    let turn = turn.map_err(|_| too_many("Too many streams read events of earlier times from Kafka."))?;
    let reach = api.streams.position();
    // Of a partition where another instance is further than this one, nothing is missing.
    let starts = (0..).zip(reach.offsets()).map(|(partition, reach)| cursor.next(partition).min(*reach)).collect();
    let topic = api.planner()?.writer.topics.events();
    let past = Past::open(&api.bus, &topic, starts).await.map_err(|error| unreadable(&error))?;
    let past = past.ok_or_else(|| {
        let detail = "Events behind this cursor are not kept any more.";
        Problem::new(Kind::Gone, detail).with_remediation("Begin without a cursor; `GET /v1/jobs` lists what there is.")
    })?;
    Ok(Way::Past { past: Box::new(past), reach, _turn: turn })
}

fn unreadable(error: &bus::Error) -> Problem {
    let problem = Problem::new(Kind::NotReady, "Events of earlier times cannot be read from Kafka now.");
    problem.retry_after_s(1).caused_by(anyhow::anyhow!(error_chain(error)))
}
