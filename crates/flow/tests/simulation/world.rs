//! Queues, workers with transactions, holds, an operator: as much of the system as a token meets.

use std::collections::{BTreeMap, BTreeSet};

use flow::decide::{
    Decision, Missing, MissingKind, Next, Outcome, Prepared, advance, asks_first, begin_time, prepare, redelivered,
    rest_until_there, start, start_later,
};
use flow::definition::Definition;
use flow::event::EventKind;
use flow::id::JobId;
use flow::slip::{Hold, Phase, Slip};
use serde_json::Value;
use uuid::Uuid;

use crate::chance::Chance;
use crate::completions::{Callback, env};
use crate::generate::{QUEUES, definition, new_job};
use crate::ledger::Ledger;
use crate::operator::Word;
use crate::service::{Memory, Service, Told};
use crate::tally::Tally;

pub(crate) const WORKERS: usize = 3;
pub(crate) const PARTITIONS_PER_QUEUE: usize = 2;
/// From then on nothing goes wrong any more, so that every job can end.
const CALM_AFTER_TICKS: u32 = 400;
const TICKS_MAX: u32 = 20_000;

/// A token at rest: job and hop.
pub(crate) type Rest = (JobId, u32);

/// All slips of a partition are of one ordering key.
#[derive(Default)]
pub(crate) struct Partition {
    pub(crate) log: Vec<Slip>,
    /// Offsets that are committed as done, also out of order.
    pub(crate) done: Vec<bool>,
    /// The long call behind which the others rest.
    pub(crate) holder: Option<Rest>,
    pub(crate) owner: usize,
    pub(crate) epoch: u32,
    /// What lay there when the owner got it may have been run before.
    pub(crate) end_at_assignment: usize,
}

/// A slip in flight. It belongs to the assignment under which it was taken.
pub(crate) struct Task {
    pub(crate) worker: usize,
    pub(crate) partition: usize,
    pub(crate) epoch: u32,
    pub(crate) offset: usize,
    pub(crate) slip: Slip,
    pub(crate) told: Vec<Told>,
    pub(crate) ready: Option<Decision>,
    /// It has left its partition, and its token rests here.
    pub(crate) apart: Option<Rest>,
    /// When it was taken, and what was left of its step's time then.
    time: (i64, Option<i64>),
}

pub(crate) struct World {
    pub(crate) chance: Chance,
    pub(crate) definition: Definition,
    pub(crate) now_ms: i64,
    pub(crate) trouble: usize,
    tick: u32,
    pub(crate) jobs: Vec<JobId>,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) holds: BTreeMap<Rest, (Hold, Option<i64>)>,
    /// What waits behind each long call, in order.
    pub(crate) turns: BTreeMap<Rest, Vec<Rest>>,
    pub(crate) wishes: BTreeSet<JobId>,
    /// Signals that nothing has used yet, in order.
    pub(crate) signals: BTreeMap<(JobId, &'static str), u64>,
    /// The first callback of each round, and whether a token has gone on with it.
    pub(crate) callbacks: BTreeMap<(JobId, String), (Value, bool)>,
    pub(crate) on_the_way: Vec<Callback>,
    /// Words of operators on their way.
    pub(crate) words: Vec<Word>,
    /// True: no operator sends a step on whose end can be known.
    pub(crate) is_careful: bool,
    /// Dead letters, each with its queue.
    pub(crate) letters: Vec<(Slip, usize)>,
    pub(crate) service: Service,
    pub(crate) ledger: Ledger,
    pub(crate) tally: Tally,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let memory = [Memory::Whole, Memory::OfDeeds, Memory::None][chance.below(3)];
        let definition = definition(&mut chance, memory == Memory::OfDeeds);
        let partition = |index| Partition { owner: index % WORKERS, ..Partition::default() };
        let mut world = Self {
            trouble: [0, 10, 30, 60][chance.below(4)],
            now_ms: 1_700_000_000_000,
            tick: 0,
            jobs: Vec::new(),
            partitions: (0..QUEUES.len() * PARTITIONS_PER_QUEUE).map(partition).collect(),
            tasks: Vec::new(),
            holds: BTreeMap::new(),
            turns: BTreeMap::new(),
            wishes: BTreeSet::new(),
            signals: BTreeMap::new(),
            callbacks: BTreeMap::new(),
            on_the_way: Vec::new(),
            words: Vec::new(),
            is_careful: chance.percent(50),
            letters: Vec::new(),
            service: Service::new(memory),
            ledger: Ledger::new(definition.clone()),
            tally: Tally::default(),
            chance,
            definition,
        };
        for _ in 0..=world.chance.below(3) {
            world.accept();
        }
        world
    }

    pub(crate) fn run(mut self) -> Tally {
        while !self.jobs.iter().all(|job| self.ledger.has_ended(*job)) {
            self.tick += 1;
            assert!(self.tick < TICKS_MAX, "the jobs do not end");
            self.act();
            self.count_tokens();
        }
        // Zombies wake up late; nothing that they do counts.
        while let Some(task) = self.tasks.pop() {
            if self.may_begin(&task) {
                self.attempt(task);
            }
        }
        self.service.pass_time(i64::MAX);
        self.tally.cancelled_too_late =
            self.wishes.iter().filter(|job| self.ledger.has_succeeded(**job)).count() as u64;
        for job in &self.jobs {
            self.ledger.close(*job, self.wishes.contains(job), &self.service);
        }
        self.tally.undone = self.service.undone.len() as u64;
        (self.tally.undone_again, self.tally.came_late) = (self.service.undone_again, self.service.came_late);
        self.tally
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.tick > CALM_AFTER_TICKS
    }

    /// Anything that may happen next.
    fn act(&mut self) {
        match self.chance.below(100) {
            0..=29 => self.take(),
            30..=59 => self.run_any(),
            60..=79 => {
                let worker = self.chance.below(WORKERS);
                self.commit(worker);
            }
            80..=85 => self.pass_time(),
            86..=87 => self.lose_call(),
            88..=89 => self.detach_any(),
            90..=91 => self.act_as_operator(),
            92 => self.send_signal(),
            // A job that waits in vain may go back, so it ends only by its signals.
            _ if self.is_calm() => self.send_signal(),
            93 => self.kill_any(),
            94..=96 => self.reassign_any(),
            97 if self.chance.percent(14) => {
                let job = self.jobs[self.chance.below(self.jobs.len())];
                self.cancel(job);
            }
            _ => {}
        }
    }

    fn accept(&mut self) {
        let job = JobId::new(Uuid::from_u128(u128::from(self.chance.next())));
        self.jobs.push(job);
        let new = new_job(job);
        let decision = match self.chance.below(4) {
            0 => start_later(&self.definition, new, 5_000, self.now_ms),
            _ => start(&self.definition, new, self.now_ms),
        };
        self.ledger.accepted(job, &decision);
        self.move_token(decision.next);
    }

    pub(crate) fn move_token(&mut self, next: Next) {
        match next {
            Next::Step { slip, queue } => self.send(slip, &queue),
            Next::Hold(hold) => {
                let after_ms = hold.release_after_ms.map(|ms| i64::try_from(ms).expect("a delay is short"));
                let due_ms = after_ms.map(|after_ms| self.now_ms + after_ms);
                let job = hold.slip.job;
                let earlier = self.holds.insert((job, hold.slip.hop), (hold, due_ms));
                assert!(earlier.is_none(), "two holds of one hop");
                self.meet_signal(job);
                self.meet_callback(job);
            }
            Next::RetryNow { .. } => panic!("a retry in the process is never committed"),
            Next::End => {}
        }
    }

    pub(crate) fn send(&mut self, slip: Slip, queue: &str) {
        let queue = QUEUES.iter().position(|known| *known == queue).expect("the flow names known queues");
        let by_key = usize::from(slip.job.uuid().as_bytes()[15]) % PARTITIONS_PER_QUEUE;
        let partition = &mut self.partitions[queue * PARTITIONS_PER_QUEUE + by_key];
        partition.log.push(slip);
        partition.done.push(false);
    }

    /// The owner of a partition takes any slip of it that is neither done nor in flight: order is not relied upon.
    fn take(&mut self) {
        let index = self.chance.below(self.partitions.len());
        let partition = &self.partitions[index];
        let in_flight = |offset: usize| {
            let same = |task: &Task| (task.partition, task.epoch, task.offset) == (index, partition.epoch, offset);
            self.tasks.iter().any(same)
        };
        let open: Vec<usize> =
            (0..partition.log.len()).filter(|offset| !partition.done[*offset] && !in_flight(*offset)).collect();
        let Some(offset) = open.get(self.chance.below(open.len())).copied() else { return };
        if self.is_buried(index, offset) {
            return;
        }
        let partition = &self.partitions[index];
        if partition.holder.is_some() {
            return self.rest(index, offset);
        }
        let (mut slip, mut told) = (partition.log[offset].clone(), Vec::new());
        self.ledger.taken(&slip);
        let (worker, epoch) = (partition.owner, partition.epoch);
        if offset < partition.end_at_assignment {
            slip = redelivered(slip);
            if !self.is_once_only(&slip) {
                told.push(Told::Redelivered);
            }
            self.tally.redeliveries += 1;
        }
        let slip = begin_time(&self.definition, slip);
        let time = (self.now_ms, slip.step_left_ms);
        self.tasks.push(Task { worker, partition: index, epoch, offset, slip, told, ready: None, apart: None, time });
    }

    fn run_any(&mut self) {
        let waiting: Vec<usize> = (0..self.tasks.len()).filter(|index| self.tasks[*index].ready.is_none()).collect();
        let Some(index) = waiting.get(self.chance.below(waiting.len())).copied() else { return };
        let task = self.tasks.swap_remove(index);
        if self.may_begin(&task) {
            let task = self.attempt(task);
            self.tasks.push(task);
        }
    }

    /// One attempt, by an owner or by a zombie.
    fn attempt(&mut self, mut task: Task) -> Task {
        let (since_ms, left_ms) = task.time;
        task.slip.step_left_ms = left_ms.map(|left_ms| (left_ms - (self.now_ms - since_ms)).max(0));
        if self.is_held_back(&mut task) || !self.mark(&mut task) {
            return task;
        }
        let outcome = match self.outcome(&mut task) {
            Ok(outcome) => outcome,
            Err(missing) => {
                self.tally.missing += 1;
                let queue = QUEUES[task.queue()];
                // A worker that does not know the flow does not know its length either.
                let steps_total = self.chance.below(2) as u32;
                task.ready = Some(rest_until_there(&task.slip, queue, steps_total, &missing, self.now_ms));
                return task;
            }
        };
        let mut decision = advance(&self.definition, &task.slip, outcome.clone(), self.now_ms);
        let calls = self.definition.step(&task.slip.step).is_some_and(|step| step.action(Phase::Forward).is_some());
        self.tally.out_of_time += u64::from(task.slip.is_step_over());
        self.tally.said_not_done += u64::from(outcome == Outcome::NotDone);
        let asks = asks_first(&self.definition, &task.slip);
        self.tally.said_done += u64::from(asks && matches!(outcome, Outcome::Succeeded { .. }));
        let forward_success = calls && task.slip.phase == Phase::Forward && task.told.last() == Some(&Told::Succeeded);
        if forward_success && !self.is_calm() && self.chance.percent(3) {
            self.tally.too_large += 1;
            *task.told.last_mut().expect("it was told of a success") = Told::Done;
            decision = advance(&self.definition, &task.slip, Outcome::too_large("too large"), self.now_ms);
        }
        match decision.next {
            Next::RetryNow { slip, .. } => {
                assert!(decision.events.is_empty());
                task.slip = slip;
            }
            Next::Step { .. } | Next::Hold(_) | Next::End => task.ready = Some(decision),
        }
        task
    }

    /// Or what is not at this worker now: its flow, a native step, a setting.
    fn outcome(&mut self, task: &mut Task) -> Result<Outcome, Missing> {
        if !self.is_calm() && self.chance.percent(5) {
            let what = ["the flow", "the step", "a secret"][self.chance.below(3)].to_owned();
            return Err(Missing { kind: MissingKind::Setting, what });
        }
        if self.heeds_cancel(&task.slip) {
            return Ok(Outcome::Cancelled);
        }
        Ok(match prepare(&self.definition, &task.slip, &env(), self.now_ms) {
            Prepared::Native(call) => {
                self.ledger.called(&task.slip, &call.idempotency_key);
                let trouble = self.trouble_now();
                let (told, outcome) = match self.is_once_only(&task.slip) {
                    true => self.service.call_once(&mut self.chance, &call, trouble, self.now_ms),
                    false => self.service.call(&mut self.chance, &call, trouble, self.now_ms),
                };
                task.told.push(told);
                if self.is_broken_off(task) {
                    return Ok(Outcome::Cancelled);
                }
                outcome
            }
            Prepared::Outcome(outcome) => {
                if !self.hear_verdict(task, &outcome) {
                    self.hear(task, &outcome);
                }
                outcome
            }
            Prepared::Http(_) if asks_first(&self.definition, &task.slip) => self.ask_whether(task),
            Prepared::Http(call) => {
                let outcome = self.ask(task, &call);
                if call.idempotency_key.is_some() && self.is_broken_off(task) {
                    return Ok(Outcome::Cancelled);
                }
                outcome
            }
            Prepared::Simulated(simulated) => self.simulated(task, simulated),
            Prepared::Missing(_) => panic!("the simulated flows are whole"),
        })
    }

    /// One transaction of a worker: all that is ready and still its own, or nothing.
    fn commit(&mut self, worker: usize) {
        let (kill_before, kill_after) = match self.is_calm() {
            true => (false, false),
            false => (self.chance.percent(4), self.chance.percent(4)),
        };
        if kill_before {
            return self.kill(worker);
        }
        let mut kept = Vec::new();
        for task in std::mem::take(&mut self.tasks) {
            match task.ready {
                Some(_) if task.worker == worker && task.apart.is_some() => self.end_apart(task),
                Some(_) if task.worker == worker => self.commit_task(task),
                Some(_) | None => kept.push(task),
            }
        }
        self.tasks = kept;
        if kill_after {
            self.tally.kills_after_commit += 1;
            self.kill(worker);
        }
    }

    fn commit_task(&mut self, task: Task) {
        let partition = &mut self.partitions[task.partition];
        if partition.epoch != task.epoch {
            self.tally.zombie_results_refused += 1;
            return;
        }
        assert!(!partition.done[task.offset], "one offset, one commit");
        partition.done[task.offset] = true;
        let decision = task.ready.expect("only what is ready is committed");
        let came = partition.log[task.offset].clone();
        self.ledger.committed(&came, &task.told, &decision);
        let skips = decision.events.iter().filter(|event| event.kind == EventKind::StepSkipped);
        let falls = |step: &str| self.definition.step(step).is_some_and(|step| step.wait().is_none());
        let fallen = skips.filter(|event| event.data.is_some() && event.step.as_deref().is_some_and(falls));
        self.tally.fallen_back += fallen.count() as u64;
        self.move_token(decision.next);
    }

    /// How many calls of a hundred go wrong.
    pub(crate) fn trouble_now(&self) -> usize {
        if self.is_calm() { 0 } else { self.trouble }
    }

    /// One token per living job, none per ended one.
    fn count_tokens(&self) {
        for job in &self.jobs {
            let queued = self.partitions.iter().flat_map(|partition| partition.log.iter().zip(&partition.done));
            let queued = queued.filter(|(slip, done)| slip.job == *job && !**done).count();
            let held = self.holds.keys().filter(|(owner, _)| owner == job).count();
            let buried = self.letters.iter().filter(|(slip, _)| slip.job == *job).count();
            let expected = usize::from(!self.ledger.has_ended(*job));
            assert_eq!(queued + held + buried, expected, "a job has one token until it ends");
        }
    }
}
