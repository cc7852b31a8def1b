//! What a recovery found and did, for a person.

use std::collections::BTreeMap;
use std::fmt;

use events::{Record, header, time};
use uuid::Uuid;

use super::Older;
use super::plan::Plan;

/// Rows that are shown of those that are missing.
const SHOWN_MAX: usize = 5;

/// The outcome of a recovery, or what it would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Why no relay can go on by itself; none: one can, and nothing was done.
    pub reason: Option<String>,
    /// Transactions and rows in the outbox.
    pub transactions: u64,
    /// Rows in the outbox.
    pub rows: u64,
    /// Rows of them that are on Kafka, or were.
    pub rows_there: u64,
    /// Rows of a time of which that cannot be told, and the end of that time. Not in the other counts.
    pub older: Option<(u64, i64)>,
    /// Missing rows by topic.
    pub missing: BTreeMap<String, u64>,
    /// The first of them: topic, job, message id.
    pub first: Vec<(String, String, String)>,
    /// Missing rows whose record was on Kafka already, from a transaction that this server does not know: not sent.
    pub known: u64,
    /// Rows on Kafka, by job, of transactions that this server does not know; none: of no job.
    pub ahead: BTreeMap<Option<Uuid>, u64>,
    /// The place from which the relay goes on; none: nothing was changed.
    pub settled_at: Option<String>,
}

impl Report {
    pub(crate) fn of(plan: &Plan) -> Self {
        Self {
            transactions: plan.transactions,
            rows: plan.rows,
            rows_there: plan.rows_there,
            older: plan.named_from_ms.filter(|_| plan.rows_older > 0).map(|from_ms| (plan.rows_older, from_ms)),
            ahead: plan.ahead.jobs.clone(),
            ..Self::default()
        }
    }

    pub(crate) fn note(&mut self, record: &Record, is_there: bool) {
        if is_there {
            self.known += 1;
            return;
        }
        *self.missing.entry(record.topic.clone()).or_default() += 1;
        if self.first.len() < SHOWN_MAX {
            let text =
                |name| record.header(name).map_or_else(|| "-".to_owned(), |id| String::from_utf8_lossy(id).into());
            self.first.push((record.topic.clone(), text(header::JOB_ID), text(header::MESSAGE_ID)));
        }
    }

    /// True if nothing can be changed before somebody has answered for the older rows.
    pub fn is_undecided(&self, answer: Older) -> bool {
        self.older.is_some() && answer == Older::Refuse
    }

    /// Missing rows.
    pub fn rows_missing(&self) -> u64 {
        self.missing.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(reason) = &self.reason else {
            return writeln!(f, "nothing to recover: the relay's position fits this server");
        };
        writeln!(f, "reason   {reason}")?;
        let (rows, there, missing) = (self.rows, self.rows_there, self.rows_missing());
        writeln!(f, "outbox   {rows} rows of {} transactions: {there} on Kafka, {missing} missing", self.transactions)?;
        for (topic, rows) in &self.missing {
            writeln!(f, "missing  {rows} for {topic}")?;
        }
        for (topic, job, message) in &self.first {
            writeln!(f, "  first  {topic} job {job} message {message}")?;
        }
        if let Some((rows, from_ms)) = self.older {
            let from = time::rfc3339(from_ms);
            writeln!(f, "older    {rows} rows: Kafka does not name all that it was given before {from}")?;
        }
        if self.known > 0 {
            writeln!(
                f,
                "known    {} more are on Kafka, from a transaction that this server does not know",
                self.known
            )?;
        }
        if !self.ahead.is_empty() {
            let rows: u64 = self.ahead.values().sum();
            writeln!(f, "ahead    {rows} rows on Kafka are of transactions that this server does not know:")?;
        }
        for (job, rows) in &self.ahead {
            match job {
                Some(job) => writeln!(f, "  ahead  job {job}: {rows}")?,
                None => writeln!(f, "  ahead  no job: {rows}")?,
            }
        }
        match &self.settled_at {
            Some(place) => writeln!(f, "settled  {missing} rows were sent; the relay goes on from {place}"),
            None => writeln!(f, "nothing was changed"),
        }
    }
}
