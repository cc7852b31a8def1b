//! The time that a job has left, as far as is known, and when to ask for it again.

use crate::estimate::{left_ms, retry_after_s};
use crate::job_lookup::JobState;
use crate::state::Api;

/// The time until a job's end, in milliseconds; none where nothing is known of it.
pub(crate) fn of_job(api: &Api, job: &JobState) -> Option<f64> {
    let view = &job.view;
    if view.status.is_final() || job.cancel.is_some() {
        return None;
    }
    let expected = api.estimates.of(&view.tenant, &view.flow)?;
    let definition = api.catalog.version(&view.flow, &view.version)?;
    left_ms((view, &job.events), &definition, &expected, api.clock.now_ms())
}

/// The value of `Retry-After` for a job that has so much time left.
pub(crate) fn ask_again_s(api: &Api, left_ms: Option<f64>) -> u64 {
    retry_after_s(left_ms, (api.config.retry_after_s, api.config.retry_after_max_s))
}

/// The value of `Retry-After` for a job that begins now.
pub(crate) fn of_new(api: &Api, tenant: &str, flow: &str) -> u64 {
    ask_again_s(api, api.estimates.of(tenant, flow).and_then(|expected| expected.job_ms()))
}
