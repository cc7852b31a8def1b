//! An operator's word: a parked token goes on, with the event that says so, in the transaction that takes the word in.

use bus::{Reader, Record, RegistryError, Unreadable};
use events::topic::Topics;
use events::{WriterIds, decode_slip, event_record};
use flow::decide::resumed;
use flow::event::JobEvent;
use service_kit::identity::Clock;
use store::Tx;
use store::holds::{Taken, Word, take_parked};

use crate::apply::Failed;
use crate::take_in::cause;

/// The target of the lines that tell a job's transitions, as in the workers.
const TRANSITIONS: &str = "transitions";

/// What goes with the tokens that were taken.
#[derive(Default)]
pub(crate) struct Resumed {
    /// To the outbox: of each token its event, then its slip.
    pub(crate) records: Vec<Record>,
    /// To tell, once it is committed.
    told: Vec<(JobEvent, String)>,
}

impl Resumed {
    /// Logs and counts, after the commit.
    pub(crate) fn tell(&self) {
        for (event, trace_id) in &self.told {
            let JobEvent { job, flow, tenant, kind, .. } = event;
            let (event, step) = (kind.as_str(), event.step.as_deref().unwrap_or_default());
            metrics::counter!("meanwhile_holds_released_total").increment(1);
            tracing::info!(target: TRANSITIONS, event, job.id = %job, flow, step, tenant, trace_id, "transition");
        }
    }
}

/// What it takes to write the event.
pub(crate) struct Writer<'a> {
    pub(crate) topics: &'a Topics,
    pub(crate) writers: &'a WriterIds,
    pub(crate) reader: &'a Reader,
    pub(crate) clock: &'a Clock,
}

impl Writer<'_> {
    /// Takes the tokens that these words name, each once: a word for one that does not rest there means nothing.
    pub(crate) async fn resume(&self, tx: &mut Tx, words: &[Word]) -> Result<Resumed, Failed> {
        let mut resumed = Resumed::default();
        for taken in take_parked(tx, words).await? {
            // The event first: whoever sees the job move has seen why.
            if let Some((event, trace_id, record)) = self.event(&taken).await? {
                resumed.records.push(record);
                resumed.told.push((event, trace_id));
            }
            resumed.records.push(taken.record);
        }
        Ok(resumed)
    }

    /// None for a slip that cannot be read: it goes on untold, and the workers keep it as a dead letter.
    async fn event(&self, taken: &Taken) -> Result<Option<(JobEvent, String, Record)>, RegistryError> {
        let slip = match self.reader.read(taken.record.value.as_deref(), decode_slip).await {
            Ok(slip) => slip,
            Err(Unreadable::Never(_)) => return Ok(None),
            Err(Unreadable::NotNow(error)) => return Err(error),
        };
        let trace = cause(&taken.record.headers, slip.job);
        // A projection that is behind knows the flow's length later, from the job's own events.
        let event = resumed(&slip, taken.steps_total.unwrap_or_default(), self.clock.now_ms());
        let record = event_record(self.topics, self.writers, &event, &trace).ok();
        Ok(record.map(|record| (event, format!("{:032x}", trace.context.trace_id), record)))
    }
}
