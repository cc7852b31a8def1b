//! The consumer's thread: drain what has arrived, let the handler tick, sleep until something comes.

mod discover;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::rebalance::{Callbacks, offset_of};
use super::{Command, Commands, ConsumerError, ConsumerOptions, Control, Scope, Start, TopicPartition};
use crate::Inbound;
use crate::in_process::UncommittedReader;

/// Records delivered before the handler may tick again.
const BURST_RECORDS_MAX: usize = 500;
/// One metadata or watermark request.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// Between looks for a broker that was gone.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct Poller {
    consumer: Arc<BaseConsumer<Callbacks>>,
    options: ConsumerOptions,
    control: Control,
    scope: Scope,
    /// All partitions are ours, without a group.
    whole: bool,
    /// Tells the in-process broker what was delivered: that needs no room there.
    reader: Option<UncommittedReader>,
    commands: Commands,
    /// Seeks that the client refused because it had not started the partition yet.
    seeks_due: Vec<(TopicPartition, Start)>,
    looked_at: Option<Instant>,
    /// Every topic was there at the last look.
    complete: bool,
    is_missing_reported: bool,
    is_down_reported: bool,
}

impl Poller {
    pub(super) fn new(
        consumer: Arc<BaseConsumer<Callbacks>>,
        options: ConsumerOptions,
        control: Control,
        scope: Scope,
        reader: Option<UncommittedReader>,
    ) -> Self {
        Self {
            consumer,
            options,
            control,
            scope,
            whole: reader.is_some() || scope != Scope::Group,
            reader,
            commands: Commands::default(),
            seeks_due: Vec::new(),
            looked_at: None,
            complete: false,
            is_missing_reported: false,
            is_down_reported: false,
        }
    }

    pub(super) fn run(mut self) {
        self.subscribe();
        while !self.control.stop.load(Ordering::Relaxed) && !self.callbacks().lock().failed {
            if self.whole {
                self.discover();
            }
            let more = self.drain();
            self.check_connection();
            self.tick();
            self.fetch_or_stop();
            if !more && !self.callbacks().lock().kept.has_next() {
                self.control.wake.wait(self.options.tick_interval);
            }
        }
        self.leave();
    }

    fn callbacks(&self) -> &Arc<Callbacks> {
        self.consumer.context()
    }

    fn report(&self, error: ConsumerError) {
        self.callbacks().lock().handler.error(error);
    }

    /// True when there may be more to drain.
    fn drain(&mut self) -> bool {
        self.hand_out_kept();
        if self.callbacks().lock().kept.is_full(Instant::now()) {
            return false;
        }
        let consumer = Arc::clone(&self.consumer);
        for _ in 0..BURST_RECORDS_MAX {
            match consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => self.deliver(&message),
                Some(Err(error)) => self.failure(&error),
                // rdkafka says None also when the event was a callback: only a second look tells.
                None if self.callbacks().take_served() => {}
                None => return false,
            }
            if self.control.stop.load(Ordering::Relaxed) {
                return false;
            }
        }
        true
    }

    fn deliver(&mut self, message: &BorrowedMessage<'_>) {
        self.callbacks().connection.alive();
        let callbacks = Arc::clone(self.callbacks());
        let mut state = callbacks.lock();
        if !state.owned.advance(message.topic(), message.partition(), message.offset()) {
            return;
        }
        if let Some(reader) = &self.reader {
            reader.moved(&TopicPartition::new(message.topic(), message.partition()), message.offset() + 1);
        }
        if let Some(record) = state.kept.keep(inbound(message)) {
            state.handler.record(record, &mut self.commands);
            drop(state);
            self.obey();
        }
    }

    /// Delivers what was kept of partitions that are paused no more.
    fn hand_out_kept(&mut self) {
        let callbacks = Arc::clone(self.callbacks());
        for _ in 0..BURST_RECORDS_MAX {
            let mut state = callbacks.lock();
            let Some(record) = state.kept.next() else { return };
            state.handler.record(record, &mut self.commands);
            drop(state);
            self.obey();
        }
    }

    fn fetch_or_stop(&mut self) {
        let (to_stop, to_fetch) = {
            let mut state = self.callbacks().lock();
            (state.kept.take_to_stop(Instant::now()), state.kept.take_to_fetch())
        };
        if !to_stop.is_empty() {
            self.check(self.consumer.pause(&self.owned_list(&to_stop)), "pause");
        }
        if !to_fetch.is_empty() {
            self.check(self.consumer.resume(&self.owned_list(&to_fetch)), "resume");
        }
    }

    fn tick(&mut self) {
        let callbacks = Arc::clone(self.callbacks());
        callbacks.lock().handler.tick(&mut self.commands);
        for (place, start) in std::mem::take(&mut self.seeks_due) {
            self.seek(place, start);
        }
        self.obey();
    }

    fn obey(&mut self) {
        for command in std::mem::take(&mut self.commands.queue) {
            match command {
                Command::Pause(mut partitions) => {
                    let mut state = self.callbacks().lock();
                    partitions.retain(|place| state.owned.contains(place));
                    state.kept.pause(partitions);
                }
                Command::Resume(partitions) => self.callbacks().lock().kept.resume(&partitions),
                Command::Seek(place, start) => self.seek(place, start),
                Command::Subscribe(topics) => {
                    if topics != self.options.topics {
                        self.options.topics = topics;
                        self.subscribe();
                    }
                }
                Command::AskForEnds => self.ask_for_ends(),
            }
        }
    }

    fn check(&self, result: Result<(), KafkaError>, what: &str) {
        if let Err(error) = result {
            self.report(ConsumerError::Other(format!("{what}: {error}")));
        }
    }

    fn owned_list(&self, partitions: &[TopicPartition]) -> TopicPartitionList {
        let state = self.callbacks().lock();
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for place in partitions {
            if state.owned.contains(place) {
                list.add_partition(&place.topic, place.partition);
            }
        }
        list
    }

    fn seek(&mut self, place: TopicPartition, start: Start) {
        let (offset, next) = offset_of(start);
        if self.owned_list(std::slice::from_ref(&place)).count() == 0 {
            return;
        }
        match self.consumer.seek(&place.topic, place.partition, offset, LOOKUP_TIMEOUT) {
            Ok(()) => {
                let callbacks = Arc::clone(self.callbacks());
                let mut state = callbacks.lock();
                state.kept.drop_records(&place);
                if state.owned.contains(&place) {
                    state.owned.insert(&place, next);
                }
                if let Some(reader) = &self.reader {
                    reader.moved(&place, next.unwrap_or(0));
                }
            }
            Err(error) => {
                tracing::debug!(%place, %error, "seek was refused; trying again");
                self.seeks_due.push((place, start));
            }
        }
    }

    /// A seek to where we are makes the client report the end anew.
    fn ask_for_ends(&mut self) {
        let owned = self.callbacks().lock().owned.clone();
        for (place, next) in owned.iter() {
            self.seek(place, next.map_or(Start::Beginning, Start::Offset));
        }
    }

    fn subscribe(&mut self) {
        if self.whole {
            self.looked_at = None;
            let gone: Vec<TopicPartition> = {
                let owned = self.callbacks().lock().owned.places();
                owned.into_iter().filter(|place| !self.options.topics.contains(&place.topic)).collect()
            };
            if !gone.is_empty() {
                let list = self.owned_list(&gone);
                self.callbacks().give_back(&gone, false);
                self.check(self.consumer.incremental_unassign(&list), "unassign");
            }
            return;
        }
        let topics: Vec<&str> = self.options.topics.iter().map(String::as_str).collect();
        if topics.is_empty() {
            self.consumer.unsubscribe();
        } else if let Err(error) = self.consumer.subscribe(&topics) {
            self.report(ConsumerError::Fatal(format!("subscribe: {error}")));
            self.callbacks().lock().failed = true;
        }
    }

    fn failure(&mut self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        let reason = format!("{error}: {}", self.callbacks().connection.last_reason());
        match (error, code) {
            (KafkaError::PartitionEOF(partition), _) => {
                self.callbacks().connection.alive();
                // rdkafka does not say which topic; only readers of one topic ask for ends.
                if let Some(topic) = self.options.topics.first() {
                    self.callbacks().lock().handler.end(TopicPartition::new(topic, *partition));
                }
            }
            (
                _,
                Some(
                    RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::OffsetOutOfRange
                    | RDKafkaErrorCode::NoOffset
                    | RDKafkaErrorCode::LogTruncation,
                ),
            ) => self.find_out_of_range(&reason),
            (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {
                self.report(ConsumerError::TopicMissing(self.callbacks().connection.last_reason()));
            }
            (_, Some(code)) if crate::error::is_unavailable(code) => {}
            (KafkaError::MessageConsumptionFatal(_), _) => {
                self.report(ConsumerError::Fatal(reason));
                self.callbacks().lock().failed = true;
            }
            _ => self.report(ConsumerError::Other(reason)),
        }
    }

    /// rdkafka does not say which partition it is about: the one whose next offset the log does not have.
    fn find_out_of_range(&mut self, reason: &str) {
        let owned = self.callbacks().lock().owned.clone();
        let mut found = false;
        for (TopicPartition { topic, partition }, next) in owned.iter() {
            let Some(offset) = next else { continue };
            let marks = self.consumer.fetch_watermarks(&topic, partition, LOOKUP_TIMEOUT);
            let Ok((log_start, log_end)) = marks else { continue };
            if offset < log_start || offset > log_end {
                found = true;
                self.report(ConsumerError::OffsetOutOfRange { topic, partition, offset, log_start, log_end });
            }
        }
        if !found {
            self.report(ConsumerError::Fatal(reason.to_owned()));
            self.callbacks().lock().failed = true;
        }
    }

    /// Reports once that Kafka is away, then looks for it: an idle topic would not show that it is back.
    fn check_connection(&mut self) {
        let down = self.callbacks().connection.is_down();
        self.control.down.store(down, Ordering::Relaxed);
        if !down {
            self.is_down_reported = false;
            return;
        }
        if !self.is_down_reported {
            self.is_down_reported = true;
            self.looked_at = Some(Instant::now());
            self.report(ConsumerError::Unavailable(self.callbacks().connection.last_reason()));
        } else if self.looked_at.is_none_or(|at| at.elapsed() >= RECONNECT_INTERVAL) {
            self.looked_at = Some(Instant::now());
            let topic = self.options.topics.first().map(String::as_str);
            if self.consumer.fetch_metadata(topic, Duration::from_millis(500)).is_ok() {
                self.callbacks().connection.alive();
            }
        }
    }

    /// Gives everything back and leaves the group. `revoked` is called while the membership is still good, so that the
    /// handler can commit a last time.
    fn leave(self) {
        if self.whole {
            let owned = self.callbacks().lock().owned.places();
            self.callbacks().give_back(&owned, false);
        }
        self.control.membership.end(&self.consumer);
        // Others may hold the consumer for a moment (`group_metadata`); the last to let go closes it, here. Closing
        // is what revokes: librdkafka forgets to leave when an unsubscribe is still under way while it closes.
        let mut consumer = self.consumer;
        loop {
            match Arc::try_unwrap(consumer) {
                Ok(alone) => return drop(alone),
                Err(shared) => consumer = shared,
            }
            std::thread::yield_now();
        }
    }
}

fn inbound(message: &BorrowedMessage<'_>) -> Inbound {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Inbound {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}
