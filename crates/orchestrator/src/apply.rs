//! One batch, one Postgres transaction: projection, holds, index, refused records and the next offsets (rule 3).

use std::sync::Arc;

use bus::{Apply, ApplyError, Batch, Record, RegistryError};
use service_kit::health::Readiness;
use service_kit::stop_at;
use store::{Pool, dead_letters, holds, jobs, offsets, outbox};
use tokio::sync::Notify;

use crate::take_in::{Meaning, Refused, TakeIn};

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
    async fn commit(&self, batch: &Batch, meaning: &Meaning<'_>) -> Result<(), Failed> {
        let mut tx = self.pool.begin().await?;
        jobs::project(&mut tx, &meaning.events).await?;
        holds::insert(&mut tx, &meaning.holds).await?;
        // After the holds: a word may be for one that came just before it.
        let resumed = self.take_in.writer().resume(&mut tx, &meaning.words).await?;
        outbox::append(&mut tx, &resumed.records).await?;
        dead_letters::index(&mut tx, &meaning.dead_letters).await?;
        let refused: Vec<Record> = meaning.refused.iter().map(|refused| self.take_in.dead_letter(refused)).collect();
        outbox::append(&mut tx, &refused).await?;
        offsets::advance(&mut tx, &batch.advances()).await?;
        stop_at("orchestrator.before-commit");
        tx.commit().await?;
        stop_at("orchestrator.after-commit");
        // Only now: what is tried again is not told twice.
        meaning.refused.iter().for_each(Refused::tell);
        resumed.tell();
        if !meaning.holds.is_empty() {
            self.hold_came.notify_one();
        }
        metrics::histogram!("meanwhile_take_in_batch_size").record(batch.len() as f64);
        Ok(())
    }
}

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// Postgres refused, or does not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The registry does not answer, and a slip was written with a schema that is not known here.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

fn verdict(failed: Failed) -> ApplyError {
    match failed {
        Failed::Store(error) => ApplyError::of(error, store::Error::is_conflict, store::Error::is_row_error),
        Failed::Registry(error) => ApplyError::NotNow(error.into()),
    }
}

impl Apply for Orchestrator {
    async fn apply(&mut self, batch: &Batch) -> Result<(), ApplyError> {
        let meaning = self.take_in.read(batch).await.map_err(|error| {
            self.readiness.missing("registry", &error);
            ApplyError::NotNow(error.into())
        })?;
        self.readiness.ready("registry");
        let outcome = self.commit(batch, &meaning).await;
        if let Err(error) = &outcome {
            if let Failed::Registry(error) = error {
                self.readiness.missing("registry", error);
            }
            meaning.spans.iter().for_each(|span| span.fail("not-stored", error));
        }
        outcome.map_err(verdict)
    }

    async fn bury(&mut self, batch: &Batch, reason: &str) -> Result<(), ApplyError> {
        let topic_of_the_dead = self.take_in.topics.dead_letters();
        let refuse = |record| Refused { record, class: NOT_STORABLE, reason: reason.to_owned() };
        // A dead letter that cannot be indexed stays where it is; burying it again would go on for ever.
        let parts = batch.parts.iter().filter(|part| part.topic != topic_of_the_dead);
        let refused = parts.flat_map(|part| &part.records).map(refuse).collect();
        self.commit(batch, &Meaning { refused, ..Meaning::default() }).await.map_err(verdict)
    }

    fn heard(&mut self, outcome: Result<(), &anyhow::Error>) {
        match outcome {
            Ok(()) => self.readiness.ready("postgres"),
            Err(error) if error.is::<bus::RegistryError>() => {}
            Err(error) => self.readiness.missing("postgres", format!("{error:#}")),
        }
    }

    fn heard_of_kafka(&mut self, is_down: bool) {
        self.readiness.heard("kafka", is_down);
    }
}
