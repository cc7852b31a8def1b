use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::ledger::Position;

const LIMITS: Limits =
    Limits { queue_slips_max: 20, queue_bytes_max: 1 << 20, batch_results_max: 8, batch_bytes_max: 1 << 20 };

const TOPIC: &str = "meanwhile.steps.default";

fn place(partition: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, partition)
}

/// A broker's partition, the way a worker sees it: the log, and what was committed.
struct Log {
    place: TopicPartition,
    records: Vec<(i64, u8)>,
    read: usize,
    committed: Position,
    successors: BTreeSet<i64>,
}

impl Log {
    fn new(partition: i32, keys: &[u8]) -> Self {
        // Every third offset is a transaction marker.
        let records = keys.iter().enumerate().map(|(index, key)| ((index + index / 2) as i64, *key)).collect();
        let committed = Position { offset: 0, metadata: String::new() };
        Self { place: place(partition), records, read: 0, committed, successors: BTreeSet::new() }
    }

    fn assign(&mut self, board: &mut Board) {
        let Position { offset, metadata } = &self.committed;
        board.assign(self.place.clone(), *offset, metadata, *offset, Vec::new()).unwrap();
        self.read = self.records.partition_point(|(offset, _)| *offset < self.committed.offset);
    }

    fn read(&mut self) -> Option<Inbound> {
        let (offset, key) = *self.records.get(self.read)?;
        self.read += 1;
        let (topic, partition) = (self.place.topic.clone(), self.place.partition);
        Some(Inbound { topic, partition, offset, key: Some(vec![key]), ..Inbound::default() })
    }
}

/// A worker's life: records come, steps end in any order, transactions commit or abort, partitions come and go.
struct World {
    board: Board,
    logs: Vec<Log>,
    assigned: BTreeSet<usize>,
    running: Vec<Work>,
    batch: Option<Batch>,
    started: BTreeMap<(Epoch, Lane), i64>,
}

impl World {
    fn new(keys: &[Vec<u8>]) -> Self {
        let logs: Vec<Log> = keys.iter().enumerate().map(|(index, keys)| Log::new(index as i32, keys)).collect();
        let (board, assigned) = (Board::new(LIMITS), BTreeSet::new());
        Self { board, logs, assigned, running: Vec::new(), batch: None, started: BTreeMap::new() }
    }

    fn start(&mut self, work: Option<Work>) {
        let Some(work) = work else { return };
        let twin = self.running.iter().any(|other| (other.epoch, other.lane) == (work.epoch, work.lane));
        assert!(!twin, "two of a key at once");
        let before = self.started.insert((work.epoch, work.lane), work.record.offset);
        assert!(before < Some(work.record.offset), "a key's slips start in offset order");
        self.running.push(work);
    }

    fn deliver(&mut self, log: usize) {
        if self.assigned.contains(&log)
            && let Some(record) = self.logs[log].read()
        {
            let delivered = self.board.deliver(record);
            self.start(delivered.start);
        }
    }

    fn finish(&mut self, pick: usize) {
        if self.running.is_empty() {
            return;
        }
        let work = self.running.remove(pick % self.running.len());
        let finished = Finished::new(work.epoch, work.lane, work.record, Vec::new(), false);
        let next = self.board.complete(finished);
        self.start(next);
    }

    fn commit(&mut self) {
        let Some(batch) = self.batch.take() else { return };
        for finished in &batch.results {
            let log = &mut self.logs[finished.record.partition as usize];
            assert!(log.successors.insert(finished.record.offset), "two successors of {:?}", finished.record);
        }
        for (place, position) in &batch.positions {
            self.logs[place.partition as usize].committed = position.clone();
        }
        self.board.committed(&batch);
    }

    fn abort(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.board.aborted(batch);
        }
    }

    /// The revoke callback: bar, wait for the running transaction (its end is `commits`), drop, unbar.
    fn revoke(&mut self, log: usize, commits: bool) {
        if !self.assigned.remove(&log) {
            return;
        }
        self.board.bar();
        assert!(self.board.take_batch(8).is_none(), "no batch while a revocation waits");
        if commits {
            self.commit()
        } else {
            self.abort()
        }
        self.board.revoke(&self.logs[log].place);
        self.board.unbar();
        self.running.retain(|work| !work.revoked.is_cancelled());
    }

    fn take(&mut self, log: usize) {
        if self.assigned.insert(log) {
            self.logs[log].assign(&mut self.board);
        }
    }

    fn step(&mut self, choice: u8, pick: usize) {
        let log = pick % self.logs.len();
        match choice {
            0..=3 => self.deliver(log),
            4..=6 => self.finish(pick),
            7 | 8 => self.batch = self.batch.take().or_else(|| self.board.take_batch(1 + pick % 8)),
            9 | 10 => self.commit(),
            11 => self.abort(),
            12 => self.revoke(log, pick.is_multiple_of(2)),
            13 => self.take(log),
            _ => {
                // The process dies: all that was not committed is gone.
                self.board = Board::new(LIMITS);
                (self.running, self.batch) = (Vec::new(), None);
                self.assigned.clear();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_slip_has_exactly_one_committed_result_whatever_happens_between(
        keys in proptest::collection::vec(proptest::collection::vec(0_u8..4, 0..25), 1..4),
        steps in proptest::collection::vec((0_u8..15, any::<u16>()), 0..300),
    ) {
        let mut world = World::new(&keys);
        for (choice, pick) in steps {
            world.step(choice, pick as usize);
        }
        for round in 0..400 {
            for log in 0..keys.len() {
                world.take(log);
                world.deliver(log);
            }
            world.finish(round);
            world.step(7, 7);
            world.commit();
        }
        for log in &world.logs {
            let all: BTreeSet<i64> = log.records.iter().map(|(offset, _)| *offset).collect();
            prop_assert_eq!(&log.successors, &all);
        }
        prop_assert!(world.board.is_idle() && world.board.slips_in_flight() == 0);
    }
}

#[test]
fn a_full_queue_is_paused_and_goes_on_well_below_its_limit() {
    let keys: Vec<u8> = (0..40).collect();
    let mut world = World::new(&[keys]);
    world.take(0);
    let mut due = Vec::new();
    for _ in 0..20 {
        let record = world.logs[0].read().unwrap();
        let delivered = world.board.deliver(record);
        due.push(delivered.flow_control_due);
        world.start(delivered.start);
    }
    assert_eq!(due.iter().position(|due| *due), Some(19), "only the twentieth fills the queue");
    assert_eq!(world.board.flow_control(), FlowControl { pause: vec![place(0)], resume: vec![] });
    let record = world.logs[0].read().unwrap();
    assert!(!world.board.deliver(record).flow_control_due, "paused already");
    for round in 0..6 {
        assert_eq!(world.board.flow_control(), FlowControl::default(), "still full after {round} commits");
        world.finish(0);
        world.batch = world.board.take_batch(8);
        world.commit();
    }
    assert_eq!(world.board.flow_control(), FlowControl { pause: vec![], resume: vec![place(0)] });
}

#[test]
fn while_draining_nothing_new_starts_and_what_runs_may_finish() {
    let mut world = World::new(&[vec![1, 1, 2]]);
    world.take(0);
    for _ in 0..3 {
        world.deliver(0);
    }
    world.board.drain();
    assert_eq!(world.running.len(), 2);
    world.finish(0);
    world.finish(0);
    assert!(world.running.is_empty(), "the second slip of key 1 is left to the next owner");
    world.batch = world.board.take_batch(8);
    world.commit();
    assert!(world.board.is_idle());
    assert_eq!(world.logs[0].successors.len(), 2);
}

#[test]
fn what_lay_in_a_partition_at_its_assignment_may_have_been_begun_before() {
    let mut board = Board::new(LIMITS);
    board.assign(place(0), 0, "", 1, Vec::new()).unwrap();
    let mut deliver = |offset: i64| {
        let key = Some(offset.to_be_bytes().to_vec());
        let record = Inbound { topic: TOPIC.to_owned(), partition: 0, offset, key, ..Inbound::default() };
        board.deliver(record).start.expect("its lane is free").redelivered
    };
    assert!(deliver(0), "it was there");
    assert!(!deliver(1), "it came later");
}
