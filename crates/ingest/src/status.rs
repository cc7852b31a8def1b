//! `GET /v1/jobs/{id}`

use std::fmt;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use events::time::rfc3339;
use serde_json::Value;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::job_lookup::{JobState, behind};
use crate::state::Api;
use crate::wait::{Asked, Until, WaitQuery, wait_query};
use crate::{answer, expiry, time_left};

/// Behind the cursor in an entity tag: the status says that a cancel was asked for, of which no event tells.
const CANCEL: &str = "-cancel";
/// Behind that: the status shows what steps under way tell of themselves, up to this offset of `meanwhile.progress`.
const PROGRESS: &str = "-p";

/// The job's status, unless the caller has it already (`If-None-Match`). A change of it can be waited for; a caller who
/// wants no more than is needed is sent on to the result once there is one.
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    api.polls.check(&context.caller, &job, api.config.polls())?;
    let mut asked = Asked::of(&api, &context, &headers, &wait_query(query)?);
    let known = Known::of(&headers);
    drop(headers);
    let mut first = None;
    let is_news = |job: &JobState| {
        let own = Tag::of(job);
        let changed = match known.names_none() {
            // As against the state at the time of asking.
            true => *first.get_or_insert(own) != own,
            false => known.covering(own).is_none() && !known.is_newer(own),
        };
        changed || job.view.status.is_final()
    };
    let found = asked.until(&api, &context.caller, &job, Until::Change, is_news).await;
    let is_over = found.as_ref().is_ok_and(|job| job.view.status.is_final());
    if asked.preferences.minimal && is_over {
        asked.honour("return=minimal");
    }
    let answer = found.and_then(|job| answer_of(&api, &job, &known, asked.preferences.minimal));
    asked.tell(answer)
}

fn answer_of(api: &Api, job: &JobState, known: &Known, minimal: bool) -> Result<Response, Problem> {
    let view = &job.view;
    if minimal && view.status.is_final() {
        let result = answer::result_address(api.public_url.prefix(), view.job);
        return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, result)]).into_response());
    }
    let own = Tag::of(job);
    if known.is_newer(own) {
        return Err(behind(view.job));
    }
    // Reports are lossy, and another process may have shown a later one. Then the caller keeps that.
    let newest = known.covering(own);
    let unchanged = newest.is_some() || known.is_any;
    let left_ms = time_left::of_job(api, job);
    let mut response = match unchanged {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Json(document(api, job, left_ms)).into_response(),
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&newest.unwrap_or(own).to_string()) {
        headers.insert(header::ETAG, etag);
    }
    // A cache may keep it, and has to ask each time: the answer is 304 while nothing has happened.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if !view.status.is_final() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(time_left::ask_again_s(api, left_ms)));
    }
    Ok(response)
}

/// The entity tags that a caller has.
struct Known {
    tags: Vec<Tag>,
    /// `*`: any state will do.
    is_any: bool,
}

impl Known {
    fn of(headers: &HeaderMap) -> Self {
        let all = || headers.get_all(header::IF_NONE_MATCH).iter().flat_map(tags);
        Self { tags: all().filter_map(Tag::parse).collect(), is_any: all().any(|tag| tag == "*") }
    }

    /// True if the caller names no state of ours.
    fn names_none(&self) -> bool {
        self.tags.is_empty()
    }

    /// The newest of those that say all that this one says.
    fn covering(&self, own: Tag) -> Option<Tag> {
        self.tags.iter().copied().filter(|known| known.covers(own)).max_by_key(|known| known.reported)
    }

    /// True if the caller was told of a later state than this.
    fn is_newer(&self, own: Tag) -> bool {
        self.tags.iter().any(|known| known.cursor > own.cursor)
    }
}

/// The status document of a job that has so much time left, as far as is known.
pub(crate) fn document(api: &Api, job: &JobState, left_ms: Option<f64>) -> Value {
    let definition = api.catalog.version(&job.view.flow, &job.view.version);
    let url = job.trace_id.as_deref().and_then(|trace_id| api.config.url_of_trace(trace_id));
    let trace = answer::Trace { id: job.trace_id.clone(), url };
    let cancel = job.cancel.as_ref();
    let mut document = answer::status(api.public_url.prefix(), &job.view, (&trace, cancel), definition.as_ref());
    if let Some(expires_ms) = expiry::at_ms(api, &job.view) {
        document["result_expires_at"] = rfc3339(expires_ms).into();
    }
    if let Some(left_ms) = left_ms {
        // To the tenth of a second.
        document["eta_s"] = ((left_ms / 100.0).round() / 10.0).into();
    }
    document
}

/// Refuses a request whose `If-Match` names another state of the job than the present one (RFC 9110 section 13.1.1).
/// Reports of progress, which are no events, do not count.
pub(crate) fn precondition(headers: &HeaderMap, job: &JobState) -> Result<(), Problem> {
    if !headers.contains_key(header::IF_MATCH) {
        return Ok(());
    }
    let own = Tag::of(job);
    let strong = |value: &HeaderValue| !value.to_str().unwrap_or_default().contains("W/");
    let mut tags = headers.get_all(header::IF_MATCH).iter().filter(|value| strong(value)).flat_map(tags);
    let same = |tag: Tag| (tag.cursor, tag.is_cancelled) == (own.cursor, own.is_cancelled);
    let is_own = |tag: &str| Tag::parse(tag).is_some_and(same);
    if tags.any(|tag| tag == "*" || is_own(tag)) {
        return Ok(());
    }
    let detail = format!("The job's state is {own} now.");
    Err(Problem::new(Kind::PreconditionFailed, detail).with_job(job.view.job))
}

fn tags(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(|tag| tag.trim().trim_start_matches("W/"))
}

/// An entity tag of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag {
    cursor: i64,
    is_cancelled: bool,
    reported: Option<i64>,
}

impl Tag {
    fn of(job: &JobState) -> Self {
        Self { cursor: job.view.cursor, is_cancelled: job.cancel.is_some(), reported: job.reported }
    }

    fn parse(tag: &str) -> Option<Self> {
        let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
        let (tag, reported) = match tag.split_once(PROGRESS) {
            Some((tag, offset)) => (tag, Some(offset.parse().ok()?)),
            None => (tag, None),
        };
        let cursor = tag.strip_suffix(CANCEL).unwrap_or(tag).parse().ok()?;
        Some(Self { cursor, is_cancelled: tag.ends_with(CANCEL), reported })
    }

    /// True if whoever has this status has all that the other one says.
    fn covers(self, other: Self) -> bool {
        (self.cursor, self.is_cancelled) == (other.cursor, other.is_cancelled) && self.reported >= other.reported
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}{}", self.cursor, if self.is_cancelled { CANCEL } else { "" })?;
        match self.reported {
            Some(offset) => write!(f, "{PROGRESS}{offset}\""),
            None => f.write_str("\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_as_it_was_written_and_covers_what_is_not_newer() {
        let of = |text: &str| Tag::parse(text).unwrap_or_else(|| panic!("{text}"));
        for text in ["\"17\"", "\"-1\"", "\"17-cancel\"", "\"17-p0\"", "\"17-cancel-p1234\""] {
            assert_eq!(of(text).to_string(), text);
        }
        for text in ["17", "\"\"", "\"x\"", "\"17-px\"", "\"17-p\""] {
            assert_eq!(Tag::parse(text), None, "{text}");
        }
        assert!(of("\"17-p5\"").covers(of("\"17-p5\"")) && of("\"17-p5\"").covers(of("\"17-p4\"")));
        assert!(of("\"17-p0\"").covers(of("\"17\"")), "a process that was started anew knows of no report");
        for (have, own) in [("\"17\"", "\"17-p0\""), ("\"17-p5\"", "\"17-p6\""), ("\"16-p5\"", "\"17-p5\"")] {
            assert!(!of(have).covers(of(own)), "{have} {own}");
        }
        assert!(!of("\"17-p5\"").covers(of("\"17-cancel-p5\"")));
    }
}
