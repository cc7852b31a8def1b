//! One outbox, one set of topics, and relays between them.

use events::headers::Headers;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bus::admin::Admin;
use bus::{Inbound, Table};
use events::Record;
use events::position::Position;
use events::topic::Topics;
use relay::config::Config;
use relay::seam::{Seam, Seams};
use relay::{Relay, Settings};
use service_kit::config::LogSettings;
use service_kit::health::Dependency;
use service_kit::{CancellationToken, Clock, Ids, Readiness};
use store::reader::{self, Way};
use store::{Pool, Role, outbox};
use test_kit::{Postgres, PostgresOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Only ends a test that hangs.
pub(crate) const WITHIN: Duration = Duration::from_secs(180);
/// Makes of each function a test by either way of reading: `by_log::` and `by_polling::`.
macro_rules! either_way {
    ($($name:ident),* $(,)?) => {
        mod by_log {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(store::reader::Way::Logical).await;
            })*
        }
        mod by_polling {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(store::reader::Way::Polling).await;
            })*
        }
    };
}
pub(crate) use either_way;

/// The queue that tests send to.
pub(crate) const QUEUE: &str = "default";

pub(crate) struct Stage {
    pub(crate) database_url: String,
    pub(crate) kafka: bus::Settings,
    pub(crate) topics: Topics,
    pub(crate) pool: Pool,
    pub(crate) config: Config,
    _postgres: Option<Postgres>,
}

impl Stage {
    /// On the shared servers.
    pub(crate) async fn new() -> Self {
        Self::on(&test_kit::kafka().await, test_kit::postgres_database().await).await
    }

    /// For relays that read in this way.
    pub(crate) async fn by(way: Way) -> Self {
        Self::by_on(&test_kit::kafka().await, way).await
    }

    /// On this Kafka. A relay that polls waits for every transaction of its server, so it has a server of its own.
    pub(crate) async fn by_on(brokers: &str, way: Way) -> Self {
        match way {
            Way::Logical => Self::on_by(brokers, test_kit::postgres_database().await, way).await,
            Way::Polling => Self::apart(brokers, way).await,
        }
    }

    /// With a Postgres of its own, in which no other test has a transaction, and to whose log none writes.
    pub(crate) async fn apart(brokers: &str, way: Way) -> Self {
        let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
        let url = postgres.create_database("outbox").unwrap();
        Self { _postgres: Some(postgres), ..Self::on_by(brokers, url, way).await }
    }

    /// On these servers; migrated, with all topics and the slot.
    pub(crate) async fn on(brokers: &str, database_url: String) -> Self {
        Self::on_by(brokers, database_url, Way::Logical).await
    }

    /// On these servers, for relays that read in this way.
    pub(crate) async fn on_by(brokers: &str, database_url: String, way: Way) -> Self {
        Self::with(bus::Settings::new(brokers, "http://127.0.0.1:1"), database_url, way).await
    }

    /// With this Kafka and database; migrated, with all topics, and the slot where that is needed.
    pub(crate) async fn with(kafka: bus::Settings, database_url: String, way: Way) -> Self {
        let stage = Self::without_slot(kafka, database_url).await;
        if way == Way::Logical {
            store::slot::create(&stage.pool, &stage.slot()).await.unwrap();
        }
        stage.choose(way).await;
        stage
    }

    /// Chooses how relays read, as `meanwhile migrate` does.
    pub(crate) async fn choose(&self, way: Way) {
        let pool = Pool::open(&store::Settings::new(&self.database_url), Role::Relay).unwrap();
        reader::choose(&pool, way).await.unwrap();
        pool.close().await;
    }

    /// On these servers; migrated, with all topics.
    pub(crate) async fn without_slot(kafka: bus::Settings, database_url: String) -> Self {
        let level = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned());
        service_kit::telemetry::init(&LogSettings { level, ..LogSettings::default() }).unwrap();
        let topics = Topics::new(test_kit::prefix());
        store::migrate(&database_url).await.unwrap();
        let pool = Pool::open(&store::Settings::new(&database_url), Role::Ingest).unwrap();
        let config = Config { monitor_interval_s: 1, ..Config::default() };
        let stage = Self { database_url, kafka, topics, pool, config, _postgres: None };
        let queues = [QUEUE.to_owned()].into();
        stage.admin().create_topics(&stage.topics, &queues, Some(1)).await.unwrap();
        stage
    }

    pub(crate) fn slot(&self) -> String {
        store::slot::name(self.topics.prefix())
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::new(&self.kafka).unwrap()
    }

    pub(crate) fn settings(&self, seams: Seams) -> Settings {
        Settings {
            config: self.config.clone(),
            database_url: self.database_url.clone(),
            bus: self.kafka.clone(),
            topics: self.topics.clone(),
            seams,
        }
    }

    pub(crate) fn start(&self) -> Running {
        self.start_with(Seams::default())
    }

    pub(crate) fn start_with(&self, seams: Seams) -> Running {
        let readiness = Readiness::new(Clock::system(), "relay");
        let relay = Relay::new(self.settings(seams), readiness.clone(), Clock::system()).unwrap();
        let delivered = relay.delivered();
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { relay.run(&Ids::system(), token).await });
        Running { readiness, delivered, shutdown, task }
    }

    /// A record whose value is its number, for one of `keys` keys.
    pub(crate) fn record(&self, number: u64, keys: u64) -> Record {
        Record {
            topic: self.topics.steps(QUEUE),
            key: Some(format!("k{}", number % keys).into_bytes()),
            value: Some(number.to_string().into_bytes()),
            headers: Headers::from([("n", Some(number.to_be_bytes())), ("none", None)]),
        }
    }

    /// Commits records with these numbers, for three keys.
    pub(crate) async fn commit(&self, numbers: impl IntoIterator<Item = u64>) {
        let records: Vec<Record> = numbers.into_iter().map(|number| self.record(number, 3)).collect();
        self.commit_records(&records).await;
    }

    /// Begins again while Postgres is away; does not repeat a commit.
    pub(crate) async fn commit_records(&self, records: &[Record]) {
        let tx = test_kit::eventually(WITHIN, "rows are written", async || {
            let mut tx = self.pool.begin().await.ok()?;
            outbox::append(&mut tx, records).await.ok()?;
            Some(tx)
        })
        .await;
        tx.commit().await.unwrap();
    }

    /// Everything that a `read_committed` reader sees in a topic.
    pub(crate) async fn read(&self, topic: &str) -> Vec<Inbound> {
        Table::load(&self.kafka, topic).await.unwrap().0
    }

    /// Asserts that the steps topic holds the numbers from 0 to `count`, each once, and in order per key.
    pub(crate) async fn assert_once_in_order(&self, count: u64) {
        let records = self.read(&self.topics.steps(QUEUE)).await;
        let mut by_key: HashMap<Vec<u8>, Vec<u64>> = HashMap::new();
        for record in &records {
            by_key.entry(record.key.clone().unwrap()).or_default().push(number(record));
        }
        for (key, numbers) in &by_key {
            let disorder = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
            assert_eq!(disorder, None, "repeated or out of order for {}", String::from_utf8_lossy(key));
        }
        let mut all: Vec<u64> = by_key.into_values().flatten().collect();
        all.sort_unstable();
        let gap = all.iter().zip(0..).find(|(found, wanted)| *found != wanted);
        assert_eq!((all.len() as u64, gap), (count, None), "lost or repeated");
    }

    /// The relay's position as Kafka holds it.
    pub(crate) async fn position(&self) -> Position {
        let records = self.read(&self.topics.relay()).await;
        Position::parse(records.last().unwrap().value.as_deref().unwrap()).unwrap()
    }
}

pub(crate) fn number(record: &Inbound) -> u64 {
    str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

/// A seam at which the session is cut off, as by a crash, at every `every`th pass, a few times.
pub(crate) fn cut_at(seam: Seam, every: u32) -> Seams {
    const CUTS_MAX: u32 = 5;
    let passes = AtomicU32::new(0);
    Seams::new(move |passed| {
        if passed != seam {
            return ControlFlow::Continue(());
        }
        let pass = passes.fetch_add(1, Ordering::Relaxed) + 1;
        if pass.is_multiple_of(every) && pass / every <= CUTS_MAX {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
}

/// A relay in this process.
pub(crate) struct Running {
    pub(crate) readiness: Readiness,
    pub(crate) delivered: watch::Receiver<Option<Position>>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Waits until so many rows have been delivered in all.
    pub(crate) async fn relayed(&mut self, count: u64) -> Position {
        let there = |position: &Option<Position>| position.is_some_and(|position| position.relayed >= count);
        let waiting = self.delivered.wait_for(there);
        match tokio::time::timeout(WITHIN, waiting).await {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => panic!("{count} rows not relayed: {:#?}", self.readiness.dependencies()),
        }
    }

    /// Waits until a dependency says this.
    pub(crate) async fn says(&self, name: &str, ok: bool, text: &str) -> String {
        test_kit::eventually(WITHIN, &format!("{name} says `{text}`"), async || {
            let fits = |seen: &Dependency| seen.name == name && seen.ok == ok && seen.message.contains(text);
            self.readiness.dependencies().into_iter().find(fits).map(|seen| seen.message)
        })
        .await
    }

    /// Asks it to leave, and waits until it has.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}
