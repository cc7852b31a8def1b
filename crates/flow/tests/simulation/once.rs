//! Steps that must not be repeated: a service that does whatever it is asked, as often as it is asked, and that can be
//! asked whether it did.

use flow::decide::{HttpAnswer, NativeCall, Next, Outcome, Prepared, classify, is_cancelled, marks_first, prepare};
use flow::slip::{Phase, Slip};

use crate::completions::env;
use crate::service::{Service, Told, outcome};
use crate::world::{Task, World};

impl World {
    /// True for a slip whose call, question or look is about a step that must not be repeated.
    pub(crate) fn is_once_only(&self, slip: &Slip) -> bool {
        let step = self.definition.step(&slip.step);
        slip.phase == Phase::Forward && step.is_some_and(|step| !step.is_idempotent())
    }

    /// Commits the mark of a call that is about to be made. False: the call must not be made now.
    pub(crate) fn mark(&mut self, task: &mut Task) -> bool {
        if task.apart.is_some() || !marks_first(&self.definition, &task.slip) {
            return true;
        }
        let prepared = prepare(&self.definition, &task.slip, &env(), self.now_ms);
        let calls = matches!(prepared, Prepared::Native(_) | Prepared::Http(_) | Prepared::Simulated(_));
        if !calls || is_cancelled(&task.slip, false) {
            return true;
        }
        let partition = &self.partitions[task.partition];
        if partition.epoch != task.epoch || partition.holder.is_some() {
            return false;
        }
        self.tally.marked += 1;
        let hold = self.detach(task);
        task.slip.hop = hold.slip.hop;
        self.move_token(Next::Hold(hold));
        // A kill may come between the mark and the call.
        false
    }

    /// The worker of a marked call is lost.
    pub(crate) fn lose_marked(&mut self, slip: &Slip) {
        if marks_first(&self.definition, slip) {
            self.tally.marks_lost += 1;
            self.ledger.lost(slip);
        }
    }

    /// Asks whether it was done.
    pub(crate) fn ask_whether(&mut self, task: &mut Task) -> Outcome {
        self.tally.asked += 1;
        self.service.pass_time(self.now_ms);
        let is_done = self.service.done.contains(&task.slip.idempotency_key());
        let response = |status, body: &str| HttpAnswer::Response {
            status,
            retry_after: None,
            content_type: None,
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
        };
        let trouble = if self.is_calm() { 0 } else { self.trouble / 2 };
        let answer = match self.chance.percent(trouble) {
            true => match self.chance.below(4) {
                0 => response(503, ""),
                1 => response(200, "open"),
                2 => response(401, ""),
                _ => HttpAnswer::TimedOut,
            },
            false => response(if is_done { 200 } else { 404 }, "\"it\""),
        };
        let outcome = classify(&self.definition, &task.slip, answer, self.now_ms);
        match &outcome {
            Outcome::Succeeded { .. } => task.told.push(Told::SaidDone),
            Outcome::NotDone => task.told.push(Told::SaidNotDone),
            _ => {}
        }
        outcome
    }
}

impl Service {
    /// One attempt, of which nothing is remembered but that it was done.
    pub(crate) fn call_once(
        &mut self,
        chance: &mut crate::chance::Chance,
        call: &NativeCall,
        trouble: usize,
        now_ms: i64,
    ) -> (Told, Outcome) {
        self.pass_time(now_ms);
        let told = match chance.percent(trouble) {
            true => [Told::Refused, Told::Unsent, Told::Unknown, Told::Unknown, Told::Unknown][chance.below(5)],
            false => Told::Succeeded,
        };
        let key = &call.idempotency_key;
        self.times.entry(key.clone()).or_default();
        match told {
            Told::Succeeded => self.does(key),
            Told::Unknown if chance.percent(40) => self.send_late(chance, call, now_ms),
            Told::Unknown if chance.percent(50) => self.does(key),
            _ => {}
        }
        (told, outcome(told, chance))
    }

    fn does(&mut self, key: &str) {
        *self.times.entry(key.to_owned()).or_default() += 1;
        self.done.insert(key.to_owned());
    }
}
