//! The handler alone, without its consumer: seeks that are refused for a while, and partitions that come while it is
//! paused.

use tokio::runtime::Runtime;

use super::*;
use crate::consumer::Command;

struct Alone {
    handler: FollowerHandler,
    /// The stored position of each partition.
    stored: Arc<std::sync::atomic::AtomicI64>,
    _runtime: Runtime,
}

fn place(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn record(partition: i32, offset: i64) -> Inbound {
    Inbound { topic: "t".to_owned(), partition, offset, value: Some(vec![0; 10]), ..Inbound::default() }
}

impl Alone {
    fn new(position: i64, records_max: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let stored = Arc::new(std::sync::atomic::AtomicI64::new(position));
        let answered = Arc::clone(&stored);
        let positions = move |places: Vec<TopicPartition>| {
            let found = vec![Some(answered.load(Ordering::Relaxed)); places.len()];
            let found: Pin<Box<dyn Future<Output = _>>> = Box::pin(async move { Ok(found) });
            found
        };
        let handler = FollowerHandler {
            shared: Arc::new(Shared::new(records_max, usize::MAX)),
            control: Control::default(),
            runtime: runtime.handle().clone(),
            positions: Box::new(positions),
            paused: false,
            positions_failed: false,
            tried_at: None,
            looked_at: Instant::now(),
        };
        Self { handler, stored, _runtime: runtime }
    }

    fn assign(&mut self, partition: i32) {
        let TopicPartition { topic, partition } = place(partition);
        let assigned = AssignedPartition { topic, partition, committed: None, metadata: String::new() };
        self.handler.assigned(&[assigned]).unwrap();
    }

    /// The commands that the handler gave.
    fn record(&mut self, partition: i32, offset: i64) -> Vec<Command> {
        let mut commands = Commands::default();
        self.handler.record(record(partition, offset), &mut commands);
        commands.queue
    }

    fn tick(&mut self) -> Vec<Command> {
        let mut commands = Commands::default();
        self.handler.tick(&mut commands);
        commands.queue
    }

    /// What `Follower::rewind` does.
    fn conflict(&self) {
        let mut state = self.handler.shared.lock();
        let buffer = state.partitions.get_mut(&place(0)).unwrap();
        let (records, bytes) = buffer.clear();
        buffer.rewinding = Some(Rewinding::Due);
        state.count_out(records, bytes);
    }

    /// First offset, the records' offsets, next offset.
    fn take(&self) -> Vec<(i64, Vec<i64>, i64)> {
        let parts = self.handler.shared.take(100, usize::MAX).parts.into_iter();
        let offsets = |part: &PartitionRecords| part.records.iter().map(|record| record.offset).collect();
        parts.map(|part| (part.first_offset, offsets(&part), part.next_offset)).collect()
    }
}

#[test]
fn after_a_conflict_nothing_is_taken_in_before_the_consumer_has_gone_to_the_stored_position() {
    let mut alone = Alone::new(5, 100);
    alone.assign(0);
    alone.record(0, 5);
    assert_eq!(alone.take(), [(5, vec![5], 6)]);
    alone.conflict();
    alone.stored.store(3, Ordering::Relaxed);
    alone.record(0, 6);
    assert!(matches!(&alone.tick()[..], [Command::Seek(_, Start::Offset(3))]));
    // The client refuses the seek for a while: these are still from where it was.
    alone.record(0, 7);
    assert!(alone.tick().is_empty() && alone.take().is_empty());
    // Meanwhile another conflict: the first seek's end says nothing about the second.
    alone.conflict();
    alone.stored.store(4, Ordering::Relaxed);
    alone.handler.sought(&place(0));
    alone.record(0, 3);
    assert!(matches!(&alone.tick()[..], [Command::Seek(_, Start::Offset(4))]));
    alone.record(0, 8);
    alone.handler.sought(&place(0));
    for offset in [3, 4, 4, 6] {
        alone.record(0, offset);
    }
    assert_eq!(alone.take(), [(4, vec![4, 6], 7)]);
}

#[test]
fn a_partition_that_is_assigned_while_the_caller_is_stuck_is_paused_with_its_first_record() {
    let mut alone = Alone::new(0, 2);
    alone.assign(0);
    assert!(alone.record(0, 0).is_empty() && alone.record(0, 1).is_empty());
    assert!(matches!(&alone.record(0, 2)[..], [Command::Pause(places), ..] if *places == [place(0)]));
    alone.assign(1);
    let paused = alone.record(1, 0);
    assert!(matches!(&paused[..], [Command::Pause(places)] if *places == [place(1)]), "{paused:?}");
    assert_eq!(alone.take().len(), 2);
    assert!(matches!(&alone.tick()[..], [Command::Resume(places)] if *places == [place(0), place(1)]));
}
