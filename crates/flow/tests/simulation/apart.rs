//! Long calls: a task leaves its partition, its token rests as a hold of its worker, and what comes later rests behind
//! it.

use flow::decide::{Next, detach, redelivered, wait_turn};
use flow::slip::{Hold, HoldReason, Phase};
use flow::view::Running;

use crate::generate::QUEUES;
use crate::service::Told;
use crate::world::{PARTITIONS_PER_QUEUE, Rest, Task, World};

impl World {
    /// Any task that runs leaves its partition, if that is its worker's still and no other one has left it.
    pub(crate) fn detach_any(&mut self) {
        let mine = |task: &Task| self.partitions[task.partition].epoch == task.epoch && task.apart.is_none();
        let free = |task: &Task| self.partitions[task.partition].holder.is_none();
        let may = |index: &usize| {
            let task = &self.tasks[*index];
            task.ready.is_none() && mine(task) && free(task)
        };
        let may: Vec<usize> = (0..self.tasks.len()).filter(may).collect();
        let Some(index) = may.get(self.chance.below(may.len())).copied() else { return };
        let mut task = self.tasks.swap_remove(index);
        let hold = self.detach(&mut task);
        if !self.is_once_only(&task.slip) {
            task.slip = hold.slip.clone();
        }
        task.slip.hop = hold.slip.hop;
        self.tally.detached += 1;
        self.tasks.push(task);
        self.move_token(Next::Hold(hold));
    }

    /// The task leaves its partition: its token is to rest in this hold.
    pub(crate) fn detach(&mut self, task: &mut Task) -> Hold {
        let is_once_only = self.is_once_only(&task.slip);
        let partition = &mut self.partitions[task.partition];
        let running = Running { worker: "simulated/1".to_owned(), since_ms: self.now_ms };
        let (hold, event) = detach(&self.definition, &task.slip, &running, self.now_ms);
        let rest = (hold.slip.job, hold.slip.hop);
        assert!(!partition.done[task.offset], "one offset, one commit");
        partition.done[task.offset] = true;
        partition.holder = Some(rest);
        let mut told = std::mem::take(&mut task.told);
        // From now on somebody else may make the call once more.
        if task.slip.phase == Phase::Forward && !is_once_only {
            told.push(Told::Redelivered);
        }
        self.ledger.detached(&task.slip, &told, &hold, &event);
        task.apart = Some(rest);
        hold
    }

    /// The slip rests: its key is taken.
    pub(crate) fn rest(&mut self, index: usize, offset: usize) {
        let partition = &mut self.partitions[index];
        let Some(holder) = partition.holder else { return };
        partition.done[offset] = true;
        let (mut slip, mut told) = (partition.log[offset].clone(), Vec::new());
        // An earlier owner may have called already, before the key was taken.
        if offset < partition.end_at_assignment {
            slip = redelivered(slip);
            if !self.is_once_only(&slip) {
                told.push(Told::Redelivered);
            }
        }
        let hold = wait_turn(&slip, QUEUES[index / PARTITIONS_PER_QUEUE]);
        self.ledger.rested(&slip, &told, &hold);
        self.turns.entry(holder).or_default().push((hold.slip.job, hold.slip.hop));
        self.tally.turns += 1;
        self.move_token(Next::Hold(hold));
    }

    /// The outcome of a long call: it counts if the token still rests as this call.
    pub(crate) fn end_apart(&mut self, task: Task) {
        let Some(rest) = task.apart else { return };
        let Some((hold, _)) = self.holds.remove(&rest) else {
            self.tally.outcomes_refused += 1;
            return;
        };
        assert_eq!(hold.reason, HoldReason::Running);
        let decision = task.ready.expect("only what is ready is an outcome");
        self.ledger.committed(&hold.slip, &task.told, &decision);
        self.free(rest);
        self.move_token(decision.next);
    }

    /// A worker was silent for too long: dead, or only paused. Its call is made again.
    pub(crate) fn lose_call(&mut self) {
        let lives = |rest: &Rest| self.tasks.iter().any(|task| task.apart == Some(*rest));
        let running = self.holds.iter().filter(|(_, (hold, _))| hold.reason == HoldReason::Running);
        let running: Vec<(Rest, bool)> = running.map(|(rest, _)| (*rest, lives(rest))).collect();
        let Some((rest, lives)) = running.get(self.chance.below(running.len())).copied() else { return };
        if lives && (self.is_calm() || self.chance.percent(80)) {
            return;
        }
        self.leave_on_the_way(|task| task.apart == Some(rest));
        let Some((hold, _)) = self.holds.remove(&rest) else { return };
        self.tally.calls_lost += 1;
        self.lose_marked(&hold.slip);
        self.send(hold.slip, &hold.queue);
        self.free(rest);
    }

    /// Nothing rests behind this call any more.
    fn free(&mut self, rest: Rest) {
        for turn in self.turns.remove(&rest).unwrap_or_default() {
            let (hold, _) = self.holds.remove(&turn).expect("a turn rests until the call before it is over");
            assert_eq!(hold.reason, HoldReason::Turn);
            self.send(hold.slip, &hold.queue);
        }
        let mut held = self.partitions.iter_mut().filter(|partition| partition.holder == Some(rest));
        held.next().expect("a long call holds its key").holder = None;
        assert!(held.next().is_none(), "a long call holds one key");
    }
}
