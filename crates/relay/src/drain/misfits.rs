//! Rows that their topics do not take: slips whose queue has no topic rest, others become dead letters, and a topic of
//! ours that is missing is waited for.

use std::time::Duration;

use bus::{Cause, TopicLook, Undelivered};
use events::Record;
use events::dead_letter::{Class, Refused};

use super::{Drain, DrainError};
use crate::read::Row;
use crate::refuse;
use crate::telemetry;

/// The pause between looks for a topic of ours, or for the registry.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Drain {
    /// Replaces rows that their topic would not take: by the hold of a slip whose queue has no topic, else by their
    /// dead letters.
    pub(super) fn refuse_misfits(&mut self, rows: &mut [Row]) -> Result<(), DrainError> {
        for row in rows {
            if self.limits.is_known_to_fit(&row.record.topic, row.record.size_bytes()) {
                continue;
            }
            let Err(refused) = self.judge(&row.record)? else { continue };
            if refused.class != Class::UnknownTopic || !self.rest(row)? {
                self.replace(row, refused)?;
            }
        }
        Ok(())
    }

    /// After an abort: lets the slips rest whose queue had its topic deleted. False: that was not the cause.
    pub(super) fn rest_of_deleted(&mut self, rows: &mut [Row]) -> Result<bool, DrainError> {
        let Some(Undelivered { topic, .. }) = self.producer.undelivered() else { return Ok(false) };
        if self.topics.queue_of(&topic).is_none() || self.producer.look_at(&topic) != TopicLook::Missing {
            return Ok(false);
        }
        self.limits.forget(&topic);
        self.refuse_misfits(rows)?;
        Ok(true)
    }

    /// Lets a slip rest whose queue has no topic. False: it is none that this version can read.
    fn rest(&mut self, row: &mut Row) -> Result<bool, DrainError> {
        if self.topics.queue_of(&row.record.topic).is_none() {
            return Ok(false);
        }
        let rest = loop {
            let resting = self.stop.run_until_cancelled(self.rests.of(&row.record, self.clock.now_ms()));
            match self.runtime.block_on(resting).ok_or(DrainError::Stopped)? {
                Ok(rest) => break rest,
                Err(error) => self.wait_for(&row.record.topic, format!("it does not exist, and {error}")),
            }
            self.sleep(LOOK_INTERVAL)?;
        };
        let Some(rest) = rest else { return Ok(false) };
        if self.judge(&rest.hold)?.is_err() {
            return Ok(false);
        }
        telemetry::rests(&rest);
        row.replace(rest.hold, rest.event);
        Ok(true)
    }

    /// Replaces a row that Kafka refuses, even alone, by its dead letter.
    pub(super) fn bury(&mut self, row: &mut Row, cause: &Cause) -> Result<(), DrainError> {
        let cause = cause.to_string();
        if row.record.topic == self.topics.dead_letters() {
            if row.record.value.is_none() {
                return Err(DrainError::NoDeadLetters(cause));
            }
            row.replace(refuse::dead_letter_in_short(&self.topics, &row.record, self.clock.now_ms()), None);
            return Ok(());
        }
        let refused = refuse::by_broker(&row.record.topic, &cause);
        self.replace(row, refused)
    }

    fn replace(&mut self, row: &mut Row, refused: Refused) -> Result<(), DrainError> {
        let (class, reason) = (refused.class.as_str(), &refused.reason);
        tracing::error!(topic = row.record.topic, class, reason, "a row goes to the dead letters");
        telemetry::refused(class);
        let letter = refuse::dead_letter(&self.topics, row.record.clone(), &refused, self.clock.now_ms());
        let letter = match self.judge(&letter)? {
            Err(Refused { class: Class::TooLarge, .. }) => {
                refuse::dead_letter_in_short(&self.topics, &letter, self.clock.now_ms())
            }
            Err(refused) => return Err(DrainError::NoDeadLetters(refused.reason)),
            Ok(()) => letter,
        };
        row.replace(letter, None);
        Ok(())
    }

    /// Waits for a topic of ours, however long it is missing: that is not the record's fault. A queue's topic is not
    /// waited for, since its slips can rest.
    fn judge(&mut self, record: &Record) -> Result<Result<(), Refused>, DrainError> {
        let is_of_queue = self.topics.queue_of(&record.topic).is_some();
        let topic_wait = if is_of_queue { Duration::ZERO } else { self.config.topic_wait() };
        loop {
            let check = refuse::check(&self.limits, topic_wait, record);
            let judging = self.stop.run_until_cancelled(check);
            match self.runtime.block_on(judging).ok_or(DrainError::Stopped)? {
                Err(Refused { class: Class::UnknownTopic, reason }) if self.topics.is_fixed(&record.topic) => {
                    self.wait_for(&record.topic, reason);
                }
                judged => return Ok(judged),
            }
            self.sleep(LOOK_INTERVAL)?;
        }
    }
}
