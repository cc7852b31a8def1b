//! The Kafka door: commands become jobs by the same acceptance as requests, or dead letters, and nothing wedges it.

use events::dead_letter::burial;
use events::headers::Headers;
use events::{Inbound, Record, decode_slip};
use serde_json::json;
use test_kit::{Ground, eventually, kcat, noise};

use crate::stage::{INPUT, Ingest, PARENT, PATIENCE, Stage, ground, jobs_stored, trace_of};

pub(crate) fn command(ground: &Ground, key: &[u8], value: impl Into<Vec<u8>>) -> Record {
    Record {
        topic: ground.topics.commands(),
        key: Some(key.to_vec()),
        value: Some(value.into()),
        headers: Headers::default(),
    }
}

async fn until_jobs(ground: &Ground, jobs: usize) {
    eventually(PATIENCE, "all commands are jobs", async || (jobs_stored(ground) >= jobs).then_some(())).await;
    assert_eq!(jobs_stored(ground), jobs);
}

/// A row of the outbox as whoever consumes it will see it.
fn as_consumed(record: Record) -> Inbound {
    let Record { topic, key, value, headers } = record;
    Inbound { topic, key, value, headers, ..Inbound::default() }
}

async fn until_dead_letters(ground: &Ground, count: usize) -> Vec<Inbound> {
    let letters = eventually(PATIENCE, "all dead letters", async || {
        let letters = ground.outbox(&ground.topics.dead_letters());
        (letters.len() >= count).then_some(letters)
    });
    letters.await.into_iter().map(as_consumed).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_becomes_a_job_under_the_same_keys_as_requests() {
    let Stage { ground, ingest } = Stage::new().await;
    let text =
        json!({ "flow": "plain", "input": { "note": "a\u{0}b" }, "id": "cmd-1", "correlation_id": "from kafka" });
    let mut first = command(&ground, b"customer-7", text.to_string());
    first.headers = Headers::from([("traceparent", Some(PARENT))]);
    ground.send(&first).await;
    until_jobs(&ground, 1).await;
    let row = ground.sql("select tenant, flow, key, correlation_id, trace_id from ingest.acceptances");
    assert_eq!(row, "default|plain|customer-7|from kafka|4bf92f3577b34da6a3ce929d0e0e4736");
    let slips = ground.outbox(&ground.topics.steps("default"));
    let slip = ground.reader.read(slips[0].value.as_deref(), decode_slip).await.unwrap();
    assert_eq!((slip.step.as_str(), slip.key.as_str()), ("one", "customer-7"));
    assert_eq!(slip.input, json!({ "note": "a\u{0}b" }));
    assert_eq!(trace_of(&slips[0]).context.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");

    // Again, on whichever partition, and over HTTP: the same job.
    for key in [&b"a"[..], b"b", b"c", b"customer-7"] {
        ground.send(&Record { key: Some(key.to_vec()), ..first.clone() }).await;
    }
    let body = json!({ "note": "a\u{0}b" }).to_string();
    let replay = ingest.api.post("/v1/flows/plain/jobs", &[("idempotency-key", "cmd-1")], &body).await;
    assert_eq!((replay.job(), replay.header("idempotent-replayed")), (slip.job.to_string(), "true"));
    // And the other way round.
    let by_http = ingest.api.order(&[("idempotency-key", "http-1")], INPUT).await.job();
    let same = format!(r#"{{"flow":"order","input":{INPUT},"id":"http-1"}}"#);
    let other = r#"{"flow":"order","input":{"customer_id":"c-1","qty":9},"id":"http-1"}"#;
    ground.send(&command(&ground, b"k", same)).await;
    ground.send(&command(&ground, b"k", other)).await;
    let letters = until_dead_letters(&ground, 1).await;
    let burial = burial(&letters[0]).unwrap();
    assert_eq!((burial.failure.class.as_str(), letters.len()), ("id-reused", 1));
    assert!(burial.failure.reason.contains(&by_http), "{}", burial.failure.reason);
    assert_eq!(jobs_stored(&ground), 2);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_job_is_a_dead_letter_byte_for_byte_and_the_partition_goes_on() {
    let Stage { ground, ingest } = Stage::new().await;
    let good = format!(r#"{{"flow":"order","input":{INPUT}}}"#);
    let plain = r#"{"flow":"plain","input":{}}"#;
    let of = |value: &str| command(&ground, b"k", value);
    let empty = Record { value: None, ..of("") };
    let mut named = of("{");
    named.headers = Headers::from([("twice", Some(&b"1"[..])), ("twice", None), ("x", Some(&[0xff]))]);
    let bad = [
        ("invalid-command", "empty", empty),
        ("invalid-command", "empty", of("")),
        ("invalid-command", "line 1 column", named),
        ("invalid-command", "array", of("[]")),
        ("invalid-command", "did you mean `input`", of(r#"{"flow":"order","inptu":{}}"#)),
        ("invalid-command", "control character", of(r#"{"flow":"order","input":{},"id":"a\u0000b"}"#)),
        ("invalid-command", "control character", of(r#"{"flow":"o\u0000","input":{}}"#)),
        ("invalid-command", "control character", of(r#"{"flow":"order","input":{},"correlation_id":"\u0000"}"#)),
        ("invalid-command", "line 1", command(&ground, b"k", [b"\x00\x01".as_slice(), b"\xff\xfe"].concat())),
        ("invalid-command", "line 1", command(&ground, b"k", noise(1_048_576 - 1_000))),
        ("invalid-command", "`delay`", of(r#"{"flow":"order","input":{},"delay":"soon"}"#)),
        ("invalid-command", "`callback`", of(r#"{"flow":"plain","input":{},"callback":{"url":"http://10.0.0.1"}}"#)),
        (
            "invalid-command",
            "/callback/secret",
            of(r#"{"flow":"plain","input":{},"callback":{"url":"https://a.example","secret":"whsec_x"}}"#),
        ),
        ("unknown-flow", "Did you mean `order`?", of(r#"{"flow":"ordre","input":{}}"#)),
        ("schema-violation", "#/qty", of(r#"{"flow":"order","input":{"customer_id":"c","qty":0}}"#)),
        ("schema-violation", "NUL", of(r#"{"flow":"order","input":{"customer_id":"\u0000","qty":1}}"#)),
        ("invalid-key", "UTF-8", command(&ground, b"\xff\xfe", plain)),
        ("invalid-key", "NUL", command(&ground, b"a\0b", plain)),
        ("invalid-key", "256", command(&ground, &[b'k'; 257], plain)),
    ];
    for (_, _, record) in &bad {
        ground.send(record).await;
    }
    // One more behind each of them, of a flow that has a key of its own and so does not use the record's.
    for (_, _, record) in &bad {
        ground.send(&Record { value: Some(good.clone().into_bytes()), key: record.key.clone(), ..of("") }).await;
    }
    let mut letters = until_dead_letters(&ground, bad.len()).await;
    until_jobs(&ground, bad.len()).await;
    for (class, words, record) in &bad {
        let same = |letter: &Inbound| {
            (&letter.key, &letter.value) == (&record.key, &record.value)
                && letter.headers.starts_with(&record.headers)
                && burial(letter).is_some_and(|burial| {
                    let failure = &burial.failure;
                    failure.class == *class && failure.reason.contains(words) && burial.topic == record.topic
                })
        };
        let found = letters.iter().position(same);
        let told = || letters.iter().map(|letter| burial(letter).unwrap().failure.reason).collect::<Vec<_>>();
        let found = found.unwrap_or_else(|| panic!("no dead letter `{class}` with `{words}` in {:#?}", told()));
        letters.remove(found);
    }
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_for_a_flow_that_was_applied_a_moment_ago_is_a_job_though_the_relay_is_away() {
    let Stage { ground, ingest } = Stage::new().await;
    ground.apply_unrelayed("flow: fresh\nsteps:\n  - { id: one, native: nothing }\n").await;
    ground.send(&command(&ground, b"k", r#"{"flow":"fresh","input":{}}"#)).await;
    ground.send(&command(&ground, b"k", r#"{"flow":"never","input":{}}"#)).await;
    until_jobs(&ground, 1).await;
    let letters = until_dead_letters(&ground, 1).await;
    assert!(burial(&letters[0]).unwrap().failure.reason.contains("`never`"));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_postgres_refuses_is_buried_alone() {
    let ground = ground().await;
    ground.sql("alter table ingest.acceptances add constraint sound check (key <> 'poison')");
    let key = |number: i32| if number % 20 == 7 { "poison".to_owned() } else { format!("c-{number}") };
    for number in 0..60 {
        let text = json!({ "flow": "order", "input": { "customer_id": key(number), "qty": 1 } }).to_string();
        ground.send(&command(&ground, b"k", text)).await;
    }
    // All of them wait in one partition when the first batch is taken.
    let ingest = Ingest::start(&ground, |_| {}).await;
    ingest.ready().await;
    let letters = until_dead_letters(&ground, 3).await;
    until_jobs(&ground, 57).await;
    for letter in &letters {
        let burial = burial(letter).unwrap();
        assert_eq!((burial.failure.class.as_str(), burial.offset % 20), ("not-storable", 7));
        assert!(String::from_utf8_lossy(letter.value.as_deref().unwrap()).contains("poison"));
    }
    eventually(PATIENCE, "the offset is stored", async || {
        (ground.sql("select max(next_offset) from ingest.offsets") == "60").then_some(())
    })
    .await;
    assert_eq!((letters.len(), ground.outbox(&ground.topics.dead_letters()).len()), (3, 3));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kcat_starts_a_job() {
    let Stage { ground, ingest } = Stage::new().await;
    let (brokers, topic) = (ground.bus.brokers.as_str(), ground.topics.commands());
    let line = format!("{{\"flow\":\"order\",\"input\":{INPUT}}}\n");
    kcat(&["-P", "-b", brokers, "-t", &topic, "-k", "customer-1"], line.as_bytes()).unwrap();
    until_jobs(&ground, 1).await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ingests_that_both_believe_to_own_a_partition_make_each_job_once() {
    let mut ground = ground().await;
    let one = Ingest::start(&ground, |_| {}).await;
    // In a group of its own it is given every partition, as a zombie is that has not heard of its revocation.
    ground.bus.properties.insert("group.id".to_owned(), format!("{}-zombie", ground.topics.prefix()));
    let zombie = Ingest::start(&ground, |_| {}).await;
    one.ready().await;
    zombie.ready().await;
    for number in 0..300 {
        let text = json!({ "flow": "order", "input": { "customer_id": "c", "qty": number } }).to_string();
        ground.send(&command(&ground, format!("k{number}").as_bytes(), text)).await;
    }
    // The first is refused: its `qty` is 0.
    let letters = until_dead_letters(&ground, 1).await;
    until_jobs(&ground, 299).await;
    eventually(PATIENCE, "all offsets are stored", async || {
        (ground.sql("select sum(next_offset) from ingest.offsets") == "300").then_some(())
    })
    .await;
    one.stop().await;
    zombie.stop().await;
    assert_eq!((letters.len(), jobs_stored(&ground)), (1, 299));
    assert_eq!(ground.outbox(&ground.topics.steps("default")).len(), 299);
    assert_eq!(ground.outbox(&ground.topics.dead_letters()).len(), 1);
}
