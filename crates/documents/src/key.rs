//! The places of documents: `day/tenant/job/name`, below the prefix of the store.
//!
//! The day is that of the job's id, so that what is old is found without a look at what is not.

use events::time::rfc3339;
use flow::id::JobId;
use object_store::path::{Path, PathPart};

use crate::Owner;

/// Characters of a day, as in `2026-11-30`.
const DAY_CHARS: usize = 10;

/// The place of a document.
pub(crate) fn of(prefix: &Path, owner: Owner<'_>, name: &str) -> Path {
    let (day, job) = (day(made_ms(owner.job)), owner.job.to_string());
    [day.as_str(), owner.tenant, &job, name]
        .into_iter()
        .fold(prefix.clone(), |path, part| path.join(PathPart::from(part)))
}

/// The day of an instant.
pub(crate) fn day(at_ms: i64) -> String {
    rfc3339(at_ms).chars().take(DAY_CHARS).collect()
}

/// The job whose document lies there; none: it is no place of ours.
pub(crate) fn job_of(prefix: &Path, place: &Path) -> Option<JobId> {
    let parts: Vec<PathPart<'_>> = place.prefix_match(prefix)?.collect();
    let [day, _, job, _] = parts.as_slice() else { return None };
    let job: JobId = job.as_ref().parse().ok()?;
    (self::day(made_ms(job)) == day.as_ref()).then_some(job)
}

/// The time at which an id was drawn: a UUIDv7 begins with it.
fn made_ms(job: JobId) -> i64 {
    i64::try_from(job.uuid().as_u128() >> 80).unwrap_or_default()
}
