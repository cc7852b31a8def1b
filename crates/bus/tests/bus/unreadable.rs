//! Batches that cannot be read at all: their partition stops, all others go on, and somebody can pass them over.

use std::ops::Range;

use bus::{ConsumerError, OffsetCommit, Record, Start, TopicPartition};
use test_kit::{Kafka, KafkaOptions};
use tokio::sync::OnceCell;

use crate::kit::{Cluster, Happening, Watched, blocking, committed_or_beginning, record, text};

static KAFKA: OnceCell<Kafka> = OnceCell::const_new();

async fn kafka() -> &'static Kafka {
    KAFKA.get_or_init(async || Kafka::start(KafkaOptions::default()).await.unwrap()).await
}

/// Some records of one key, in one transaction. Returns their place.
async fn send(cluster: &Cluster, value: &str, count: usize) -> TopicPartition {
    let mut producer = cluster.producer("one-key").await;
    let records: Vec<Record> =
        (0..count).map(|_| Record { key: Some(b"one".to_vec()), ..record(&cluster.topic(), value) }).collect();
    blocking(move || {
        producer.begin().unwrap();
        records.iter().for_each(|record| producer.send(record).unwrap());
        producer.commit().unwrap();
    })
    .await;
    let ends = cluster.admin.end_offsets(&[cluster.topic()]).await.unwrap();
    ends.into_iter().find(|(_, end)| *end > 0).map(|(place, _)| place).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_checksum_is_wrong_is_read_as_it_is() {
    let kafka = kafka().await;
    let cluster = Cluster::at(kafka.brokers()).await;
    cluster.admin.commit_initial_offsets(&cluster.group(), &[cluster.topic()]).await.unwrap();
    let place = send(&cluster, "value", 1).await;
    kafka.damage_last_batch(&place.topic, place.partition).unwrap();
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    let records = watched.records(1).await;
    // The damage is in the last header, so that the value is whole.
    assert_eq!((text(&records[0]).as_str(), records[0].offset), ("value", 0));
    assert_ne!(records[0].headers, record(&cluster.topic(), "value").headers, "nothing was damaged");
    cluster.commit(["behind".to_owned()]).await;
    assert_eq!(watched.values(1).await, ["behind"]);
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_cut_off_stops_its_partition_and_no_other_one() {
    let kafka = kafka().await;
    let cluster = Cluster::at(kafka.brokers()).await;
    cluster.admin.commit_initial_offsets(&cluster.group(), &[cluster.topic()]).await.unwrap();
    let place = send(&cluster, "before", 3).await;
    send(&cluster, "within", 1).await;
    let cut = kafka.cut_last_batch_off(&place.topic, place.partition).unwrap();
    send(&cluster, "behind", 3).await;
    // A reader hears nothing of it: only its lag tells.
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    let others: Vec<String> = (0..30).map(|number| format!("other-{number}")).collect();
    cluster.commit(others).await;
    let elsewhere = watched
        .find(|happening| match happening {
            Happening::Record(record) if record.partition != place.partition => Some(text(&record)),
            Happening::Record(record) => {
                assert!(record.offset < cut.start, "{}", text(&record));
                None
            }
            error @ Happening::Error(_) => panic!("{error:?}"),
            _ => None,
        })
        .await;
    assert!(elsewhere.starts_with("other-"), "{elsewhere}");
    // It is found where somebody asks for it, with its end.
    let batch = cluster.admin.unreadable_batch(&place, cut.start).await.unwrap().unwrap();
    assert_eq!(batch.end, cut.end, "{}", batch.reason);
    assert!(batch.reason.contains("cut off"), "{}", batch.reason);
    assert_eq!(cluster.admin.unreadable_batch(&place, cut.end).await.unwrap(), None);
    let (target, end) = (place.clone(), cut.end);
    watched.order(move |commands| commands.seek(target, Start::Offset(end)));
    let behind = watched
        .find(|happening| match happening {
            Happening::Record(record) if record.partition == place.partition => Some(record),
            _ => None,
        })
        .await;
    assert!(behind.offset >= cut.end, "{}", behind.offset);
    watched.stop().await;
}

pub(crate) struct Gap {
    pub(crate) cluster: Cluster,
    pub(crate) place: TopicPartition,
    pub(crate) spoilt: Range<i64>,
}

/// A partition with a batch that can be read, one that cannot, and one that can.
pub(crate) async fn gap() -> Gap {
    let kafka = kafka().await;
    let cluster = Cluster::at(kafka.brokers()).await;
    cluster.admin.commit_initial_offsets(&cluster.group(), &[cluster.topic()]).await.unwrap();
    let place = send(&cluster, "before", 3).await;
    send(&cluster, "within", 20).await;
    let spoilt = kafka.spoil_last_batch(&place.topic, place.partition).unwrap();
    send(&cluster, "behind", 3).await;
    Gap { cluster, place, spoilt }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_decompressed_stops_its_partition_and_no_other_one() {
    let Gap { cluster, place, spoilt } = gap().await;
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    let mut before = 0;
    let stuck = watched
        .find(|happening| match happening {
            Happening::Record(record) => {
                assert!(record.offset < spoilt.start, "{}", text(&record));
                before = record.offset + 1;
                None
            }
            Happening::Error(ConsumerError::Unreadable { topic, partition, offset, reason }) => {
                Some((TopicPartition::new(topic, partition), offset, reason))
            }
            _ => None,
        })
        .await;
    assert_eq!((&stuck.0, stuck.1), (&place, before), "{}", stuck.2);
    // All others are read, and nothing comes from behind the gap.
    let others: Vec<String> = (0..30).map(|number| format!("other-{number}")).collect();
    cluster.commit(others).await;
    let elsewhere = watched
        .find(|happening| match happening {
            Happening::Record(record) => Some(record.partition),
            error @ Happening::Error(_) => panic!("told once: {error:?}"),
            _ => None,
        })
        .await;
    assert_ne!(elsewhere, place.partition);
    // The batch is found with its whole length, from wherever in it; what can be read is left alone.
    for offset in [before, spoilt.start, spoilt.end - 1] {
        let batch = cluster.admin.unreadable_batch(&place, offset).await.unwrap().unwrap();
        assert_eq!(batch.end, spoilt.end, "from {offset}: {}", batch.reason);
    }
    for offset in [0, spoilt.end] {
        assert_eq!(cluster.admin.unreadable_batch(&place, offset).await.unwrap(), None, "{offset}");
    }
    let (target, end) = (place.clone(), spoilt.end);
    watched.order(move |commands| commands.seek(target, Start::Offset(end)));
    let behind = watched
        .find(|happening| match happening {
            Happening::Record(record) if record.partition == place.partition => Some(record),
            _ => None,
        })
        .await;
    assert!(behind.offset >= spoilt.end, "{}", behind.offset);
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_groups_offset_is_moved_behind_such_a_batch_once_and_from_where_it_stood() {
    let Gap { cluster, place, spoilt } = gap().await;
    let (group, letter) = (cluster.group(), record(&cluster.topics.dead_letters(), "gap"));
    // A member is at work meanwhile.
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    watched.assigned().await;
    let refused = cluster.admin.pass_over(&group, &place, spoilt.start, spoilt.end, &letter).await.unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");
    let (member, mut producer) = (watched.control.group_metadata().unwrap(), cluster.producer("mover").await);
    let commit = OffsetCommit {
        topic: place.topic.clone(),
        partition: place.partition,
        next_offset: spoilt.start,
        metadata: None,
    };
    blocking(move || {
        producer.begin().unwrap();
        producer.send_offsets(&[commit], &member).unwrap();
        producer.commit().unwrap();
    })
    .await;
    cluster.admin.pass_over(&group, &place, spoilt.start, spoilt.end, &letter).await.unwrap();
    let committed = cluster.admin.committed(&group, &[cluster.topic()]).await.unwrap();
    assert_eq!(committed.get(&place), Some(&spoilt.end));
    assert!(cluster.admin.pass_over(&group, &place, spoilt.start, spoilt.end, &letter).await.is_err());
    let letters = cluster.admin.end_offsets(&[cluster.topics.dead_letters()]).await.unwrap();
    // The record and its transaction's marker.
    assert_eq!(letters.values().sum::<i64>(), 2);
    watched.stop().await;
}
