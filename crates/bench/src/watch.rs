//! Reading the events topic as anybody would: when which event of which job became visible.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bus::Tail;
use events::header;
use flow::event::EventKind;
use flow::id::JobId;

use crate::system::{Servers, System};

/// The consumer asks again after so long without records; it is answered at once when there are some.
pub(crate) const FETCH_WAIT_MAX: Duration = Duration::from_millis(100);
/// Without any event for so long, a run has failed.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Follows the events of one system.
#[derive(Debug)]
pub(crate) struct Watch {
    tail: Tail,
}

/// When each event of a job was seen, in order.
pub(crate) type Seen = HashMap<JobId, Vec<Instant>>;

impl Watch {
    pub(crate) async fn start(servers: &Servers, system: &System) -> Result<Self> {
        let tail = Tail::start(&servers.settings(), &system.topics.events(), FETCH_WAIT_MAX).await?;
        Ok(Self { tail })
    }

    /// Waits for the final events of `jobs` jobs; returns when the last was seen. Fails when a job does not succeed.
    pub(crate) async fn ends(&mut self, jobs: u64) -> Result<Instant> {
        let mut ended = 0;
        let mut last = Instant::now();
        while ended < jobs {
            for (_, kind, at) in self.next().await? {
                if is_end(kind)? {
                    (ended, last) = (ended + 1, at);
                }
            }
        }
        Ok(last)
    }

    /// As [`Watch::ends`], with the time of every event of every job.
    pub(crate) async fn every_event(&mut self, jobs: u64) -> Result<Seen> {
        let (mut ended, mut seen) = (0, Seen::new());
        while ended < jobs {
            for (job, kind, at) in self.next().await? {
                seen.entry(job).or_default().push(at);
                ended += u64::from(is_end(kind)?);
            }
        }
        Ok(seen)
    }

    async fn next(&mut self) -> Result<Vec<(JobId, EventKind, Instant)>> {
        let records = tokio::time::timeout(SILENCE_MAX, self.tail.next()).await;
        let records = records.context("no event for two minutes")?.context("the tail of the events has ended")?;
        let now = Instant::now();
        let event = |record: &bus::Inbound| {
            let kind = record.header_text(header::CE_TYPE).and_then(EventKind::parse).context("an event's ce_type")?;
            let job = record.header_text(header::JOB_ID).context("an event's job id")?;
            Ok((job.parse().context("an event's job id")?, kind, now))
        };
        records.iter().map(event).collect()
    }
}

fn is_end(kind: EventKind) -> Result<bool> {
    match kind {
        EventKind::JobSucceeded => Ok(true),
        EventKind::JobAccepted | EventKind::StepSucceeded => Ok(false),
        other => bail!("a job that cannot fail had the event {}", other.as_str()),
    }
}
