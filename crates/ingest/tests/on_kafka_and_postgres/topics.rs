//! Topics of others: each record starts one job, what cannot be read is a dead letter, and no topic holds up another.

use bus::Registry;
use bus::admin::Admin;
use events::dead_letter::burial;
use events::headers::Headers;
use events::topic::Topics;
use events::{Inbound, Record, decode_slip};
use serde_json::{Value, json};
use test_kit::{Ground, eventually, prefix};

use crate::stage::{Ingest, PATIENCE, ground, jobs_stored};

/// A team's own topics.
struct Shop {
    admin: Admin,
    topics: Topics,
}

impl Shop {
    fn new(ground: &Ground) -> Self {
        Self { admin: Admin::new(&ground.bus).unwrap(), topics: Topics::new(format!("shop-{}", prefix())) }
    }

    fn name(&self, topic: &str) -> String {
        self.topics.steps(topic)
    }

    async fn create(&self, topic: &str) {
        self.admin.ensure_queue(&self.topics, topic, "none", None).await.unwrap();
    }

    async fn forget(self) {
        self.admin.delete_topics(self.topics.prefix()).await.unwrap();
    }
}

async fn send(ground: &Ground, topic: &str, key: &str, value: impl Into<Vec<u8>>) -> (i32, i64) {
    let record = Record {
        topic: topic.to_owned(),
        key: Some(key.into()),
        value: Some(value.into()),
        headers: Headers::default(),
    };
    ground.send(&record).await
}

async fn until_jobs(ground: &Ground, jobs: usize) {
    eventually(PATIENCE, "all records are jobs", async || (jobs_stored(ground) >= jobs).then_some(())).await;
    assert_eq!(jobs_stored(ground), jobs);
}

async fn inputs(ground: &Ground) -> Vec<(String, Value)> {
    let mut inputs = Vec::new();
    for record in ground.outbox(&ground.topics.steps("default")) {
        let slip = ground.reader.read(record.value.as_deref(), decode_slip).await.unwrap();
        inputs.push((slip.key.clone(), slip.input));
    }
    inputs
}

fn dead_letters(ground: &Ground) -> Vec<Inbound> {
    let inbound = |record: Record| {
        let Record { topic, key, value, headers } = record;
        Inbound { topic, key, value, headers, ..Inbound::default() }
    };
    ground.outbox(&ground.topics.dead_letters()).into_iter().map(inbound).collect()
}

fn flow(name: &str, on: &str) -> String {
    format!("flow: {name}\non: {{ {on} }}\ninput: {{ required: [no] }}\nsteps: [{{ id: one, native: one }}]\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_record_starts_one_job_and_what_is_none_holds_up_nothing() {
    let ground = ground().await;
    let shop = Shop::new(&ground);
    let (orders, later) = (shop.name("orders"), shop.name("later"));
    shop.create("orders").await;
    send(&ground, &orders, "k", r#"{"no":"before the flow was applied"}"#).await;
    let on = format!("topic: {orders}, filter: \"{{{{ input.paid | default(true) }}}}\", id: \"{{{{ input.no }}}}\"");
    ground.apply(&flow("orders", &on)).await;
    ground.apply(&flow("later", &format!("topic: {later}"))).await;
    // Before anybody reads it.
    send(&ground, &orders, "customer-1", r#"{"no":1}"#).await;
    let ingest = Ingest::start(&ground, |_| {}).await;
    ingest.ready().await;
    until_jobs(&ground, 1).await;
    assert_eq!(inputs(&ground).await, [("customer-1".to_owned(), json!({ "no": 1 }))]);

    for value in [r#"{"no":2,"paid":false}"#, r#"{"no":1,"again":true}"#, "{", r#"{"paid":true}"#, r#"{"no":3}"#] {
        send(&ground, &orders, "customer-1", value).await;
    }
    ground.send(&Record { topic: orders.clone(), key: Some(b"customer-1".to_vec()), ..Record::default() }).await;
    until_jobs(&ground, 2).await;
    let letters = dead_letters(&ground);
    let told: Vec<_> = letters.iter().map(|letter| (burial(letter).unwrap(), letter.value.clone().unwrap())).collect();
    let classes: Vec<&str> = told.iter().map(|(burial, _)| burial.failure.class.as_str()).collect();
    assert_eq!(classes, ["unreadable", "schema-violation"]);
    assert_eq!((told[0].0.topic.as_str(), told[0].1.as_slice()), (orders.as_str(), b"{".as_slice()));
    assert!(told[1].0.failure.reason.contains("orders: `id`: `input.no` is missing"), "{}", told[1].0.failure.reason);

    // Made only now: everything in it is newer than the flow.
    shop.create("later").await;
    send(&ground, &later, "", r#"{"no":4}"#).await;
    until_jobs(&ground, 3).await;
    ingest.stop().await;
    // Nothing is read twice by whoever comes next.
    let next = Ingest::start(&ground, |_| {}).await;
    send(&ground, &orders, "customer-1", r#"{"no":5}"#).await;
    until_jobs(&ground, 4).await;
    assert_eq!(dead_letters(&ground).len(), 2);
    next.stop().await;
    shop.forget().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_for_every_flow_of_its_topic_and_a_topic_is_read_from_its_beginning_on_request() {
    let ground = ground().await;
    let shop = Shop::new(&ground);
    let topic = shop.name("events");
    shop.create("events").await;
    for no in 0..3 {
        send(&ground, &topic, "k", json!({ "no": no }).to_string()).await;
    }
    ground.apply(&flow("one", &format!("topic: {topic}, from: beginning"))).await;
    ground.apply(&flow("other", &format!("topic: {topic}, filter: \"{{{{ input.no == 3 }}}}\""))).await;
    let instances = [Ingest::start(&ground, |_| {}).await, Ingest::start(&ground, |_| {}).await];
    send(&ground, &topic, "k", r#"{"no":3}"#).await;
    until_jobs(&ground, 5).await;
    assert_eq!(ground.sql("select flow, count(*) from ingest.acceptances group by 1 order by 1"), "one|4\nother|1");
    // A version without the trigger reads no more.
    ground.apply("flow: one\nsteps: [{ id: one, native: one }]\n").await;
    for ingest in &instances {
        eventually(PATIENCE, "the version is known", async || {
            let shown = ingest.api.get("/v1/flows/one").await;
            (shown.status == 200 && !shown.text.contains("beginning")).then_some(())
        })
        .await;
    }
    send(&ground, &topic, "k", r#"{"no":3}"#).await;
    until_jobs(&ground, 6).await;
    for ingest in instances {
        ingest.stop().await;
    }
    shop.forget().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn avro_of_others_is_read_by_the_registry() {
    const SCHEMA: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
        {"name":"no","type":"long"},{"name":"note","type":["null","string"]}]}"#;
    let ground = ground().await;
    let shop = Shop::new(&ground);
    let topic = shop.name("avro");
    shop.create("avro").await;
    let registry = Registry::new(&ground.bus.registry_url, None).unwrap();
    let id = registry.register(&format!("{topic}-value"), SCHEMA).await.unwrap();
    ground.apply(&flow("orders", &format!("topic: {topic}, format: avro"))).await;
    let ingest = Ingest::start(&ground, |_| {}).await;
    // 21, then the second type of the union and a text of two bytes (Avro 1.12, "Binary encoding").
    let datum = [42, 2, 4, b'o', b'k'];
    let framed = |datum: &[u8]| [&[0][..], &id.to_be_bytes(), datum].concat();
    send(&ground, &topic, "k", framed(&datum[..4])).await;
    send(&ground, &topic, "k", r#"{"no":1}"#).await;
    send(&ground, &topic, "k", framed(&datum)).await;
    until_jobs(&ground, 1).await;
    assert_eq!(inputs(&ground).await, [("k".to_owned(), json!({ "no": 21, "note": "ok" }))]);
    let letters = dead_letters(&ground);
    let reasons: Vec<String> = letters.iter().map(|letter| burial(letter).unwrap().failure.reason).collect();
    assert!(reasons[0].contains("does not fit") && reasons[1].contains("not framed Avro"), "{reasons:?}");
    ingest.stop().await;
    shop.forget().await;
}
