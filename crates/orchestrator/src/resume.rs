//! Resumes jobs at rest on an operator's signal: the token goes on in the transaction that takes in the signal. For a
//! parked job an event says so; one that waits for a time goes on as it would then.

use bus::{Reader, Record, RegistryError, Unreadable};
use events::{Writer, peek_slip};
use flow::decide::resumed;
use flow::event::JobEvent;
use flow::facts::JobFacts;
use flow::id::TokenId;
use flow::slip::HoldReason;
use inbox::Error;
use service_kit::identity::Clock;
use store::Tx;
use store::holds::{ReleasedToken, take_resting};

use crate::trace::cause;

/// The target of the log lines about a job's transitions, as in the workers.
const TRANSITIONS: &str = "transitions";

/// The tokens that were taken, and the events about them.
#[derive(Default)]
pub(crate) struct Resumed {
    /// The records for the outbox: the event of each token, then its slip.
    pub(crate) records: Vec<Record>,
    /// Tokens without an event.
    silent: u64,
    /// The events, each with its trace id, to log once they are committed.
    events: Vec<(JobEvent, String)>,
}

impl Resumed {
    /// Logs and counts, after the commit.
    pub(crate) fn log(&self) {
        metrics::counter!("meanwhile_holds_released_total").increment(self.silent);
        for (event, trace_id) in &self.events {
            let JobEvent { facts: JobFacts { job, flow, tenant, .. }, kind, .. } = event;
            let (event, step) = (kind.as_str(), event.step.as_deref().unwrap_or_default());
            metrics::counter!("meanwhile_holds_released_total").increment(1);
            tracing::info!(target: TRANSITIONS, event, job.id = %job, flow, step, tenant, trace_id, "transition");
        }
    }
}

/// Takes tokens at rest out of Postgres, and writes the events of those that were parked.
pub(crate) struct Resumer<'a> {
    pub(crate) writer: &'a Writer,
    pub(crate) reader: &'a Reader,
    pub(crate) clock: &'a Clock,
}

impl Resumer<'_> {
    /// Takes these tokens, each once. A token that does not rest is passed over.
    pub(crate) async fn resume(&self, tx: &mut Tx, tokens: &[TokenId]) -> Result<Resumed, Error> {
        let mut resumed = Resumed::default();
        for taken in take_resting(tx, tokens).await? {
            let is_parked = taken.reason == HoldReason::Attention;
            // The event comes first, so that a reader of the moved job has read the cause.
            match if is_parked { self.event(&taken).await? } else { None } {
                Some((event, trace_id, record)) => {
                    resumed.records.push(record);
                    resumed.events.push((event, trace_id));
                }
                None => resumed.silent += 1,
            }
            resumed.records.push(taken.record);
        }
        Ok(resumed)
    }

    /// None for a slip that cannot be read: it goes on without an event, and the workers decide about it.
    async fn event(&self, taken: &ReleasedToken) -> Result<Option<(JobEvent, String, Record)>, RegistryError> {
        let slip = match self.reader.read(taken.record.value.as_deref(), peek_slip).await {
            Ok(slip) => slip,
            Err(Unreadable::Never(_) | Unreadable::Newer(_)) => return Ok(None),
            Err(Unreadable::NotNow(error)) => return Err(error),
        };
        let trace = cause(&taken.record.headers, slip.job);
        // A projection that lags learns the flow's length later, from the job's own events.
        let event = resumed(&slip, taken.steps_total.unwrap_or_default(), self.clock.now_ms());
        let record = self.writer.event(&event, &trace).ok();
        Ok(record.map(|record| (event, trace.context.trace_id.to_string(), record)))
    }
}
