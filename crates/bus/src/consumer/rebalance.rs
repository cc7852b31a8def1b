//! librdkafka's callbacks while polling: assignments come and go here, with start offsets of our choice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::kept::Kept;
use super::owned::Owned;
use super::stopped::Stopped;
use super::{AssignedPartition, ConsumerError, Control, Handler, Start, TopicPartition};
use crate::connection::{self, Connection};
use crate::in_process::InProcess;

/// One attempt to read committed offsets; a pending transaction makes it run out.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(2);

/// The client's context: the handler, and the partitions that are ours.
pub(super) struct Callbacks {
    /// Outlives the client: another one that takes its place goes on with it.
    state: Arc<Mutex<State>>,
    group: String,
    /// Keeps the committed offsets where it is the broker.
    in_process: Option<Arc<InProcess>>,
    pub(super) connection: Connection,
    /// Set by every callback: an empty poll may have served one instead of finding nothing.
    served: AtomicBool,
    /// Another client has taken the place of this one, whose partitions concern nobody any more.
    retired: AtomicBool,
    control: Control,
}

pub(super) struct State {
    pub(super) handler: Box<dyn Handler>,
    pub(super) owned: Owned,
    /// Records that came for paused partitions.
    pub(super) kept: Kept,
    /// Partitions of ours that the handler wants unread: librdkafka does not know of them.
    pub(super) unread: HashSet<TopicPartition>,
    pub(super) stopped: Stopped,
    /// Seeks that the client refused because it had not started the partition yet.
    pub(super) seeks_due: HashMap<TopicPartition, Start>,
    /// The consumer has to end.
    pub(super) failed: bool,
}

impl State {
    fn forget(&mut self, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        let mut gone = Vec::with_capacity(partitions.len());
        for place in partitions {
            self.kept.forget(place);
            self.unread.remove(place);
            self.stopped.forget(place);
            self.seeks_due.remove(place);
            if self.owned.remove(place) {
                gone.push(place.clone());
            }
        }
        gone
    }
}

impl Callbacks {
    pub(super) fn new(
        handler: Box<dyn Handler>,
        group: String,
        in_process: Option<Arc<InProcess>>,
        control: Control,
    ) -> Self {
        let state = State {
            handler,
            owned: Owned::default(),
            kept: Kept::default(),
            unread: HashSet::new(),
            stopped: Stopped::default(),
            seeks_due: HashMap::new(),
            failed: false,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            group,
            in_process,
            connection: Connection::new("consumer"),
            served: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            control,
        }
    }

    /// The context of a client that takes the place of this one.
    pub(super) fn retire(&self) -> Self {
        self.retired.store(true, Ordering::Relaxed);
        Self {
            state: Arc::clone(&self.state),
            group: self.group.clone(),
            in_process: self.in_process.clone(),
            connection: self.connection.clone(),
            served: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            control: self.control.clone(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn take_served(&self) -> bool {
        self.served.swap(false, Ordering::Relaxed)
    }

    fn stopping(&self) -> bool {
        self.control.stop.load(Ordering::Relaxed)
    }

    /// Asks the handler where to start, and takes the partitions. `None`: they were refused, and the consumer ends.
    pub(super) fn take(&self, assigned: &[AssignedPartition]) -> Option<TopicPartitionList> {
        let mut state = self.lock();
        let starts = match state.handler.assigned(assigned) {
            Ok(starts) if starts.len() == assigned.len() => starts,
            other => {
                let cause = other.err().unwrap_or_else(|| anyhow::anyhow!("not one start offset per partition"));
                state.failed = true;
                state.handler.error(ConsumerError::Refused(cause));
                return None;
            }
        };
        let mut list = TopicPartitionList::with_capacity(assigned.len());
        for (partition, start) in assigned.iter().zip(starts) {
            let place = partition.place();
            let Some((offset, next)) = offset_of(start) else {
                state.owned.insert(&place, None);
                state.unread.insert(place);
                continue;
            };
            if let Err(error) = list.add_partition_offset(&partition.topic, partition.partition, offset) {
                state.failed = true;
                state.handler.error(ConsumerError::Fatal(format!("bad start offset {start:?}: {error}").into()));
                return None;
            }
            state.owned.insert(&place, next);
        }
        Some(list)
    }

    /// Tells the handler that these are no longer ours.
    pub(super) fn give_back(&self, partitions: &[TopicPartition], lost: bool) {
        let mut state = self.lock();
        let gone = state.forget(partitions);
        if !gone.is_empty() {
            state.handler.revoked(&gone, lost);
        }
    }

    /// The group's committed offsets and metadata. Asks until there is an answer; none when stopping.
    pub(super) fn committed(
        &self,
        consumer: &BaseConsumer<Self>,
        places: &[TopicPartition],
    ) -> Option<Vec<AssignedPartition>> {
        if let Some(in_process) = &self.in_process {
            return Some(places.iter().map(|place| self.committed_in_process(in_process, place)).collect());
        }
        if places.is_empty() {
            return Some(Vec::new());
        }
        while !self.stopping() {
            let mut list = TopicPartitionList::with_capacity(places.len());
            for place in places {
                list.add_partition(&place.topic, place.partition);
            }
            match consumer.committed_offsets(list, COMMITTED_TIMEOUT).and_then(|list| read(&list)) {
                Ok(assigned) => return Some(assigned),
                Err(error) => {
                    tracing::info!(group = self.group, %error, "committed offsets are not available yet; retrying");
                    // An answer may come at once ("coordinator loading"); do not spin on it.
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
        None
    }

    fn committed_in_process(&self, in_process: &InProcess, place: &TopicPartition) -> AssignedPartition {
        let found = in_process.committed(&self.group, place);
        let (committed, metadata) = found.map_or((None, String::new()), |(offset, text)| (Some(offset), text));
        AssignedPartition { topic: place.topic.clone(), partition: place.partition, committed, metadata }
    }

    fn on_assign(&self, consumer: &BaseConsumer<Self>, places: &[TopicPartition]) {
        let taken = self.committed(consumer, places).and_then(|assigned| self.take(&assigned));
        // librdkafka waits for this call, also when there is nothing to take.
        let list = taken.unwrap_or_default();
        // librdkafka keeps a pause of the application over a revocation and an assignment; we forget ours.
        let assigned = consumer.incremental_assign(&list).and_then(|()| consumer.resume(&list));
        if let Err(error) = assigned {
            let mut state = self.lock();
            state.failed = true;
            state.handler.error(ConsumerError::Fatal(format!("assignment failed: {error}").into()));
        }
    }
}

/// The raw start, and the next offset to be delivered if it is known. None: the partition is not to be read.
pub(super) fn offset_of(start: Start) -> Option<(Offset, Option<i64>)> {
    match start {
        Start::Offset(offset) => Some((Offset::Offset(offset), Some(offset))),
        Start::Beginning => Some((Offset::Beginning, None)),
        Start::End => Some((Offset::End, None)),
        Start::Unread => None,
    }
}

fn read(list: &TopicPartitionList) -> KafkaResult<Vec<AssignedPartition>> {
    let mut assigned = Vec::with_capacity(list.count());
    for element in list.elements() {
        element.error()?;
        let committed = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        assigned.push(AssignedPartition {
            topic: element.topic().to_owned(),
            partition: element.partition(),
            committed,
            metadata: element.metadata().to_owned(),
        });
    }
    Ok(assigned)
}

/// Those of these partitions that are assigned. The group's view holds others too: those that we left unread or
/// refused. One such partition, and librdkafka takes no call that gives partitions back.
fn among(places: &[TopicPartition], assigned: &TopicPartitionList) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for place in places.iter().filter(|place| assigned.find_partition(&place.topic, place.partition).is_some()) {
        list.add_partition(&place.topic, place.partition);
    }
    list
}

fn places(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|element| TopicPartition::new(element.topic(), element.partition())).collect()
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.served.store(true, Ordering::Relaxed);
        connection::log(level, facility, message);
    }

    fn stats_raw(&self, _statistics: &[u8]) {
        self.served.store(true, Ordering::Relaxed);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.connection.report(&error, reason);
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.served.store(true, Ordering::Relaxed);
        let places = places(list);
        match error {
            _ if self.retired.load(Ordering::Relaxed) => {
                if let Err(error) = consumer.unassign() {
                    tracing::debug!(%error, "a client that was replaced could not give its partitions back");
                }
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.on_assign(consumer, &places),
            _ => {
                self.give_back(&places, consumer.assignment_lost());
                let given_back =
                    consumer.assignment().and_then(|all| consumer.incremental_unassign(&among(&places, &all)));
                // It waits for this call as long as the client lives, so there has to be another client.
                if let Err(error) = given_back {
                    let mut state = self.lock();
                    state.failed = true;
                    state
                        .handler
                        .error(ConsumerError::Fatal(format!("partitions were not given back: {error}").into()));
                }
            }
        }
    }

    fn commit_callback(&self, _result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        self.served.store(true, Ordering::Relaxed);
    }
}
