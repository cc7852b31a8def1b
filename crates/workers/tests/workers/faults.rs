//! Workers that die, at every seam, and servers that are away.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use events::lane::{Freed, turn_headers};
use events::wait::{Unread, UnreadRest, Wait};
use events::{Record, decode_slip, slip_record};
use flow::event::JobStatus;
use serde_json::json;
use test_kit::{Answer, Receiver, eventually, read_topic};
use workers::Workers;

use crate::stage::{PATIENCE, Stage, trace};

const FLOW: &str = r#"
flow: shop
key: "{{ input.key }}"
steps:
  - { id: one, http: { method: POST, url: "{{ env.SHOP_URL }}/one" } }
  - { id: two, http: { method: POST, url: "{{ env.SHOP_URL }}/two" } }
  - { id: three, http: { method: POST, url: "{{ env.SHOP_URL }}/three" } }
"#;

/// How often each step was called.
fn calls(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for request in receiver.requests() {
        *calls.entry(request.uri.path().to_owned()).or_default() += 1;
    }
    calls
}

#[track_caller]
fn check(receiver: &Receiver, expected: [usize; 3], when: &str) {
    let expected = ["/one", "/two", "/three"].into_iter().zip(expected);
    let expected: BTreeMap<String, usize> = expected.map(|(path, count)| (path.to_owned(), count)).collect();
    let calls = calls(receiver);
    // The worker that takes over may be told of step three before it is committed; it never runs what was.
    assert_eq!(calls, expected, "{when}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_at_a_seam_repeats_the_step_that_was_not_committed_and_no_other() {
    for (seam, expected) in [
        ("workers.before-send:2", [1, 2, 1]),
        ("workers.before-offsets:2", [1, 2, 1]),
        ("workers.before-commit:2", [1, 2, 1]),
        ("workers.after-commit:2", [1, 1, 1]),
    ] {
        let receiver = Receiver::start().await;
        let mut stage = Stage::new(FLOW).await;
        stage.env.push(("SHOP_URL".to_owned(), receiver.url()));
        let quick = ("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "2000");
        let mut worker = stage.process("a", &[("MEANWHILE_STOP_AT", seam), quick]);
        stage.submit(json!({ "key": "k" })).await;
        let status = worker.wait_for_exit(PATIENCE).await.unwrap();
        assert!(!status.success(), "{seam}: it died");
        let next = stage.work("a", Workers::builder().build());
        assert_eq!(stage.ends().await[0].status, JobStatus::Succeeded, "{seam}");
        next.stop().await;
        let tokens = stage.tokens().await;
        assert_eq!(tokens.slips.len(), 3, "{seam}");
        check(&receiver, expected, seam);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_committer_panics_begins_another_session() {
    let receiver = Receiver::start().await;
    let mut stage = Stage::new(FLOW).await;
    stage.env.push(("SHOP_URL".to_owned(), receiver.url()));
    let quick = ("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "2000");
    let _worker = stage.process("a", &[("MEANWHILE_STOP_AT", "panic:workers.before-commit:2"), quick]);
    stage.submit(json!({ "key": "k" })).await;
    assert_eq!(stage.ends().await[0].status, JobStatus::Succeeded);
    check(&receiver, [1, 2, 1], "the same process goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_lose_and_split_nothing_under_load() {
    const JOBS: usize = 400;
    let receiver = Receiver::start().await;
    let mut stage = Stage::new(FLOW).await;
    stage.env.push(("SHOP_URL".to_owned(), receiver.url()));
    let quick = [("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "2000")];
    let (mut one, mut two) = (stage.process("one", &quick), stage.process("two", &quick));
    for number in 0..JOBS {
        stage.submit(json!({ "key": format!("k{}", number % 100) })).await;
        if number % 130 == 129 {
            let victim = if number % 260 == 129 { &mut one } else { &mut two };
            victim.kill9();
            victim.restart().unwrap();
        }
    }
    assert_eq!(stage.ends().await.len(), JOBS);
    one.kill9();
    two.kill9();
    let tokens = stage.tokens().await;
    assert_eq!((tokens.slips.len(), tokens.dead_letters), (JOBS * 3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_paused_past_its_session_wakes_as_a_zombie_and_commits_nothing() {
    const JOBS: usize = 200;
    let receiver = Receiver::start().await;
    let mut stage = Stage::new(FLOW).await;
    stage.env.push(("SHOP_URL".to_owned(), receiver.url()));
    let quick =
        [("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "2000"), ("MEANWHILE__WORKERS__TRANSACTION_TIMEOUT_MS", "2000")];
    let (paused, mut steady) = (stage.process("paused", &quick), stage.process("steady", &quick));
    for number in 0..JOBS {
        stage.submit(json!({ "key": format!("k{}", number % 100) })).await;
        if number == JOBS / 2 {
            paused.pause();
        }
    }
    // Everything ends although one of the two is silent: the other has taken its partitions.
    assert_eq!(stage.ends().await.len(), JOBS);
    paused.resume();
    for number in 0..20 {
        stage.submit(json!({ "key": format!("k{number}") })).await;
    }
    assert_eq!(stage.ends().await.len(), JOBS + 20);
    steady.kill9();
    stage.submit(json!({ "key": "k" })).await;
    assert_eq!(stage.ends().await.len(), JOBS + 21, "the zombie has become a worker again");
    assert_eq!(stage.tokens().await.dead_letters, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_paused_begins_no_step_of_a_partition_that_it_has_lost() {
    const ONE: &str = r#"
flow: one
key: "{{ input.key }}"
steps:
  - { id: one, http: { method: POST, url: "{{ env.SHOP_URL }}" }, timeout: 60s }
"#;
    let receiver = Receiver::start().await;
    // The first call is answered while its worker is paused.
    receiver.answer_with(|request| match request.uri.path() {
        "/paused/first" => Answer::status(200).after(Duration::from_secs(2)),
        _ => Answer::json(200, &json!({})),
    });
    let stage = Stage::new(ONE).await;
    let quick = ("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "2000");
    let (first, second) = (format!("{}/paused/first", receiver.url()), format!("{}/steady", receiver.url()));
    let paused = stage.process("paused", &[quick, ("SHOP_URL", first.as_str())]);
    for _ in 0..3 {
        stage.submit(json!({ "key": "k" })).await;
    }
    eventually(PATIENCE, "the first of the lane is called", async || receiver.requests().pop()).await;
    paused.pause();
    let mut steady = stage.process("steady", &[quick, ("SHOP_URL", second.as_str())]);
    stage.ends().await;
    paused.resume();
    steady.kill9();
    stage.submit(json!({ "key": "other" })).await;
    stage.ends().await;
    let calls = receiver.requests().into_iter().filter(|request| request.uri.path() == "/paused/first").count();
    assert_eq!(calls, 2, "the one that was under way, and the one after the pause");
    stage.tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_down_holds_records_back_and_buries_none() {
    let mut registry = test_kit::Registry::start().await.unwrap();
    let receiver = Receiver::start().await;
    let mut stage = Stage::on(test_kit::kafka().await, registry.url(), FLOW).await;
    stage.env.push(("SHOP_URL".to_owned(), receiver.url()));
    let running = stage.work("a", Workers::builder().build());
    stage.submit(json!({ "key": "before" })).await;
    stage.ends().await;

    // A slip by a writer with a schema that this worker has not met: the same datum under another id.
    let other = events::RecordKind::Slip.latest().replacen("\"type\"", "\"doc\": \"another\", \"type\"", 1);
    let client = bus::Registry::new(&registry.url(), None).unwrap();
    let id = client.register(&format!("{}-other", stage.topics.prefix()), &other).await.unwrap();
    let (slip, queue, accepted) = stage.accept(json!({ "key": "other" }));
    let writers = events::WriterIds { slip: id, ..stage.writers };
    assert_ne!(id, stage.writers.slip, "another schema");
    registry.kill9();
    for event in accepted {
        stage.send(events::event_record(&stage.topics, &stage.writers, &event, &trace()).unwrap()).await;
    }
    let record: Record = slip_record(&stage.topics, &writers, &queue, &slip, &trace()).unwrap();
    stage.send(record).await;
    eventually(PATIENCE, "readiness names the registry", async || {
        let missing = running.readiness.dependencies().into_iter().find(|dependency| !dependency.ok);
        missing.filter(|dependency| dependency.name == "registry")
    })
    .await;
    // It rests after a while, so that the partition goes on.
    let resting = eventually(PATIENCE, "it rests unread", async || {
        let waits = read_topic(&stage.bus.brokers, &stage.topics.waits()).await.unwrap();
        waits.iter().filter_map(|record| stage.decode_wait(record)).find_map(|wait| match wait {
            Wait::Unread(unread) => Some(unread),
            _ => None,
        })
    });
    let Unread { token, record: mut again, rest, .. } = resting.await;
    assert_eq!((token.job, rest), (slip.job, UnreadRest::Until(10_000)));
    registry.restart().await.unwrap();
    // Before it knows that the registry answers it waits for it so shortly that the slip may rest again.
    eventually(PATIENCE, "ready again", async || running.readiness.is_ready().then_some(())).await;
    // What the orchestrator does then.
    again.headers.append(&turn_headers(&token, 0));
    let (topic, key) = (again.topic.clone(), again.key.clone().unwrap());
    stage.send(again).await;
    stage.send(Freed { holder: token, turns: 0 }.record(topic, key)).await;
    assert_eq!(stage.ends().await.len(), 2);
    running.stop().await;
    let dead = read_topic(&stage.bus.brokers, &stage.topics.dead_letters()).await.unwrap();
    assert!(dead.is_empty(), "{dead:?}");
    let schemas = events::Schemas::new();
    schemas.insert(id, &other);
    let steps = read_topic(&stage.bus.brokers, &stage.topics.steps("default")).await.unwrap();
    let under_it =
        steps.iter().filter(|record| decode_slip(&schemas, record.value.as_deref().unwrap_or_default()).is_ok());
    assert_eq!(under_it.count(), 2, "as it came, and as it came again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_kafka_is_away_nothing_is_lost_and_work_goes_on_after() {
    const JOBS: usize = 100;
    let mut kafka = test_kit::Kafka::start(test_kit::KafkaOptions::default()).await.unwrap();
    let receiver = Receiver::start().await;
    let mut stage = Stage::on(kafka.brokers(), test_kit::registry().await, FLOW).await;
    stage.env.push(("SHOP_URL".to_owned(), receiver.url()));
    for number in 0..JOBS {
        stage.submit(json!({ "key": format!("k{number}") })).await;
    }
    let running = stage.work("a", Workers::builder().build());
    eventually(PATIENCE, "some steps were run", async || Some(()).filter(|()| receiver.requests().len() > 20)).await;
    kafka.kill9();
    kafka.restart().await.unwrap();
    assert_eq!(stage.ends().await.len(), JOBS);
    running.stop().await;
    assert_eq!(stage.tokens().await.slips.len(), JOBS * 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_under_one_name_say_so_and_split_nothing() {
    let receiver = Receiver::start().await;
    let mut stage = Stage::new(FLOW).await;
    stage.env.push(("SHOP_URL".to_owned(), receiver.url()));
    let (one, two) = (stage.work("twin", Workers::builder().build()), stage.work("twin", Workers::builder().build()));
    // Each learns of the other when it has something to commit, so both have to be given work.
    let number = AtomicUsize::new(0);
    let told = eventually(PATIENCE, "one of them says that there is another", async || {
        stage.submit(json!({ "key": format!("k{}", number.fetch_add(1, Relaxed)) })).await;
        let all = [one.readiness.dependencies(), two.readiness.dependencies()].concat();
        all.into_iter().find(|dependency| dependency.name == "instance" && !dependency.ok)
    });
    assert!(told.await.message.contains("MEANWHILE_INSTANCE"));
    two.stop().await;
    stage.ends().await;
    one.stop().await;
    stage.tokens().await;
}
