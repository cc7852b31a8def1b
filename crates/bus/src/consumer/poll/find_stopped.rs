//! Finds the partition whose offset is not in the log: librdkafka stops reading it, and rdkafka does not name it.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;

use super::{LOOKUP_TIMEOUT, Poller, RECONNECT_INTERVAL};
use crate::consumer::{ConsumerError, TopicPartition};

/// The time limit of one look at all partitions: nothing is polled meanwhile.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

impl Poller {
    /// Reports each partition whose next offset its log does not have.
    pub(super) fn find_out_of_range(&mut self, reason: &str) {
        self.look_again = None;
        let owned = self.callbacks().lock().owned.clone();
        let mut all_answered = true;
        let deadline = Instant::now() + LOOK_TIMEOUT;
        for (place, next) in owned.iter() {
            let Some(offset) = next else { continue };
            if Instant::now() >= deadline {
                all_answered = false;
                break;
            }
            let marks = self.consumer.fetch_watermarks(&place.topic, place.partition, LOOKUP_TIMEOUT);
            let Ok((log_start, log_end)) = marks else {
                all_answered = false;
                continue;
            };
            let outside = offset < log_start || offset > log_end;
            if outside && self.callbacks().lock().stopped.insert(&place) {
                let TopicPartition { topic, partition } = place;
                self.report(ConsumerError::OffsetOutOfRange { topic, partition, offset, log_start, log_end });
            }
        }
        if self.callbacks().lock().stopped.unexplained <= 0 {
            return;
        }
        if all_answered {
            self.report(ConsumerError::Fatal(reason.into()));
            self.callbacks().lock().failed = true;
        } else {
            self.look_again = Some((Instant::now() + RECONNECT_INTERVAL, reason.to_owned()));
        }
    }

    /// Looks again for a stopped partition, where not every partition's leader could be asked.
    pub(super) fn look_again(&mut self) {
        if let Some((_, reason)) = self.look_again.take_if(|(at, _)| Instant::now() >= *at) {
            self.find_out_of_range(&reason);
        }
    }
}
