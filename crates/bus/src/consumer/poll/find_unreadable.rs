//! Finds the partition whose next batch cannot be read: rdkafka does not name it.

use rdkafka::consumer::Consumer as _;

use super::{LOOKUP_TIMEOUT, Poller};
use crate::Error;
use crate::consumer::{ConsumerError, TopicPartition};
use crate::unreadable::{Looker, Sight};

impl Poller {
    /// Stops and reports each partition whose next batch cannot be read. Nothing is polled before that: what comes next
    /// may be from behind such a batch. If none is found that may have been so, the consumer ends, and another one
    /// begins at the offsets that are known to be done.
    pub(super) fn find_unreadable(&mut self, reason: &str) {
        match self.stop_unreadable() {
            Ok(true) => {}
            Ok(false) => self.fail(format!("a batch of an unknown partition cannot be read: {reason}")),
            Err(error) => self.fail(format!("a batch cannot be read ({reason}), and not be found: {error}")),
        }
    }

    fn fail(&self, reason: String) {
        self.report(ConsumerError::Fatal(reason.into()));
        self.callbacks().lock().failed = true;
    }

    /// True if there was any.
    fn stop_unreadable(&mut self) -> Result<bool, Error> {
        let owned = self.callbacks().lock().owned.clone();
        let looker = Looker::new(&self.config)?;
        let mut found = false;
        for (place, next) in owned.iter() {
            if self.callbacks().lock().unread.contains(&place) {
                continue;
            }
            let offset = match next {
                Some(offset) => offset,
                None => self.consumer.fetch_watermarks(&place.topic, place.partition, LOOKUP_TIMEOUT)?.0,
            };
            let Sight::Unreadable(reason) = looker.look(&place, offset)? else { continue };
            found = true;
            // Paused again where it was found before: another client may have taken the place of the one before.
            self.check(self.consumer.pause(&self.owned_list(std::slice::from_ref(&place))), "pause");
            if self.callbacks().lock().stopped.insert_unreadable(&place) {
                let TopicPartition { topic, partition } = place;
                self.report(ConsumerError::Unreadable { topic, partition, offset, reason });
            }
        }
        Ok(found)
    }
}
