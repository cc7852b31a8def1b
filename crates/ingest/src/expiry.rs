//! The time for which a flow says that results are given (`result_ttl`). After it they are shown neither as a result,
//! nor in the status, nor among events. They go from the database with their job, and from Kafka by its retention.

use axum::http::{HeaderName, HeaderValue};
use flow::event::{JobEvent, JobStatus};
use flow::view::JobView;
use web::problem::{Kind, Problem};

use crate::state::Api;

/// When what is at an address will be gone (RFC 8594).
pub(crate) const SUNSET: HeaderName = HeaderName::from_static("sunset");

/// The end of that time, in milliseconds since the Unix epoch; none without a result, or without such an end.
pub(crate) fn at_ms(api: &Api, view: &JobView) -> Option<i64> {
    if view.status != JobStatus::Succeeded {
        return None;
    }
    // Nothing follows the end of a job.
    api.catalog.result_until_ms((&view.flow, &view.version), view.updated_at_ms)
}

fn is_over(api: &Api, view: &JobView) -> bool {
    at_ms(api, view).is_some_and(|at_ms| at_ms <= api.clock.now_ms())
}

/// Takes a result away whose time is over.
pub(crate) fn hide(api: &Api, view: &mut JobView, events: &mut [(i64, JobEvent)]) {
    if !is_over(api, view) {
        return;
    }
    (view.result, view.answer) = (None, None);
    events.iter_mut().for_each(|(_, event)| hide_in(api, event));
}

/// Takes a result whose time is over away from the event that tells it.
pub(crate) fn hide_in(api: &Api, event: &mut JobEvent) {
    if api.catalog.told_until_ms(event).is_some_and(|at_ms| at_ms <= api.clock.now_ms()) {
        (event.data, event.answer) = (None, None);
    }
}

/// The problem 410 for a result whose time is over.
pub(crate) fn check(api: &Api, view: &JobView) -> Result<(), Problem> {
    if !is_over(api, view) {
        return Ok(());
    }
    let detail = format!("Results of `{}` are given for a time after their jobs' ends, and that is over.", view.flow);
    let remediation = "The flow says for how long (`result_ttl`). Submit a new job to get the result again.";
    Err(Problem::new(Kind::Gone, detail).with_remediation(remediation).with_job(view.job))
}

/// That time as an HTTP date.
pub(crate) fn sunset(api: &Api, view: &JobView) -> Option<HeaderValue> {
    let at_ms = u64::try_from(at_ms(api, view)?).ok()?;
    let at = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(at_ms))?;
    HeaderValue::try_from(httpdate::fmt_http_date(at)).ok()
}
