//! Facts of a job that stay the same from its acceptance to its end. Slips, events, views and rows all carry them.

use crate::id::JobId;

/// The facts of a job. Types that belong to a job deref to them: `slip.tenant`, `event.flow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// The job.
    pub job: JobId,
    /// The tenant that submitted it.
    pub tenant: String,
    /// Its flow.
    pub flow: String,
    /// The version of the flow that it runs in.
    pub version: String,
    /// The ordering key within tenant and flow: the flow's `key`, else the job id.
    pub key: String,
    /// The caller's correlation id, or ours.
    pub correlation_id: String,
    /// The time of its acceptance, in milliseconds since the Unix epoch.
    pub accepted_at_ms: i64,
    /// The job that it retries.
    pub retry_of: Option<JobId>,
}

/// Lets a type that belongs to a job be read as its facts.
#[macro_export]
macro_rules! deref_to_facts {
    ($of:ty) => {
        impl std::ops::Deref for $of {
            type Target = $crate::facts::JobFacts;

            fn deref(&self) -> &Self::Target {
                &self.facts
            }
        }

        impl std::ops::DerefMut for $of {
            fn deref_mut(&mut self) -> &mut Self::Target {
                &mut self.facts
            }
        }
    };
}
