//! A page of a job's events behind a cursor: from Postgres as far as they are there, then as the tail has seen them.
//!
//! However long a job's past is, no more of it is read than the page holds. As in [`crate::job_lookup`], an answer
//! never goes back in time, and none has a gap.

use flow::event::JobEvent;
use flow::id::JobId;
use store::history::Entry;
use store::jobs::PastBounds;
use web::caller::Caller;
use web::problem::Problem;

use crate::job_lookup::{Gaps, decoded, in_time, named, stored, unknown};
use crate::recent::{BEFORE_THE_FIRST_EVENT, RecentJob};
use crate::state::Api;
use crate::{answer, expiry};

/// Whether something follows a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// More events are there now.
    More,
    /// More may come.
    Live,
    /// The job has ended, and nothing comes.
    Over,
}

/// See the module.
pub(crate) struct PastPage {
    pub(crate) job: JobId,
    /// With their cursors, as JSON.
    pub(crate) events: Vec<(i64, String)>,
    /// The last cursor that is known of the job; before the first offset where there is none.
    pub(crate) cursor: i64,
    pub(crate) rest: Rest,
}

/// Events on their way into a page.
struct Page<'a> {
    api: &'a Api,
    bounds: PastBounds,
    events: Vec<(i64, String)>,
    bytes: usize,
}

impl Page<'_> {
    fn is_full(&self) -> bool {
        self.events.len() >= self.bounds.events || self.bytes >= self.bounds.bytes
    }

    fn end(self, job: JobId, cursor: i64, is_all: bool, has_ended: bool) -> PastPage {
        let rest = match (is_all, has_ended) {
            (false, _) => Rest::More,
            (true, false) => Rest::Live,
            (true, true) => Rest::Over,
        };
        PastPage { job, events: self.events, cursor, rest }
    }

    fn push(&mut self, cursor: i64, mut event: JobEvent) {
        expiry::hide_in(self.api, &mut event);
        let text = answer::event(cursor, &event).to_string();
        self.bytes += text.len();
        self.events.push((cursor, text));
    }

    /// Adds what the tail has seen behind the cursor. Returns false if that is too much.
    async fn add_recent(&mut self, recent: &RecentJob, after: i64) -> Result<bool, Problem> {
        for (cursor, bytes) in recent.events.iter().filter(|(cursor, _)| *cursor > after) {
            if self.is_full() {
                return Ok(false);
            }
            if let Some(event) = decoded(self.api, *cursor, bytes).await? {
                self.push(*cursor, event);
            }
        }
        Ok(true)
    }

    /// Adds what is stored. Returns false if that is too much.
    fn add_stored(&mut self, events: Vec<Entry>) -> bool {
        for Entry { cursor, event } in events {
            if self.is_full() {
                return false;
            }
            self.push(cursor, event);
        }
        true
    }
}

/// The page of the job that a path names, or the problem 404. It has at least one event, if one is there.
pub(crate) async fn page(
    api: &Api,
    caller: &Caller,
    text: &str,
    after: i64,
    bounds: PastBounds,
) -> Result<PastPage, Problem> {
    let job = named(api, caller, text)?;
    let known = api.recent.look(job);
    let recent = known.job.as_ref();
    let tenant = match recent {
        Some(recent) => tenant_of(api, recent).await?,
        None => None,
    };
    let mut page = Page { api, bounds, events: Vec::new(), bytes: 0 };
    if let Some(recent) = recent.filter(|recent| recent.complete)
        && let Some(tenant) = &tenant
    {
        if *tenant != caller.tenant {
            return Err(unknown(text));
        }
        let is_all = page.add_recent(recent, after).await?;
        return Ok(page.end(job, recent.last_cursor(), is_all, recent.has_ended));
    }
    let gaps = Gaps::of(api, &known).await?;
    let past = in_time(store::jobs::past(&api.pool, &caller.tenant, job, after, bounds)).await?;
    let (events, is_last, seen) = match past {
        Some(past) => (past.events, past.is_last, Some((past.summary, past.partition))),
        None => (Vec::new(), true, None),
    };
    let is_known = match (&seen, &tenant) {
        (Some(_), _) => true,
        (None, Some(tenant)) => *tenant == caller.tenant,
        (None, None) => stored(api, caller, job).await?.is_some(),
    };
    if !is_known {
        return Err(unknown(text));
    }
    let stored_cursor = seen.as_ref().map_or(BEFORE_THE_FIRST_EVENT, |(summary, _)| summary.cursor);
    if !page.add_stored(events) || !is_last {
        // The rest of it is there for certain, whatever comes behind that.
        return Ok(page.end(job, stored_cursor, false, false));
    }
    gaps.check(job, seen.as_ref().map(|(summary, partition)| (summary, *partition)))?;
    let is_all = match recent {
        Some(recent) => page.add_recent(recent, after.max(stored_cursor)).await?,
        None => true,
    };
    let cursor = recent.map_or(stored_cursor, |recent| recent.last_cursor().max(stored_cursor));
    let is_final = seen.is_some_and(|(summary, _)| summary.status.is_final());
    Ok(page.end(job, cursor, is_all, is_final || recent.is_some_and(|recent| recent.has_ended)))
}

/// The tenant of a job that the tail has seen; none if none of its events can be read.
async fn tenant_of(api: &Api, recent: &RecentJob) -> Result<Option<String>, Problem> {
    for (cursor, bytes) in &recent.events {
        if let Some(event) = decoded(api, *cursor, bytes).await? {
            return Ok(Some(event.facts.tenant));
        }
    }
    Ok(None)
}
