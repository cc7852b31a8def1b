//! Administration, for operators and `migrate`: create topics, commit initial offsets, trim, look up.

mod offsets;
mod pass_over;
mod topics;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use events::topic::Topics;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

pub use self::topics::DeclaredTopic;
use crate::connection::{Connection, OFFSETS_TOPIC, metadata};
use crate::consumer::TopicPartition;
use crate::renewing::{Lookup, Renewing};
use crate::{Error, Settings};

/// The time limit of one request to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The time that a created topic has to be seen by every broker.
const CREATED_TIMEOUT: Duration = Duration::from_secs(60);
/// The time for which a transient refusal is retried.
const PATIENCE: Duration = Duration::from_secs(8);
/// The pause between look-ups.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The broker's own limit where nothing is configured, in bytes.
const MESSAGE_BYTES_MAX_DEFAULT: usize = 1_048_588;

/// Administration of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    settings: Settings,
    client: Arc<Renewing<AdminClient<Connection>>>,
    lookup: Arc<Lookup>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Admin {
    /// Connects in the background; fails only for settings that make no client.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let mut config = settings.client_config(&[]);
        // rust-rdkafka never serves the log of an admin client; lines would pile up.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        let client =
            Renewing::new("admin", move |connection| Ok(AdminClient::from_config_and_context(&config, connection)?))?;
        let lookup = Lookup::connect("lookup", settings, &[("isolation.level", "read_committed")])?;
        Ok(Self { settings: settings.clone(), client: Arc::new(client), lookup: Arc::new(lookup) })
    }

    /// Creates the topics of `deploy/kafka/topics.yaml` that are not there yet, and one steps topic per queue. Returns
    /// the names of those created. `replication` none: 3, or as many brokers as there are.
    pub async fn create_topics(
        &self,
        topics: &Topics,
        queues: &BTreeSet<String>,
        replication: Option<i32>,
    ) -> Result<Vec<String>, Error> {
        let declaration = topics::declaration();
        self.create(&declaration.all(topics, queues), replication).await
    }

    /// Creates the commands topics of these tenants that are not there yet. Returns the names of those created.
    pub async fn create_commands(&self, topics: &Topics, tenants: &[String]) -> Result<Vec<String>, Error> {
        self.create(&topics::declaration().commands(topics, tenants), None).await
    }

    /// Creates the steps topic of a queue if it is not there, and commits the group's initial offsets where it has
    /// none: workers may then subscribe to the queue. True when the topic was created.
    pub async fn ensure_queue(
        &self,
        topics: &Topics,
        queue: &str,
        group: &str,
        replication: Option<i32>,
    ) -> Result<bool, Error> {
        let declaration = topics::declaration();
        let created = self.create(&[declaration.queue(topics, queue)], replication).await?;
        self.commit_offsets_where_new(group, &[topics.steps(queue)], &created).await?;
        Ok(!created.is_empty())
    }

    /// The topics of all queues that are there.
    pub async fn queue_topics(&self, topics: &Topics) -> Result<Vec<String>, Error> {
        let topics = topics.clone();
        self.with_lookup(move |lookup| {
            let there = existing(&metadata(lookup, None, REQUEST_TIMEOUT)?);
            Ok(there.into_iter().filter(|topic| topics.queue_of(topic).is_some()).collect())
        })
        .await
    }

    async fn create(&self, wanted: &[DeclaredTopic], replication: Option<i32>) -> Result<Vec<String>, Error> {
        let (there, brokers) = self
            .with_lookup(|lookup| {
                let metadata = metadata(lookup, None, REQUEST_TIMEOUT)?;
                Ok((existing(&metadata), metadata.brokers().len()))
            })
            .await?;
        let missing: Vec<&DeclaredTopic> = wanted.iter().filter(|topic| !there.contains(&topic.name)).collect();
        let mut created = Vec::new();
        if let Some(in_process) = &self.settings.in_process {
            for topic in missing {
                in_process.create_topic(&topic.name, topic.partitions)?;
                created.push(topic.name.clone());
            }
            return Ok(created);
        }
        if missing.is_empty() {
            return Ok(created);
        }
        let replication = replication.unwrap_or_else(|| i32::try_from(brokers.clamp(1, 3)).unwrap_or(1));
        let new: Vec<NewTopic<'_>> = missing.iter().map(|topic| new_topic(topic, replication)).collect();
        let (began, client) = (Instant::now(), self.client.client());
        let outcome = client.create_topics(&new, &options()).await;
        for result in self.client.heard(began, outcome)? {
            match result {
                Ok(name) => created.push(name),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(refused(&name, code)),
            }
        }
        self.await_topics(wanted).await?;
        Ok(created)
    }

    /// Creation is answered by the controller; the other brokers hear of it a little later.
    async fn await_topics(&self, wanted: &[DeclaredTopic]) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + CREATED_TIMEOUT;
        loop {
            let there = self.with_lookup(|lookup| Ok(existing(&metadata(lookup, None, REQUEST_TIMEOUT)?))).await?;
            match wanted.iter().find(|topic| !there.contains(&topic.name)) {
                None => return Ok(()),
                Some(topic) if tokio::time::Instant::now() >= deadline => {
                    return Err(Error::unavailable(format!("{} was created but is not seen yet", topic.name)));
                }
                Some(_) => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    /// Deletes all topics that start with `prefix` and a dot: for tests and for taking a deployment away.
    pub async fn delete_topics(&self, prefix: &str) -> Result<(), Error> {
        let start = format!("{prefix}.");
        let there = self.with_lookup(|lookup| Ok(existing(&metadata(lookup, None, REQUEST_TIMEOUT)?))).await?;
        let names: Vec<&str> = there.iter().map(String::as_str).filter(|name| name.starts_with(&start)).collect();
        self.delete(&names).await
    }

    /// Deletes one topic with all that it holds: for tests.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        self.delete(&[topic]).await
    }

    async fn delete(&self, topics: &[&str]) -> Result<(), Error> {
        let (began, client) = (Instant::now(), self.client.client());
        let outcome = client.delete_topics(topics, &options()).await;
        for result in self.client.heard(began, outcome)? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((name, code)) => return Err(refused(&name, code)),
            }
        }
        Ok(())
    }

    /// Deletes what stands below the given offsets, for good.
    pub async fn delete_records(&self, below: &[(TopicPartition, i64)]) -> Result<(), Error> {
        if below.is_empty() || self.settings.in_process.is_some() {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(below.len());
        for (place, offset) in below {
            list.add_partition_offset(&place.topic, place.partition, Offset::Offset(*offset))?;
        }
        let (began, client) = (Instant::now(), self.client.client());
        let outcome = client.delete_records(&list, &options()).await;
        let done = self.client.heard(began, outcome)?;
        for element in done.elements() {
            element.error()?;
        }
        Ok(())
    }

    /// The largest record batch that the topic takes, in bytes.
    pub async fn max_message_bytes(&self, topic: &str) -> Result<usize, Error> {
        if self.settings.in_process.is_some() {
            return Ok(MESSAGE_BYTES_MAX_DEFAULT);
        }
        let resource = [ResourceSpecifier::Topic(topic)];
        let (began, client) = (Instant::now(), self.client.client());
        let outcome = client.describe_configs(&resource, &options()).await;
        let mut results = self.client.heard(began, outcome)?;
        let result = results.pop().ok_or_else(|| Error::TopicMissing(topic.to_owned()))?;
        let found = result.map_err(|code| refused(topic, code))?;
        let value = found.get("max.message.bytes").and_then(|entry| entry.value.as_deref()?.parse().ok());
        Ok(value.unwrap_or(MESSAGE_BYTES_MAX_DEFAULT))
    }

    /// The topic's number of partitions; none when it does not exist.
    pub async fn partitions(&self, topic: &str) -> Result<Option<usize>, Error> {
        let topic = topic.to_owned();
        self.with_lookup(move |lookup| partitions(lookup, &topic)).await
    }

    /// True if the topic exists.
    pub async fn topic_exists(&self, topic: &str) -> Result<bool, Error> {
        Ok(self.partitions(topic).await?.is_some())
    }

    /// Succeeds if a broker answers.
    pub async fn reachable(&self, timeout: Duration) -> Result<(), Error> {
        let lookup = Arc::clone(&self.lookup);
        let asked = tokio::task::spawn_blocking(move || {
            lookup.look(|lookup| Ok(metadata(lookup, Some(OFFSETS_TOPIC), timeout).map(drop)?))
        });
        asked.await.unwrap_or_else(|error| Err(Error::refused(error.to_string())))
    }

    /// librdkafka's look-ups block: they run on tokio's blocking threads.
    async fn with_lookup<T: Send + 'static>(
        &self,
        look: impl Fn(&BaseConsumer<Connection>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let lookup = Arc::clone(&self.lookup);
        patiently(move || lookup.look(&look)).await
    }
}

/// Blocking work, tried again while a leader or a coordinator is being found: just after a start or a creation.
async fn patiently<T: Send + 'static>(work: impl Fn() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let deadline = Instant::now() + PATIENCE;
    let tried = tokio::task::spawn_blocking(move || {
        loop {
            match work() {
                Err(error) if error.is_transient() && Instant::now() < deadline => std::thread::sleep(LOOK_INTERVAL),
                outcome => return outcome,
            }
        }
    });
    tried.await.unwrap_or_else(|error| Err(Error::refused(format!("a look-up did not end: {error}"))))
}

fn existing(metadata: &Metadata) -> BTreeSet<String> {
    let there = metadata.topics().iter().filter(|topic| topic.error().is_none());
    there.map(|topic| topic.name().to_owned()).collect()
}

fn partitions(lookup: &BaseConsumer<Connection>, topic: &str) -> Result<Option<usize>, Error> {
    let metadata = match metadata(lookup, Some(topic), REQUEST_TIMEOUT) {
        Ok(metadata) => metadata,
        Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let code = found.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
    if code == Some(RDKafkaErrorCode::TopicAuthorizationFailed) {
        return Err(refused(topic, RDKafkaErrorCode::TopicAuthorizationFailed));
    }
    let found = found.filter(|_| code.is_none());
    Ok(found.map(|topic| topic.partitions().len()).filter(|count| *count > 0))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

fn new_topic(topic: &DeclaredTopic, replication: i32) -> NewTopic<'_> {
    let new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(replication));
    topic.config.iter().fold(new, |new, (name, value)| new.set(name, value))
}

fn refused(name: &str, code: RDKafkaErrorCode) -> Error {
    match code {
        RDKafkaErrorCode::UnknownTopicOrPartition => Error::TopicMissing(name.to_owned()),
        code if crate::error::is_unavailable(code) => Error::unavailable(format!("{name}: {code}")),
        code => Error::refused(format!("{name}: {code}")),
    }
}

pub(crate) use self::offsets::{ends_when_there, until_decided};
pub use self::pass_over::UnreadableBatch;
