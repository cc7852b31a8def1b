//! One batch, one Postgres transaction: projection, holds, index, refused records and the next offsets (rule 3).

use std::sync::Arc;

use bus::{Apply, ApplyError, Batch, Inbound, Part};
use service_kit::health::Readiness;
use store::offsets::OffsetAdvance;
use store::{Pool, dead_letters, holds, jobs, offsets, outbox};
use tokio::sync::Notify;

use crate::take_in::{Meaning, TakeIn};

/// The class of what is readable but cannot be stored.
const NOT_STORABLE: &str = "not-storable";

/// Applies batches.
pub(crate) struct Orchestrator {
    pub(crate) pool: Pool,
    pub(crate) take_in: TakeIn,
    /// Wakes the release loop: the new hold may be the next one due.
    pub(crate) hold_came: Arc<Notify>,
    pub(crate) readiness: Readiness,
}

impl Orchestrator {
    async fn commit(&self, batch: &Batch, meaning: &Meaning) -> Result<(), store::Error> {
        let mut tx = self.pool.begin().await?;
        jobs::project(&mut tx, &meaning.events).await?;
        holds::insert(&mut tx, &meaning.holds).await?;
        dead_letters::index(&mut tx, &meaning.dead_letters).await?;
        outbox::append(&mut tx, &meaning.refused).await?;
        offsets::advance(&mut tx, &advances(&batch.parts)).await?;
        tx.commit().await?;
        if !meaning.holds.is_empty() {
            self.hold_came.notify_one();
        }
        metrics::histogram!("meanwhile_take_in_batch_size").record(batch.len() as f64);
        Ok(())
    }
}

/// A position of 0 is what a partition has before anything is stored for it.
fn advances(parts: &[Part]) -> Vec<OffsetAdvance> {
    let advance = |part: &Part| OffsetAdvance {
        topic: part.topic.clone(),
        partition: part.partition,
        expected: (part.first_offset > 0).then_some(part.first_offset),
        next: part.next_offset,
    };
    parts.iter().map(advance).collect()
}

fn verdict(error: store::Error) -> ApplyError {
    match error {
        store::Error::Conflict { .. } => ApplyError::Conflict,
        error if error.is_row_error() => ApplyError::Record(error.into()),
        error => ApplyError::NotNow(error.into()),
    }
}

impl Apply for Orchestrator {
    async fn apply(&mut self, batch: &Batch) -> Result<(), ApplyError> {
        let records: Vec<&Inbound> = batch.parts.iter().flat_map(|part| &part.records).collect();
        let meaning = self.take_in.read(&records).await.map_err(|error| {
            self.readiness.missing("registry", &error);
            ApplyError::NotNow(error.into())
        })?;
        self.readiness.ready("registry");
        self.commit(batch, &meaning).await.map_err(verdict)
    }

    async fn bury(&mut self, part: &Part, reason: &str) -> Result<(), ApplyError> {
        let topic_of_the_dead = self.take_in.topics.dead_letters();
        let mut meaning = Meaning::default();
        // A dead letter that cannot be indexed stays where it is; burying it again would go on for ever.
        if part.topic != topic_of_the_dead {
            let refuse = |record| self.take_in.refuse(record, NOT_STORABLE, reason);
            meaning.refused = part.records.iter().map(refuse).collect();
        }
        self.commit(&Batch { parts: vec![part.clone()] }, &meaning).await.map_err(verdict)
    }

    fn heard(&mut self, outcome: Result<(), &anyhow::Error>) {
        match outcome {
            Ok(()) => self.readiness.ready("postgres"),
            Err(error) if error.is::<bus::RegistryError>() => {}
            Err(error) => self.readiness.missing("postgres", format!("{error:#}")),
        }
    }
}
