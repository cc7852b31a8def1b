//! Another client takes the place of one that has heard nothing for long: see `Connection::is_silent_for`.

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Poller;
use crate::connection::DEAF_AFTER;
use crate::consumer::stopped::Stopped;
use crate::consumer::{ConsumerError, Scope, client};

impl Poller {
    /// Goes on with another client from the present positions. Where a group divides the partitions, they are lost by
    /// then: the time of the session is over.
    pub(super) fn renew_if_deaf(&mut self) {
        let patience = match self.scope {
            Scope::Group => DEAF_AFTER.max(self.options.session_timeout),
            Scope::Whole | Scope::WholeWithEnds => DEAF_AFTER,
        };
        if !self.callbacks().connection.is_silent_for(patience) {
            return;
        }
        self.callbacks().connection.begin_anew();
        if let Err(error) = self.renew() {
            self.report(ConsumerError::Fatal(format!("no other client: {error}").into()));
            self.callbacks().lock().failed = true;
        }
    }

    fn renew(&mut self) -> KafkaResult<()> {
        if !self.whole {
            let owned = self.callbacks().lock().owned.places();
            self.callbacks().give_back(&owned, true);
        }
        let next = client::make(&self.config, self.callbacks().retire(), &self.control)?;
        client::close(std::mem::replace(&mut self.consumer, next));
        if !self.whole {
            self.subscribe();
            return Ok(());
        }
        let list = {
            let mut state = self.callbacks().lock();
            state.stopped = Stopped::default();
            state.kept.fetch_all();
            let mut list = TopicPartitionList::new();
            for (place, next) in state.owned.iter().filter(|(place, _)| !state.unread.contains(place)) {
                let offset = next.map_or(Offset::Beginning, Offset::Offset);
                list.add_partition_offset(&place.topic, place.partition, offset)?;
            }
            list
        };
        self.consumer.incremental_assign(&list)
    }
}
