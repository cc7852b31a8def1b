//! Operators: they send parked jobs on, and say how a step has ended of which the system does not know. Their words
//! name a token, and come late, twice, and beside a cancel: of all words for one rest, one counts.

use flow::decide::{Outcome, Said, Verdict, awaits_verdict, can_be_ruled, resumed, ruled};
use flow::slip::{HoldReason, Phase, Slip};
use serde_json::json;

use crate::generate::QUEUES;
use crate::service::Told;
use crate::world::{PARTITIONS_PER_QUEUE, Rest, Task, World};

/// Whoever says how steps have ended.
pub(crate) const OPERATOR: &str = "simulated operator";

/// A word about a token at rest, on its way. Without a verdict the step is only sent on.
pub(crate) struct Word {
    rest: Rest,
    said: Option<Said>,
}

impl World {
    /// An operator looks at a parked job, or a word arrives.
    pub(crate) fn act_as_operator(&mut self) {
        self.redrive();
        if !self.words.is_empty() && self.chance.percent(60) {
            let word = self.chance.below(self.words.len());
            let word = self.words.swap_remove(word);
            return self.take_word(word);
        }
        let parked = self.holds.iter().filter(|(_, (hold, _))| hold.reason == HoldReason::Attention);
        let parked: Vec<(Rest, Slip)> = parked.map(|(rest, (hold, _))| (*rest, hold.slip.clone())).collect();
        let Some((rest, slip)) = parked.get(self.chance.below(parked.len())) else { return };
        if self.chance.percent(20) {
            self.cancel(slip.job);
        }
        let said = self.found_out(slip);
        for _ in 0..[1, 1, 2][self.chance.below(3)] {
            // One who acts at the same time, and does not look.
            let said = said.clone().filter(|_| self.is_careful || self.chance.percent(70));
            self.words.push(Word { rest: *rest, said });
        }
    }

    /// The end of the step, if it can be known: a call that may have its effect still leaves that open.
    fn found_out(&mut self, parked: &Slip) -> Option<Said> {
        if parked.phase == Phase::Undo {
            return self.chance.percent(50).then(|| self.undo_by_hand(parked));
        }
        if !awaits_verdict(parked) {
            return None;
        }
        let key = parked.idempotency_key();
        self.service.pass_time(self.now_ms);
        if self.service.done.contains(&key) {
            return Some(Said::Succeeded(json!("by hand")));
        }
        let may_come = self.service.is_on_its_way(&key);
        let may_be_made = self.tasks.iter().any(|task| task.slip.idempotency_key() == key);
        (!may_come && !may_be_made).then_some(Said::Failed)
    }

    fn undo_by_hand(&mut self, parked: &Slip) -> Said {
        let key = parked.idempotency_key();
        let key = key.strip_suffix(":2").unwrap_or(&key).strip_suffix(":undo").expect("it is to be undone");
        self.service.undone.insert(key.to_owned());
        Said::Undone("by hand".to_owned())
    }

    /// As the orchestrator takes it: a word for a token that has gone on has no effect.
    fn take_word(&mut self, Word { rest, said }: Word) {
        let parked = self.holds.get(&rest).filter(|(hold, _)| hold.reason == HoldReason::Attention);
        let Some((hold, _)) = parked.cloned() else {
            self.tally.words_too_late += 1;
            return;
        };
        let verdict = said.map(|said| Verdict { said, by: OPERATOR.to_owned() });
        if verdict.as_ref().is_some_and(|verdict| !can_be_ruled(&hold.slip, &verdict.said)) {
            return;
        }
        self.holds.remove(&rest);
        self.tally.operator_acts += 1;
        let steps_total = u32::try_from(self.definition.steps().len()).expect("a flow has few steps");
        let event = resumed(&hold.slip, steps_total, self.now_ms);
        match verdict {
            None => {
                self.ledger.resumed(&event);
                self.send(hold.slip, &hold.queue);
            }
            Some(verdict) => {
                self.ledger.ruled(&verdict.told_by(event), &verdict.said);
                self.send(ruled(hold.slip, &verdict), &hold.queue);
            }
        }
    }

    /// Notes what a worker makes of a verdict, for the ledger.
    pub(crate) fn hear_verdict(&mut self, task: &mut Task, outcome: &Outcome) -> bool {
        let released = task.slip.released.as_ref().and_then(|released| released.payload.as_ref());
        let Some(verdict) = released.and_then(Verdict::from_json) else { return false };
        assert!(verdict.by == OPERATOR, "a verdict has its author");
        let is_success = matches!(outcome, Outcome::Succeeded { .. });
        let told = match verdict.said {
            Said::Undone(_) => Told::RuledUndone,
            Said::Succeeded(_) => Told::RuledDone,
            Said::Failed => Told::RuledNotDone,
        };
        assert_eq!(is_success, told != Told::RuledNotDone, "{outcome:?}");
        task.told.push(told);
        match told {
            Told::RuledDone => self.tally.ruled_done += 1,
            Told::RuledUndone => self.tally.ruled_undone += 1,
            _ => self.tally.ruled_not_done += 1,
        }
        true
    }

    /// A record that nobody can read becomes a dead letter. Nobody has run it.
    pub(crate) fn is_buried(&mut self, index: usize, offset: usize) -> bool {
        let is_fresh = offset >= self.partitions[index].end_at_assignment;
        if !is_fresh || self.is_calm() || !self.chance.percent(1) {
            return false;
        }
        let partition = &mut self.partitions[index];
        partition.done[offset] = true;
        let slip = partition.log[offset].clone();
        self.letters.push((slip, index / PARTITIONS_PER_QUEUE));
        self.tally.buried += 1;
        true
    }

    /// A dead letter goes back to its queue as it was.
    fn redrive(&mut self) {
        if let Some((slip, queue)) = self.letters.pop() {
            self.send(slip, QUEUES[queue]);
        }
    }
}
