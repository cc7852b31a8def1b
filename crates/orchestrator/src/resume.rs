//! Resumes jobs at rest on an operator's signal: the token goes on in the transaction that takes in the signal. For a
//! parked job an event says so; one that waits for a time goes on as it would then. A signal may say how a step of
//! unknown outcome has ended: its slip says so too, and the worker does not call.

use std::collections::{HashMap, HashSet};

use bus::{Reader, Record, RegistryError, Unreadable};
use events::wait::Resume;
use events::{Writer, decode_slip, encode_slip, peek_slip};
use flow::decide::{Verdict, can_be_ruled, resumed, ruled};
use flow::event::JobEvent;
use flow::facts::JobFacts;
use flow::id::TokenId;
use flow::slip::HoldReason;
use inbox::Error;
use service_kit::identity::Clock;
use store::Tx;
use store::holds::{ReleasedToken, lock_parked_slip, take_resting};

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
            tracing::debug!(target: TRANSITIONS, event, job.id = %job, flow, step, tenant, trace_id, "transition");
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
    /// Takes the tokens that these words name, each once. A token that does not rest is passed over. Of several words
    /// for one token the first counts.
    pub(crate) async fn resume(&self, tx: &mut Tx, words: &[Resume]) -> Result<Resumed, Error> {
        let mut resumed = Resumed::default();
        let (mut named, mut tokens, mut ruled) = (HashSet::new(), Vec::new(), HashMap::new());
        for Resume { token, verdict, .. } in words.iter().filter(|word| named.insert(&word.token)) {
            if let Some(verdict) = verdict {
                let Some(value) = self.ruled(tx, token, verdict).await? else { continue };
                ruled.insert(token, (verdict, value));
            }
            tokens.push(token.clone());
        }
        for mut taken in take_resting(tx, &tokens).await? {
            let verdict = ruled.remove(&taken.token).map(|(verdict, value)| {
                taken.record.value = Some(value);
                verdict
            });
            let is_parked = taken.reason == HoldReason::Attention;
            // The event comes first, so that a reader of the moved job has read the cause.
            match if is_parked { self.event(&taken, verdict).await? } else { None } {
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

    /// The slip of a parked token with the verdict. None where the token is not parked at this hop, where its step's
    /// outcome is known, or where the slip says what this version does not know: then the word has no effect.
    async fn ruled(&self, tx: &mut Tx, token: &TokenId, verdict: &Verdict) -> Result<Option<Vec<u8>>, Error> {
        let Some(parked) = lock_parked_slip(tx, token).await? else { return Ok(None) };
        let slip = match self.reader.read(Some(&parked), decode_slip).await {
            Ok(slip) => Some(slip).filter(|slip| can_be_ruled(slip, &verdict.said)),
            Err(Unreadable::Never(_) | Unreadable::Newer(_)) => None,
            Err(Unreadable::NotNow(error)) => return Err(error.into()),
        };
        let value = slip.and_then(|slip| encode_slip(&self.writer.ids, &ruled(slip, verdict)).ok());
        if value.is_none() {
            let job = token.job;
            tracing::warn!(job.id = %job, "a verdict has no effect: the step's outcome is known, or the slip is not");
        }
        Ok(value)
    }

    /// None for a slip that cannot be read: it goes on without an event, and the workers decide about it.
    async fn event(
        &self,
        taken: &ReleasedToken,
        verdict: Option<&Verdict>,
    ) -> Result<Option<(JobEvent, String, Record)>, RegistryError> {
        let slip = match self.reader.read(taken.record.value.as_deref(), peek_slip).await {
            Ok(slip) => slip,
            Err(Unreadable::Never(_) | Unreadable::Newer(_)) => return Ok(None),
            Err(Unreadable::NotNow(error)) => return Err(error),
        };
        let trace = cause(&taken.record.headers, slip.job);
        // A projection that lags learns the flow's length later, from the job's own events.
        let event = resumed(&slip, taken.steps_total.unwrap_or_default(), self.clock.now_ms());
        let event = match verdict {
            Some(verdict) => verdict.told_by(event),
            None => event,
        };
        let record = self.writer.event(&event, &trace).ok();
        Ok(record.map(|record| (event, trace.context.trace_id.to_string(), record)))
    }
}
