//! A consumer's membership of its group. Transactions carry it with the offsets, so that the broker can refuse them to
//! a consumer that is no longer a member.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};

use super::rebalance::Callbacks;

/// The group's generation and our membership.
pub enum GroupMetadata {
    /// The membership that the group's coordinator gave.
    Kafka(Arc<ConsumerGroupMetadata>),
    /// No group: the in-process broker has none, and offsets are kept in this process.
    InProcess {
        /// The group's name.
        group: String,
    },
}

impl std::fmt::Debug for GroupMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kafka(_) => f.write_str("GroupMetadata::Kafka"),
            Self::InProcess { group } => write!(f, "GroupMetadata::InProcess({group})"),
        }
    }
}

/// Answers what the membership is now, from any thread. Does not keep the consumer alive.
#[derive(Clone)]
pub(super) enum Membership {
    InProcess(String),
    Kafka(Arc<Mutex<Source>>),
}

/// The source of the membership.
#[derive(Default)]
pub(super) struct Source {
    consumer: Weak<BaseConsumer<Callbacks>>,
    /// The membership at the time when the consumer began to close: from then on only its own thread may use it.
    last: Option<Arc<ConsumerGroupMetadata>>,
}

impl Default for Membership {
    fn default() -> Self {
        Self::Kafka(Arc::default())
    }
}

impl Membership {
    pub(super) fn in_process(group: &str) -> Self {
        Self::InProcess(group.to_owned())
    }

    pub(super) fn begin(&self, consumer: &Arc<BaseConsumer<Callbacks>>) {
        if let Self::Kafka(source) = self {
            source.lock().consumer = Arc::downgrade(consumer);
        }
    }

    pub(super) fn now(&self) -> Option<GroupMetadata> {
        match self {
            Self::InProcess(group) => Some(GroupMetadata::InProcess { group: group.clone() }),
            Self::Kafka(source) => {
                let (consumer, last) = {
                    let source = source.lock();
                    (source.consumer.upgrade(), source.last.clone())
                };
                let now = consumer.and_then(|consumer| consumer.group_metadata()).map(Arc::new);
                now.or(last).map(GroupMetadata::Kafka)
            }
        }
    }

    /// Keeps the present membership as the answer of `now`: a transaction may still be committed while we leave.
    pub(super) fn end(&self, consumer: &BaseConsumer<Callbacks>) {
        if let Self::Kafka(source) = self {
            let last = consumer.group_metadata().map(Arc::new);
            *source.lock() = Source { consumer: Weak::new(), last };
        }
    }
}
