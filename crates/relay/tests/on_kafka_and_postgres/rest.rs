//! Slips whose queue has no topic: each rests, and all other rows go on.

use bus::{Reader, Registry};
use events::record::Inbound;
use events::wait::Wait;
use events::{Record, Writer, decode_event, decode_wait};
use store::reader::Way;
use test_kit::{TEST_TRACE, sample_job, sample_slip};

use crate::refuse::delete;
use crate::stage::{QUEUE, Stage};

/// A stage with a registry, and the writer of its slips.
async fn stage() -> (Stage, Reader, Writer) {
    let registry = test_kit::registry().await;
    let settings = bus::Settings::new(test_kit::kafka().await, &registry);
    let stage = Stage::with(settings, test_kit::postgres_database().await, Way::Logical).await;
    let reader = Reader::new(Registry::new(&registry, None).unwrap());
    let ids = reader.writer_ids(&stage.topics).await.unwrap();
    let writer = Writer { topics: stage.topics.clone(), ids };
    (stage, reader, writer)
}

fn slip(writer: &Writer, queue: &str, hop: u32) -> Record {
    writer.slip(queue, &sample_slip(sample_job(), hop), &TEST_TRACE).unwrap()
}

async fn read(reader: &Reader, record: &Inbound) -> Wait {
    reader.read(record.value.as_deref(), decode_wait).await.unwrap()
}

/// The slip of a hold, to be sent again as the orchestrator does, and how often it has looked.
fn again(writer: &Writer, wait: &Wait) -> (Record, u32, u32) {
    let slip = &wait.hold().unwrap().slip;
    let record = writer.slip("late", slip, &TEST_TRACE).unwrap();
    (record, slip.hop, slip.search.as_ref().unwrap().looks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_whose_queue_has_no_topic_rests_and_all_others_flow() {
    let (stage, reader, writer) = stage().await;
    let mut relay = stage.start();
    stage.commit_records(&[stage.record(0, 1), slip(&writer, "nowhere", 1), stage.record(1, 1)]).await;
    relay.relayed(3).await;
    stage.assert_once_in_order(2).await;
    let waits = stage.read(&stage.topics.waits()).await;
    assert_eq!(waits.len(), 1);
    let wait = read(&reader, &waits[0]).await;
    let hold = wait.hold().unwrap();
    assert_eq!((hold.reason.as_str(), hold.queue.as_str(), hold.slip.hop), ("missing-step", "nowhere", 2));
    assert!(hold.release_after_ms.is_some(), "it looks again");
    let told = stage.read(&stage.topics.events()).await;
    let event = reader.read(told[0].value.as_deref(), decode_event).await.unwrap();
    assert_eq!((told.len(), event.kind.as_str(), event.status.as_str()), (1, "step.retrying", "waiting"));
    let message = event.data.unwrap()["message"].to_string();
    assert!(message.contains("queue `nowhere` has no topic"), "{message}");
    assert_eq!(stage.read(&stage.topics.dead_letters()).await, []);
    assert!(relay.readiness.is_ready(), "nothing waits");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_that_comes_back_and_finds_its_queue_passes_and_else_looks_again() {
    let (stage, reader, writer) = stage().await;
    let mut relay = stage.start();
    stage.commit_records(&[slip(&writer, "late", 1)]).await;
    relay.relayed(1).await;
    let resting = async |place: usize| {
        let waits = stage.read(&stage.topics.waits()).await;
        again(&writer, &read(&reader, &waits[place]).await)
    };
    let (first, hop, looks) = resting(0).await;
    assert_eq!((hop, looks), (2, 1));
    stage.commit_records(std::slice::from_ref(&first)).await;
    relay.relayed(2).await;
    let (_, hop, looks) = resting(1).await;
    assert_eq!((hop, looks), (3, 2));
    stage.admin().create_topics(&stage.topics, &["late".to_owned()].into(), Some(1)).await.unwrap();
    // For a while the topic counts as missing; nothing else tells that this is over.
    let (mut sent, late) = (2, stage.topics.steps("late"));
    let arrived = test_kit::eventually(crate::stage::WITHIN, "the slip is in its queue", async || {
        if let Some(slip) = stage.read(&late).await.pop() {
            return Some(slip);
        }
        let (slip, ..) = resting(usize::try_from(sent).unwrap() - 1).await;
        stage.commit_records(&[slip]).await;
        sent += 1;
        relay.relayed(sent).await;
        None
    })
    .await;
    assert_eq!(arrived.header(events::header::JOB_ID), first.header(events::header::JOB_ID));
    assert_eq!(stage.read(&stage.topics.dead_letters()).await, []);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_topic_is_deleted_meanwhile_stops_no_other_row() {
    let (mut stage, reader, writer) = stage().await;
    stage.kafka.properties.insert("topic.metadata.propagation.max.ms".to_owned(), "100".to_owned());
    let (mut relay, gone) = (stage.start(), stage.topics.steps("gone"));
    let queues = [QUEUE.to_owned(), "gone".to_owned()];
    stage.admin().create_topics(&stage.topics, &queues.into(), Some(1)).await.unwrap();
    // The topic's limit is known from now on, so only producing tells that it is gone.
    stage.commit_records(&[slip(&writer, "gone", 1)]).await;
    relay.relayed(1).await;
    assert_eq!(stage.read(&gone).await.len(), 1);
    delete(&stage, &gone).await;
    stage.commit([0]).await;
    stage.commit_records(&[slip(&writer, "gone", 1), stage.record(1, 3), slip(&writer, "gone", 1)]).await;
    stage.commit([2]).await;
    relay.relayed(6).await;
    stage.assert_once_in_order(3).await;
    let waits = stage.read(&stage.topics.waits()).await;
    assert_eq!(waits.len(), 2);
    for record in &waits {
        assert_eq!(read(&reader, record).await.hold().unwrap().reason.as_str(), "missing-step");
    }
    assert_eq!(stage.read(&stage.topics.dead_letters()).await, []);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_without_a_queue_waits_for_a_registry_that_does_not_answer() {
    let (mut stage, _, writer) = stage().await;
    stage.kafka.registry_url = "http://127.0.0.1:1".to_owned();
    stage.commit_records(&[stage.record(0, 1), slip(&writer, "nowhere", 1)]).await;
    let relay = stage.start();
    let said = relay.says("deliveries", false, "does not exist, and the schema registry is not available").await;
    assert!(said.contains(&stage.topics.steps("nowhere")), "{said}");
    assert_eq!(stage.read(&stage.topics.dead_letters()).await, []);
    relay.stop().await;
}
