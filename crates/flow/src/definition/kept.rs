//! For how long what a flow makes is kept.

use super::Definition;
use super::limit::{DEADLINE_MS_MAX, RETENTION_MS_MAX, RETENTION_MS_MIN};
use super::reader::{Fields, Reader};

/// Times after the end of a job, in milliseconds.
#[derive(Debug)]
pub(super) struct Kept {
    result_ms: Option<u64>,
    job_ms: Option<u64>,
}

impl Kept {
    pub(super) fn read(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Self {
        let mut time = |key: &str, bounds| {
            let node = fields.get(key)?;
            reader.duration_ms(node, &format!("`{key}`"), bounds)
        };
        let result_ms = time("result_ttl", 1_000..=DEADLINE_MS_MAX);
        Self { result_ms, job_ms: time("retention", RETENTION_MS_MIN..=RETENTION_MS_MAX) }
    }
}

impl Definition {
    /// For so long the result of a job is given to callers after its end; none: for as long as the job is kept.
    pub fn result_ttl_ms(&self) -> Option<u64> {
        self.0.kept.result_ms
    }

    /// For so long its jobs are kept after their ends; none: as tenant and deployment say.
    pub fn retention_ms(&self) -> Option<u64> {
        self.0.kept.job_ms
    }
}
