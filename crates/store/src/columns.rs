//! Turning rows into columns for `unnest`, and between our types and Postgres'.

use events::record::Record;
use events::trace::TraceId;
use flow::event::JobStatus;
use flow::id::JobId;
use uuid::Uuid;

use crate::Error;

/// Records as the columns of one insert into the outbox.
pub(crate) struct RecordColumns<'a> {
    pub(crate) topics: Vec<&'a str>,
    pub(crate) keys: Vec<Option<&'a [u8]>>,
    pub(crate) values: Vec<Option<&'a [u8]>>,
    pub(crate) headers: Vec<Vec<u8>>,
}

impl<'a> FromIterator<&'a Record> for RecordColumns<'a> {
    fn from_iter<I: IntoIterator<Item = &'a Record>>(records: I) -> Self {
        let mut columns = Self { topics: Vec::new(), keys: Vec::new(), values: Vec::new(), headers: Vec::new() };
        for record in records {
            columns.topics.push(&record.topic);
            columns.keys.push(record.key.as_deref());
            columns.values.push(record.value.as_deref());
            columns.headers.push(record.headers.as_bytes().to_vec());
        }
        columns
    }
}

pub(crate) fn trace_of(text: Option<&str>) -> Result<Option<TraceId>, Error> {
    let read = |text| u128::from_str_radix(text, 16).map_err(|_| Error::Corrupt(format!("trace id `{text}`")));
    Ok(text.map(read).transpose()?.map(TraceId::new))
}

pub(crate) fn status_of(text: &str) -> Result<JobStatus, Error> {
    JobStatus::read(text).ok_or_else(|| Error::Corrupt(format!("job status `{text}`")))
}

/// For counts that Postgres keeps as a signed integer.
pub(crate) fn signed(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The reverse of [`signed`].
pub(crate) fn unsigned(count: i32) -> u32 {
    u32::try_from(count).unwrap_or_default()
}

pub(crate) fn uuids<'a>(jobs: impl IntoIterator<Item = &'a JobId>) -> Vec<Uuid> {
    jobs.into_iter().map(|job| job.uuid()).collect()
}
