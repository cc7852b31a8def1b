//! `GET /v1/jobs/{id}`

use std::fmt;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::Value;
use web::context::RequestContext;
use web::problem::Problem;

use crate::answer;
use crate::job_lookup::{JobState, behind, find};
use crate::state::Api;

/// Behind the cursor in an entity tag: the status says that a cancel was asked for, of which no event tells.
const CANCEL: &str = "-cancel";
/// Behind that: the status shows what steps under way tell of themselves, up to this offset of `meanwhile.progress`.
const PROGRESS: &str = "-p";

/// The job's status, unless the caller has it already (`If-None-Match`).
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = find(&api, &context.caller, &job).await?;
    let view = &job.view;
    let own = Tag { cursor: view.cursor, is_cancelled: job.cancel.is_some(), reported: job.reported };
    let tags = || headers.get_all(header::IF_NONE_MATCH).iter().flat_map(tags);
    if tags().filter_map(Tag::parse).any(|known| known.cursor > own.cursor) {
        return Err(behind(view.job));
    }
    // Reports are lossy, and another process may have shown a later one. Then the caller keeps that.
    let newest = tags().filter_map(Tag::parse).filter(|known| known.covers(own)).max_by_key(|known| known.reported);
    let mut response = if newest.is_some() || tags().any(|tag| tag == "*") {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(document(&api, &job)).into_response()
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&newest.unwrap_or(own).to_string()) {
        headers.insert(header::ETAG, etag);
    }
    // A cache may keep it, and has to ask each time: the answer is 304 while nothing has happened.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if !view.status.is_final() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(api.config.retry_after_s));
    }
    Ok(response)
}

/// The status document of a job.
pub(crate) fn document(api: &Api, job: &JobState) -> Value {
    let definition = api.catalog.version(&job.view.flow, &job.view.version);
    let url = job.trace_id.as_deref().and_then(|trace_id| api.config.url_of_trace(trace_id));
    let trace = answer::Trace { id: job.trace_id.clone(), url };
    let cancel = job.cancel.as_ref();
    answer::status(api.public_url.prefix(), &job.view, (&trace, cancel), definition.as_ref())
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
