//! The servers as one service finds them in its own tests: a migrated database, topics, schemas, and a look into the
//! outbox (no relay runs there).

use std::collections::BTreeSet;

use bus::{Producer, Reader, Registry, Settings};
use events::topic::Topics;
use events::trace::{Trace, TraceContext, TraceId};
use events::{Record, WriterIds, event_record};
use flow::definition::Definition;
use flow::event::JobEvent;
use setup::Target;
use store::{Pool, Role};

use crate::postgres::psql;
use crate::{kafka, postgres_database, prefix, registry, topics};

/// The trace of what a test itself produces.
pub const TEST_TRACE: Trace = Trace::new(TraceContext { trace_id: TraceId::new(0xabc), span_id: 0xdef, flags: 1 });

/// Migrated, topics created, schemas registered; no process of ours runs.
pub struct Ground {
    /// Kafka and the registry.
    pub bus: Settings,
    /// Topics of this test's own.
    pub topics: Topics,
    /// The database, as its superuser.
    pub database_url: String,
    /// The schemas' ids, for writing records.
    pub writers: WriterIds,
    /// Reads our records.
    pub reader: Reader,
    /// Sends the test's own records.
    pub producer: Producer,
    target: Target,
}

impl Drop for Ground {
    fn drop(&mut self) {
        topics::forget(&self.bus, self.topics.prefix());
    }
}

impl Ground {
    /// On the shared servers.
    ///
    /// # Panics
    /// When a server does not start, or refuses.
    pub async fn new() -> Self {
        Self::on(&kafka().await, &registry().await, &postgres_database().await).await
    }

    /// On these servers: private ones, which may be killed.
    ///
    /// # Panics
    /// When a server refuses.
    pub async fn on(brokers: &str, registry_url: &str, database_url: &str) -> Self {
        let (bus, topics) = (topics::settings(brokers, registry_url), Topics::new(prefix()));
        let target = Target { bus: bus.clone(), topics: topics.clone(), database_url: database_url.to_owned() };
        target.create_tables().await.expect("a fresh database is migrated");
        target.create_topics().await.expect("topics are created");
        target.register_subjects(&BTreeSet::new()).await.expect("schemas are registered");
        let reader = Reader::new(Registry::new(registry_url, None).expect("the registry's URL"));
        let writers = reader.writer_ids(&topics).await.expect("schemas have ids");
        let producer = Producer::new(&bus).expect("settings for Kafka");
        Self { bus, topics, database_url: database_url.to_owned(), writers, reader, producer, target }
    }

    /// Applies a flow as `meanwhile flows apply` does, and does the relay's part: its record is on Kafka on return.
    ///
    /// # Panics
    /// When the flow does not lint, or a server refuses.
    pub async fn apply(&self, yaml: &str) -> Definition {
        let definition = self.apply_unrelayed(yaml).await;
        let record = self.outbox(&self.topics.flows()).pop().expect("a flow that was not applied before");
        self.send(&record).await;
        definition
    }

    /// The same before the relay has delivered it.
    ///
    /// # Panics
    /// The flow does not lint, or Postgres refuses it.
    pub async fn apply_unrelayed(&self, yaml: &str) -> Definition {
        self.try_apply(yaml).await.expect("a flow is applied")
    }

    /// The same for a flow that may be refused.
    ///
    /// # Errors
    /// Those of `apply_flows`.
    ///
    /// # Panics
    /// The flow does not lint by itself.
    pub async fn try_apply(&self, yaml: &str) -> anyhow::Result<Definition> {
        let definition = Definition::parse_yaml("test.yaml", yaml, &mut |_| Err("no references".to_owned()));
        let definition = definition.unwrap_or_else(|problems| panic!("{problems:?}"));
        self.target.apply_flows(std::slice::from_ref(&definition)).await?;
        Ok(definition)
    }

    /// Creates the commands topics of these tenants.
    ///
    /// # Panics
    /// When Kafka refuses.
    pub async fn create_commands(&self, tenants: &[String]) {
        self.target.create_commands(tenants).await.expect("topics are created");
    }

    /// Sends a record; its partition and offset.
    ///
    /// # Panics
    /// When Kafka refuses it.
    pub async fn send(&self, record: &Record) -> (i32, i64) {
        self.producer.send(record).await.unwrap_or_else(|error| panic!("sending to {}: {error}", record.topic))
    }

    /// Sends an event of a job; its partition and offset.
    ///
    /// # Panics
    /// When Kafka refuses it.
    pub async fn tell(&self, event: &JobEvent) -> (i32, i64) {
        let record = event_record(&self.topics, &self.writers, event, &TEST_TRACE).expect("a small event");
        self.send(&record).await
    }

    /// A pool of the test's own.
    ///
    /// # Panics
    /// When the URL is none.
    pub fn pool(&self, role: Role) -> Pool {
        Pool::open(&store::Settings::new(&self.database_url), role).expect("the database's URL")
    }

    /// The output of psql for this SQL.
    ///
    /// # Panics
    /// When Postgres refuses it.
    pub fn sql(&self, sql: &str) -> String {
        psql(&self.database_url, sql).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The rows of the outbox for one topic, in order.
    ///
    /// # Panics
    /// When Postgres refuses, or a row is not what `store` writes.
    pub fn outbox(&self, topic: &str) -> Vec<Record> {
        let columns = ["key", "value", "headers"].map(|column| format!("coalesce(encode({column}, 'hex'), 'none')"));
        let columns = columns.join(", ");
        let sql = format!("select {columns} from outbox.messages where topic = '{topic}' order by txid, seq");
        let record = |line: &str| {
            let parts: Vec<Option<Vec<u8>>> = line.split('|').map(from_hex).collect();
            let [key, value, headers] = <[_; 3]>::try_from(parts).expect("three columns");
            let headers = events::Headers::read(headers.unwrap_or_default()).expect("headers as store writes");
            Record { topic: topic.to_owned(), key, value, headers }
        };
        self.sql(&sql).lines().map(record).collect()
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).expect("hexadecimal digits") as u8;
    (text != "none").then(|| text.as_bytes().chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect())
}

/// Bytes without meaning or pattern, always the same.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    };
    (0..bytes).map(|_| next()).collect()
}
