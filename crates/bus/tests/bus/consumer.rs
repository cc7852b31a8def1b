//! The consumer: start offsets of our choice, partitions that come and go without loss, errors that name the place.

use std::collections::BTreeSet;
use std::time::Duration;

use bus::{ConsumerError, Start, TopicPartition};

use crate::kit::{
    Cluster, Happening, LONG, Watched, blocking, committed_or_beginning, next_offsets, numbered, record, sorted, text,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_consumer_is_assigned_only_what_the_first_has_given_back_and_nothing_is_lost() {
    let cluster = Cluster::shared().await;
    cluster.admin.commit_initial_offsets(&cluster.group(), &[cluster.topic()]).await.unwrap();
    let mut first = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    assert_eq!(first.assigned().await.len(), 6);
    let mut second = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    let gone = first
        .find(|happening| match happening {
            Happening::Revoked(partitions, lost) => Some((partitions, lost)),
            _ => None,
        })
        .await;
    // `revoked` was told before `assigned` can be: the second gets just these.
    let mine = second.assigned().await;
    let given: BTreeSet<i32> = gone.0.iter().map(|place| place.partition).collect();
    let taken: BTreeSet<i32> = mine.iter().map(|place| place.partition).collect();
    assert_eq!((gone.1, &given), (false, &taken));
    assert_eq!(given.len(), 3);
    cluster.commit(numbered("r", 200)).await;
    let mut seen = Vec::new();
    while seen.len() < 200 {
        let (record, to_second) = tokio::select! {
            happening = first.next() => (happening, false),
            happening = second.next() => (happening, true),
        };
        if let Happening::Record(record) = record {
            assert_eq!(taken.contains(&record.partition), to_second, "a record goes to the partition's owner");
            seen.push(text(&record));
        }
    }
    assert_eq!(sorted(seen), sorted(numbered("r", 200)));
    second.stop().await;
    let back = first.assigned().await;
    assert_eq!(back.iter().map(|place| place.partition).collect::<BTreeSet<i32>>(), taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_in_every_codec_that_kafka_knows() {
    let mut cluster = Cluster::shared().await;
    cluster.admin.commit_initial_offsets(&cluster.group(), &[cluster.topic()]).await.unwrap();
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        cluster.settings.properties.insert("compression.codec".to_owned(), codec.to_owned());
        // A batch is compressed only where that makes it smaller.
        let values = numbered(&format!("{codec}-{}", codec.repeat(100)), 20);
        cluster.commit(values.clone()).await;
        let records = watched.records(20).await;
        assert_eq!(sorted(records.iter().map(text).collect()), sorted(values), "{codec}");
    }
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_transaction_can_be_committed_while_partitions_are_given_back() {
    struct Last {
        control: bus::Control,
        cluster: (bus::Settings, String),
        records: Vec<bus::Inbound>,
        done: tokio::sync::mpsc::UnboundedSender<Result<(), bus::TxError>>,
        seen: tokio::sync::mpsc::UnboundedSender<()>,
    }
    impl bus::Handler for Last {
        fn assigned(&mut self, partitions: &[bus::AssignedPartition]) -> anyhow::Result<Vec<Start>> {
            Ok(vec![Start::Beginning; partitions.len()])
        }
        fn revoked(&mut self, _: &[TopicPartition], _: bool) {
            let group = self.control.group_metadata().unwrap();
            let (settings, id) = &self.cluster;
            let mut producer = bus::TransactionalProducer::new(settings, id, LONG).unwrap();
            let outcome = producer
                .init(LONG)
                .and_then(|()| producer.begin())
                .and_then(|()| producer.send_offsets(&next_offsets(&self.records), &group))
                .and_then(|()| producer.commit());
            let _ = self.done.send(outcome);
        }
        fn record(&mut self, record: bus::Inbound, _: &mut bus::Commands) {
            self.records.push(record);
            let _ = self.seen.send(());
        }
        fn tick(&mut self, _: &mut bus::Commands) {}
        fn error(&mut self, _: ConsumerError) {}
    }
    let cluster = Cluster::shared().await;
    cluster.commit(numbered("r", 10)).await;
    let (done, mut outcome) = tokio::sync::mpsc::unbounded_channel();
    let (seen, mut records) = tokio::sync::mpsc::unbounded_channel();
    let place = (cluster.settings.clone(), format!("{}-last", cluster.topics.prefix()));
    let consumer = bus::GroupConsumer::start_with(&cluster.settings, cluster.options(), |control| Last {
        control,
        cluster: place,
        records: Vec::new(),
        done,
        seen,
    })
    .unwrap();
    for _ in 0..10 {
        records.recv().await.unwrap();
    }
    assert!(blocking(move || consumer.stop(LONG)).await);
    assert_eq!(outcome.recv().await.unwrap(), Ok(()));
    let committed = cluster.admin.committed(&cluster.group(), &[cluster.topic()]).await.unwrap();
    assert!(!committed.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_was_trimmed_is_reported_with_its_place_and_never_skipped() {
    let cluster = Cluster::shared().await;
    cluster.commit(numbered("r", 60)).await;
    let ends = cluster.admin.end_offsets(&[cluster.topic()]).await.unwrap();
    let (place, end) = ends.into_iter().max_by_key(|(_, end)| *end).unwrap();
    cluster.admin.delete_records(&[(place.clone(), end)]).await.unwrap();
    let mut watched = Watched::start(&cluster.settings, cluster.options(), |_| Ok(Start::Offset(1)));
    let found = watched
        .find(|happening| match happening {
            Happening::Error(ConsumerError::OffsetOutOfRange { topic, partition, offset, log_start, .. }) => {
                Some((TopicPartition::new(topic, partition), offset, log_start))
            }
            Happening::Record(record) => {
                assert_ne!(record.partition, place.partition);
                None
            }
            _ => None,
        })
        .await;
    assert_eq!(found, (place, 1, end));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_partitions_end_the_consumer_and_are_free_for_another() {
    let cluster = Cluster::shared().await;
    let refuse = |partition: &bus::AssignedPartition| {
        let (topic, partition) = (partition.topic.clone(), partition.partition);
        Err(ConsumerError::NoOffset { topic, partition }.into())
    };
    let mut refusing = Watched::start(&cluster.settings, cluster.options(), refuse);
    let error = refusing.error().await;
    assert!(matches!(error, ConsumerError::Refused(_)) && error.is_fatal(), "{error}");
    let mut second = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    assert_eq!(second.assigned().await.len(), 6);
    test_kit::eventually(LONG, "the refusing consumer ends", async || {
        refusing.consumer.as_ref().unwrap().is_finished().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_partitions_deliver_nothing_and_resume_without_loss() {
    let cluster = Cluster::shared().await;
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    let places: Vec<TopicPartition> = watched.assigned().await.iter().map(bus::AssignedPartition::place).collect();
    cluster.commit(numbered("before", 50)).await;
    watched.records(50).await;
    let paused = places.clone();
    let (told, mut done) = tokio::sync::mpsc::unbounded_channel();
    watched.order(move |commands| {
        commands.pause(paused);
        let _ = told.send(());
    });
    done.recv().await.unwrap();
    cluster.commit(numbered("while", 50)).await;
    let mut other = Watched::start(
        &cluster.settings,
        bus::ConsumerOptions { group: format!("{}-other", cluster.group()), ..cluster.options() },
        committed_or_beginning,
    );
    other.records(100).await;
    assert!(!watched.so_far().iter().any(|happening| matches!(happening, Happening::Record(_))));
    watched.order(move |commands| commands.resume(places));
    assert_eq!(watched.values(50).await, sorted(numbered("while", 50)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_reads_again_from_there_and_nothing_from_before_it() {
    let cluster = Cluster::shared().await;
    cluster.commit(numbered("r", 100)).await;
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    let first = watched.records(100).await;
    let of_zero = |records: &[bus::Inbound]| -> Vec<i64> {
        records.iter().filter(|record| record.partition == 0).map(|record| record.offset).collect()
    };
    let offsets = of_zero(&first);
    let place = TopicPartition::new(cluster.topic(), 0);
    let start = offsets[2];
    watched.order(move |commands| commands.seek(place, Start::Offset(start)));
    assert_eq!(of_zero(&watched.records(offsets.len() - 2).await), offsets[2..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_subscribed_at_run_time_is_read_too() {
    let cluster = Cluster::shared().await;
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    watched.assigned().await;
    assert!(cluster.admin.ensure_queue(&cluster.topics, "late", &cluster.group(), None).await.unwrap());
    let late = cluster.topics.steps("late");
    let both = vec![cluster.topic(), late.clone()];
    watched.order(move |commands| commands.subscribe(both));
    let assigned = watched.assigned().await;
    assert!(assigned.iter().all(|place| place.topic == late && place.committed == Some(0)), "{assigned:?}");
    bus::Producer::new(&cluster.settings).unwrap().send(&record(&late, "x")).await.unwrap();
    assert_eq!(watched.values(1).await, ["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_fetching_was_stopped_is_read_again_after_it_went_and_came_back() {
    let cluster = Cluster::shared().await;
    let mut first = Watched::start(&cluster.settings, cluster.options(), |_| Ok(Start::End));
    assert_eq!(first.assigned().await.len(), 6);
    let all: Vec<TopicPartition> = (0..6).map(|partition| TopicPartition::new(cluster.topic(), partition)).collect();
    let paused = all.clone();
    first.order(move |commands| commands.pause(paused));
    // More than is kept of paused partitions: what has been full for a second is fetched no more.
    let large = "x".repeat(400_000);
    cluster.commit((0..40).map(|number| format!("{number} {large}"))).await;
    // Nothing tells that it was stopped. Were it not by now, the test would only show less.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut second = Watched::start(&cluster.settings, cluster.options(), |_| Ok(Start::End));
    let gone: BTreeSet<i32> = second.assigned().await.iter().map(|place| place.partition).collect();
    second.stop().await;
    let back: BTreeSet<i32> = first
        .find(|happening| match happening {
            Happening::Assigned(partitions) if !partitions.is_empty() => Some(partitions),
            _ => None,
        })
        .await
        .iter()
        .map(|place| place.partition)
        .collect();
    assert_eq!(back, gone);
    first.order(move |commands| commands.resume(all));
    let mut missing = back;
    let mut number = 0;
    while !missing.is_empty() {
        // Its end is known to nobody while it is not fetched: another record, until each was read.
        cluster.commit([format!("after {number}")]).await;
        number += 1;
        assert!(number < 200, "nothing comes of partitions {missing:?}");
        first.so_far().iter().for_each(|happening| match happening {
            Happening::Record(record) if text(record).starts_with("after") => {
                missing.remove(&record.partition);
            }
            _ => {}
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_hangs_with_much_to_read_does_not_stop_another_one() {
    let cluster = Cluster::shared().await;
    assert!(cluster.admin.ensure_queue(&cluster.topics, "other", &cluster.group(), None).await.unwrap());
    let other = cluster.topics.steps("other");
    let mut options = cluster.options();
    options.topics.push(other.clone());
    let mut watched = Watched::start(&cluster.settings, options, committed_or_beginning);
    let mut assigned = 0;
    while assigned < 12 {
        assigned += watched.assigned().await.len();
    }
    let places = |topic: &str| -> Vec<TopicPartition> {
        (0..6).map(|partition| TopicPartition::new(topic, partition)).collect()
    };
    // One hangs, with more than is kept of it.
    let hung = places(&cluster.topic());
    watched.order(move |commands| commands.pause(hung));
    let large = "x".repeat(400_000);
    cluster.commit((0..40).map(|number| format!("{number} {large}"))).await;
    // The other is paused for a moment again and again, as it is when its own slips are many.
    let producer = bus::Producer::new(&cluster.settings).unwrap();
    for round in 0..40 {
        let (pause, resume) = (places(&other), places(&other));
        let (told, mut done) = tokio::sync::mpsc::unbounded_channel();
        watched.order(move |commands| {
            commands.pause(pause);
            let _ = told.send(());
        });
        done.recv().await.unwrap();
        producer.send(&record(&other, &format!("{round}"))).await.unwrap();
        watched.order(move |commands| commands.resume(resume));
        assert_eq!(watched.values(1).await, [format!("{round}")]);
    }
}
