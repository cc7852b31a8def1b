//! The consumer's thread: drains records that have arrived, lets the handler tick, sleeps until more come.

mod discover;
mod find_stopped;
mod find_unreadable;
mod renew;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::client;
use super::rebalance::{Callbacks, offset_of};
use super::{Command, Commands, ConsumerError, ConsumerOptions, Control, Scope, Start, TopicPartition};
use crate::Inbound;
use crate::connection::metadata;
use crate::in_process::UncommittedReader;

/// Records delivered before the handler may tick again.
const BURST_RECORDS_MAX: usize = 500;
/// The time limit of one metadata or watermark request.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between looks for a broker that was gone.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct Poller {
    consumer: Arc<BaseConsumer<Callbacks>>,
    /// Makes another client like it.
    config: ClientConfig,
    options: ConsumerOptions,
    control: Control,
    scope: Scope,
    /// All partitions are ours, without a group.
    whole: bool,
    /// Tells the in-process broker what was delivered: that needs no room there.
    reader: Option<UncommittedReader>,
    commands: Commands,
    looked_at: Option<Instant>,
    /// Every topic was there at the last look.
    complete: bool,
    is_missing_reported: bool,
    is_down_reported: bool,
    /// A stopped partition was not found yet: when to look again, and the reason that librdkafka gave.
    look_again: Option<(Instant, String)>,
}

impl Poller {
    pub(super) fn new(
        consumer: Arc<BaseConsumer<Callbacks>>,
        config: ClientConfig,
        options: ConsumerOptions,
        control: Control,
        scope: Scope,
        reader: Option<UncommittedReader>,
    ) -> Self {
        Self {
            consumer,
            config,
            options,
            control,
            scope,
            whole: reader.is_some() || scope != Scope::Group,
            reader,
            commands: Commands::default(),
            looked_at: None,
            complete: false,
            is_missing_reported: false,
            is_down_reported: false,
            look_again: None,
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
            self.renew_if_deaf();
            self.look_again();
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
        {
            let mut state = self.callbacks().lock();
            let only_topic = state.owned.is_one_topic();
            if state.kept.is_full(only_topic, Instant::now()) {
                return false;
            }
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
        if state.stopped.is_unreadable(message.topic(), message.partition()) {
            return;
        }
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

    /// Delivers the kept records of partitions that are paused no more.
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
            let only_topic = state.owned.is_one_topic();
            (state.kept.take_to_stop(only_topic, Instant::now()), state.kept.take_to_fetch())
        };
        if !to_stop.is_empty() {
            self.check(self.consumer.pause(&self.owned_list(&to_stop)), "pause");
        }
        if !to_fetch.is_empty() {
            let readable =
                |place: &&TopicPartition| !self.callbacks().lock().stopped.is_unreadable(&place.topic, place.partition);
            let to_fetch: Vec<TopicPartition> = to_fetch.iter().filter(readable).cloned().collect();
            self.check(self.consumer.resume(&self.owned_list(&to_fetch)), "resume");
        }
    }

    fn tick(&mut self) {
        let callbacks = Arc::clone(self.callbacks());
        // First what is left from before: the handler may want another place by now.
        let due = std::mem::take(&mut callbacks.lock().seeks_due);
        for (place, start) in due {
            self.seek(place, start);
        }
        callbacks.lock().handler.tick(&mut self.commands);
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
            self.report(ConsumerError::Other(format!("{what}: {error}").into()));
        }
    }

    fn owned_list(&self, partitions: &[TopicPartition]) -> TopicPartitionList {
        let state = self.callbacks().lock();
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for place in partitions {
            if state.owned.contains(place) && !state.unread.contains(place) {
                list.add_partition(&place.topic, place.partition);
            }
        }
        list
    }

    fn seek(&mut self, place: TopicPartition, start: Start) {
        let Some((offset, next)) = offset_of(start) else { return };
        if self.owned_list(std::slice::from_ref(&place)).count() == 0 {
            return;
        }
        match self.consumer.seek(&place.topic, place.partition, offset, LOOKUP_TIMEOUT) {
            Ok(()) => {
                let callbacks = Arc::clone(self.callbacks());
                if callbacks.lock().stopped.try_again(&place) {
                    self.check(self.consumer.resume(&self.owned_list(std::slice::from_ref(&place))), "resume");
                }
                let mut state = callbacks.lock();
                state.kept.drop_records(&place);
                if state.owned.contains(&place) {
                    state.owned.insert(&place, next);
                    state.seeks_due.remove(&place);
                    state.handler.sought(&place);
                }
                if let Some(reader) = &self.reader {
                    reader.moved(&place, next.unwrap_or(0));
                }
            }
            Err(error) => {
                tracing::debug!(%place, %error, "seek was refused; trying again");
                self.callbacks().lock().seeks_due.insert(place, start);
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
            self.report(ConsumerError::Fatal(format!("subscribe: {error}").into()));
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
            ) => {
                self.callbacks().lock().stopped.unexplained += 1;
                self.find_out_of_range(&reason);
            }
            (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {
                self.report(ConsumerError::TopicMissing(self.callbacks().connection.last_reason()));
            }
            (_, Some(code)) if crate::unreadable::is_unreadable(code) => self.find_unreadable(&reason),
            // Told by the connection.
            (_, Some(code)) if crate::error::is_unavailable(code) || crate::connection::is_refusal(code) => {}
            (_, Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed)) => {
                self.report(ConsumerError::NoRight(reason.into()));
            }
            (KafkaError::MessageConsumptionFatal(_), _) => {
                self.report(ConsumerError::Fatal(reason.into()));
                self.callbacks().lock().failed = true;
            }
            _ => self.report(ConsumerError::Other(reason.into())),
        }
    }

    /// Reports once that Kafka is away, then looks for it: an idle topic would not show that it is back.
    fn check_connection(&mut self) {
        let down = self.callbacks().connection.is_down();
        *self.control.down.lock() = down.then(|| self.callbacks().connection.last_reason());
        if !down {
            self.is_down_reported = false;
            return;
        }
        if !self.is_down_reported {
            self.is_down_reported = true;
            self.looked_at = Some(Instant::now());
            self.report(ConsumerError::Unavailable(self.callbacks().connection.last_reason().into()));
        } else if self.looked_at.is_none_or(|at| at.elapsed() >= RECONNECT_INTERVAL) {
            self.looked_at = Some(Instant::now());
            let topic = self.options.topics.first().map(String::as_str);
            if metadata(&self.consumer, topic, Duration::from_millis(500)).is_ok() {
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
        client::close(self.consumer);
    }
}

pub(crate) fn inbound(message: &BorrowedMessage<'_>) -> Inbound {
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key, header.value)).collect())
        .unwrap_or_default();
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
