//! Whatever can be buried comes back: one record of each class of refusals is buried, and brought back by a redrive.

use events::headers::Headers;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bus::admin::Admin;
use bus::{Producer, Record};
use client::{Choice, DeadLetter, Redrive};
use events::Inbound;
use events::dead_letter::{self, Class, Failure};
use events::topic::Topics;
use flow::event::JobStatus;
use flow::id::JobId;
use serde_json::{Value, json};
use test_kit::{eventually, psql, read_topic};

use crate::client::order;
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

/// A trace of which nothing is to be left once a record is redriven.
const OLD_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// A flow whose jobs take their ordering key from the record, and that touches no books.
const KEYLESS: &str = "flow: keyless\nsteps:\n  - id: look\n    \
                       http: { method: GET, url: \"{{ env.INVENTORY_URL }}/state\" }\n";

/// A running system, and what has been buried in it.
struct Graveyard {
    stage: Stage,
    producer: Producer,
    topics: Topics,
    brought_back: BTreeSet<&'static str>,
}

impl Graveyard {
    async fn new() -> Self {
        let stage = Stage::start_with(|builder| builder.variable("MEANWHILE__RELAY__TOPIC_WAIT_MS", "300")).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keyless.yaml"), KEYLESS).unwrap();
        stage.system.run(&["flows", "apply", folder.path().to_str().unwrap()]).await.unwrap();
        let producer = Producer::new(&stage.system.settings()).unwrap();
        let topics = stage.system.topics();
        Self { stage, producer, topics, brought_back: BTreeSet::new() }
    }

    fn sql(&self, statement: &str) -> String {
        psql(self.stage.system.database_url(), statement).unwrap()
    }

    /// A row of the outbox, as a service would have put it there.
    fn put_out(&self, topic: &str, key: &str, value: &str) {
        let insert = "insert into outbox.messages (topic, key, value, headers) values";
        self.sql(&format!("{insert} ('{topic}', {key}, {value}, '')"));
    }

    async fn command(&self, key: &[u8], value: &Value) {
        let traceparent = format!("00-{OLD_TRACE}-b7ad6b7169203331-01").into_bytes();
        let record = Record {
            topic: self.topics.commands(),
            key: Some(key.to_vec()),
            value: Some(value.to_string().into_bytes()),
            headers: Headers::from([("traceparent", Some(traceparent))]),
        };
        self.producer.send(&record).await.unwrap();
    }

    /// The only open one of its class, as soon as it is listed.
    async fn letter(&self, class: Class) -> DeadLetter {
        eventually(PATIENCE, class.as_str(), async || {
            let mut letters = self.letters(class).await;
            (letters.len() == 1).then(|| letters.remove(0))
        })
        .await
    }

    /// Sends the buried record of a class back, with these changes.
    async fn redrive(&mut self, class: Class, order: Redrive) {
        let letter = self.letter(class).await;
        self.stage
            .system
            .client()
            .redrive(&letter.id, &order)
            .await
            .unwrap_or_else(|error| panic!("{class:?}: {error}"));
        self.brought_back.insert(class.as_str());
    }

    /// The same for a command: it becomes a job, in a trace of its own. The job's end.
    async fn job_from(&mut self, class: Class, order: Redrive) -> JobId {
        let jobs = "select coalesce(string_agg(job::text, ','), '') from ingest.acceptances";
        let read = |text: String| text.split(',').filter_map(|job| job.parse().ok()).collect::<BTreeSet<JobId>>();
        let before = read(self.sql(jobs));
        self.redrive(class, order).await;
        let job = eventually(PATIENCE, "the record is a job", async || {
            read(self.sql(jobs)).difference(&before).next().copied()
        })
        .await;
        self.stage.system.note_accepted([job]);
        assert_eq!(self.stage.end_of(job).await.status, JobStatus::Succeeded, "{class:?}");
        let status = self.stage.system.status(job).await.unwrap();
        assert_ne!(status["trace_id"], OLD_TRACE, "{class:?}");
        job
    }

    /// True if such a record is on the topic.
    async fn has(&self, topic: &str, key: &str, value: &[u8]) -> bool {
        let records = read_topic(self.stage.system.brokers(), topic).await.unwrap();
        let same =
            |record: &Inbound| record.key.as_deref() == Some(key.as_bytes()) && record.value.as_deref() == Some(value);
        records.iter().any(same)
    }

    async fn arrived(&self, topic: &str, key: &str, value: &[u8]) {
        eventually(PATIENCE, topic, async || self.has(topic, key, value).await.then_some(())).await;
    }

    /// Waits until a record that went back is on its topic (true), or is a dead letter again.
    async fn is_settled(&self, topic: &str, key: &str, value: &[u8], class: Class) -> bool {
        eventually(PATIENCE, "the record is somewhere", async || {
            if self.has(topic, key, value).await {
                return Some(true);
            }
            (self.letters(class).await.len() == 1).then_some(false)
        })
        .await
    }

    /// Those of a class that are open.
    async fn letters(&self, class: Class) -> Vec<DeadLetter> {
        let choice = Choice { class: Some(class.as_str().to_owned()), ..Choice::default() };
        self.stage.system.client().dead_letters(&choice, None, 100).await.unwrap().dead_letters
    }
}

fn edited(value: Value) -> Redrive {
    Redrive { value: Some(value), ..Redrive::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_record_of_each_class_is_buried_and_brought_back() {
    let _turn = beside_others().await;
    let mut yard = Graveyard::new().await;
    commands(&mut yard).await;
    records_of_other_topics(&mut yard).await;
    rows_of_the_outbox(&mut yard).await;
    let all = Class::ALL.map(Class::as_str).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(yard.brought_back, all);
    // What never were jobs have no books at the shop.
    yard.stage.system.expect_unreadable(3);
    yard.stage.finish_but_for(&BTreeSet::new()).await;
}

/// What the door for commands refuses.
async fn commands(yard: &mut Graveyard) {
    let good = json!({ "flow": "order", "input": order("c-1", json!({})) });
    let with = |name: &str, value: Value| {
        let mut command = good.clone();
        command[name] = value;
        command
    };
    yard.command(b"k", &json!(["no command"])).await;
    yard.job_from(Class::InvalidCommand, edited(good.clone())).await;
    yard.command(b"k", &with("flow", json!("oder"))).await;
    yard.job_from(Class::UnknownFlow, edited(good.clone())).await;
    yard.command(b"k", &with("input", json!({}))).await;
    yard.job_from(Class::SchemaViolation, edited(good.clone())).await;
    yard.command(b"\xff", &json!({ "flow": "keyless", "input": {} })).await;
    yard.job_from(Class::InvalidKey, Redrive { key: Some("customer-7".to_owned()), ..Redrive::default() }).await;

    // The first is a job; the second has its id and is another one.
    yard.command(b"k", &with("id", json!("order-1"))).await;
    let first = eventually(PATIENCE, "the first command is a job", async || {
        yard.sql("select job from ingest.idempotency where key = 'order-1'").parse::<JobId>().ok()
    })
    .await;
    yard.stage.system.note_accepted([first]);
    yard.command(b"k", &json!({ "flow": "order", "input": order("c-2", json!({})), "id": "order-1" })).await;
    yard.job_from(Class::IdReused, edited(with("id", json!("order-2")))).await;

    // As it is, once the database takes it.
    yard.sql("alter table ingest.acceptances add constraint sound check (key <> 'poison')");
    yard.command(b"k", &json!({ "flow": "order", "input": order("poison", json!({})) })).await;
    yard.letter(Class::NotStorable).await;
    yard.sql("alter table ingest.acceptances drop constraint sound");
    yard.job_from(Class::NotStorable, Redrive::default()).await;

    // No input makes a role panic, as far as is known, and no command is unsupported any more: these dead letters are
    // written as a worker and an earlier ingest write them.
    let failed = Inbound {
        topic: yard.topics.commands(),
        key: Some(b"k".to_vec()),
        value: Some(good.to_string().into_bytes()),
        ..Inbound::default()
    };
    for class in [Class::Panicked, Class::Unsupported] {
        let failure = Failure::once(class.as_str(), "as it was found", 1_700_000_000_000);
        yard.producer.send(&dead_letter::record(&yard.topics, &failed, &failure)).await.unwrap();
        yard.job_from(class, Redrive::default()).await;
    }
}

/// What a follower cannot read.
async fn records_of_other_topics(yard: &mut Graveyard) {
    let waits = yard.topics.waits();
    // A worker has told of itself there at its start: the same once more says nothing new.
    let known = read_topic(yard.stage.system.brokers(), &waits).await.unwrap();
    let known = known.into_iter().find(|record| record.value.is_some()).expect("a sign of life");
    let record =
        Record { topic: waits.clone(), key: known.key, value: Some(b"noise".to_vec()), headers: Headers::default() };
    yard.producer.send(&record).await.unwrap();
    let good = known.value.unwrap();
    let before = read_topic(yard.stage.system.brokers(), &waits).await.unwrap().len();
    let value_base64 = Some(BASE64.encode(&good));
    yard.redrive(Class::Unreadable, Redrive { value_base64, ..Redrive::default() }).await;
    eventually(PATIENCE, "the record is there again", async || {
        let now = read_topic(yard.stage.system.brokers(), &waits).await.unwrap();
        now[before..].iter().any(|record| record.value.as_deref() == Some(&good)).then_some(())
    })
    .await;
}

/// What the relay cannot deliver.
async fn rows_of_the_outbox(yard: &mut Graveyard) {
    // As it is, once its topic is there.
    let nowhere = yard.topics.steps("nowhere");
    yard.put_out(&nowhere, "'k'", "'lost'");
    yard.letter(Class::UnknownTopic).await;
    let admin = Admin::new(&yard.stage.system.settings()).unwrap();
    admin.create_topics(&yard.topics, &["nowhere".to_owned()].into(), Some(1)).await.unwrap();
    // The relay takes the topic for missing for some seconds: what goes back in that time is buried once more.
    eventually(PATIENCE, "the row comes to its topic", async || {
        yard.redrive(Class::UnknownTopic, Redrive { force: true, ..Redrive::default() }).await;
        yard.is_settled(&nowhere, "k", b"lost", Class::UnknownTopic).await.then_some(())
    })
    .await;

    // Too large for the dead letters, too: there is only a notice, which does not go as an empty record.
    yard.put_out(&nowhere, "'big'", "convert_to(repeat('x', 3000000), 'UTF8')");
    let notice = yard.letter(Class::TooLarge).await;
    let refused = yard.stage.system.client().redrive(&notice.id, &Redrive::default()).await.unwrap_err();
    assert!(refused.to_string().starts_with("410"), "{refused}");
    let (value_base64, key) = (Some(BASE64.encode(b"small")), Some("big".to_owned()));
    yard.redrive(Class::TooLarge, Redrive { value_base64, key, ..Redrive::default() }).await;
    yard.arrived(&nowhere, "big", b"small").await;

    // A compacted topic takes no record without a key.
    let flows = yard.topics.flows();
    let known = read_topic(yard.stage.system.brokers(), &flows).await.unwrap().remove(0);
    let document = known.value.unwrap();
    let hexadecimal: String = document.iter().map(|byte| format!("{byte:02x}")).collect();
    yard.put_out(&flows, "null", &format!("decode('{hexadecimal}', 'hex')"));
    let key = String::from_utf8(known.key.unwrap()).unwrap();
    yard.redrive(Class::Refused, Redrive { key: Some(key.clone()), ..Redrive::default() }).await;
    yard.arrived(&flows, &key, &document).await;
}
