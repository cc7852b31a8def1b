//! What must always hold, kept by somebody who does not look into `advance`.

use std::collections::{BTreeMap, BTreeSet};

use flow::decide::{Decision, Next, Said};
use flow::definition::{Definition, OnFailure, OnTimeout};
use flow::event::{EventKind, JobEvent};
use flow::id::JobId;
use flow::slip::{Hold, Phase, Slip};
use flow::view::JobView;

use crate::operator::OPERATOR;
use crate::service::{Service, Told};

/// How a job went on from a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passed {
    Done,
    /// A wait in vain, or a fallback.
    InVain,
}

/// What was committed about one job.
#[derive(Default)]
struct Account {
    /// What attempts forward were told, in the order of their commits.
    told: Vec<(String, Told)>,
    /// Committed attempts per idempotency key since the last time an operator sent the job on.
    attempts: BTreeMap<String, u32>,
    /// Probes of breakers per key: those that fail in vain are no attempts.
    probes: BTreeMap<String, u32>,
    /// Keys of steps that must not be repeated before `verify`, or an operator, says so.
    barred: BTreeSet<String>,
    /// Steps that an operator has sent on without a word on their end.
    sent_on: BTreeSet<String>,
    /// An operator's word that the token carries: its hop then, the key of the step, and whether it was done.
    verdict: Option<(u32, String, bool)>,
    /// Hops that were given away.
    hops: BTreeSet<u32>,
    compensated: Vec<String>,
    passed: Vec<(String, Passed)>,
    ended: Option<EventKind>,
    events: BTreeSet<(u32, u32)>,
    view: Option<JobView>,
    keys_by_step: BTreeMap<String, BTreeSet<String>>,
}

/// All accounts.
pub(crate) struct Ledger {
    definition: Definition,
    accounts: BTreeMap<JobId, Account>,
    cursor: i64,
}

impl Ledger {
    pub(crate) fn new(definition: Definition) -> Self {
        Self { definition, accounts: BTreeMap::new(), cursor: 0 }
    }

    /// A slip has been given to its step by the owner of its partition.
    pub(crate) fn taken(&self, slip: &Slip) {
        let ended = self.accounts.get(&slip.job).and_then(|account| account.ended);
        assert!(ended.is_none(), "{} runs after the job's end", slip.step);
    }

    /// A call is about to be made by the owner of the slip.
    pub(crate) fn called(&mut self, slip: &Slip, key: &str) {
        let account = self.accounts.entry(slip.job).or_default();
        let open = account.verdict.as_ref().filter(|(hop, of, _)| slip.hop >= *hop && is_of(key, of));
        assert!(open.is_none(), "{key} is called although an operator has said how it ended");
        if slip.phase == Phase::Forward {
            account.keys_by_step.entry(slip.step.clone()).or_default().insert(key.to_owned());
        }
        if slip.pass().is_some_and(|pass| pass.is_probe) {
            *account.probes.entry(key.to_owned()).or_default() += 1;
        }
    }

    /// A decision was committed, with what its attempts were told.
    pub(crate) fn committed(&mut self, from: &Slip, told: &[Told], decision: &Decision) {
        let step = self.definition.step(&from.step);
        let account = self.accounts.entry(from.job).or_default();
        assert!(account.ended.is_none(), "a decision after the end");
        for told in told {
            account.attempt(from, *told, step.is_none_or(|step| step.is_idempotent()));
        }
        account.obey(from, told, decision);
        let policy = step.and_then(|step| step.retry(from.phase));
        let made = account.attempts.get(&from.idempotency_key()).copied().unwrap_or(0);
        let probes = account.probes.get(&from.idempotency_key()).copied().unwrap_or(0);
        assert!(policy.is_none_or(|policy| made <= policy.attempts + probes), "{made} attempts of {}", from.step);
        self.moved(from.job, from.hop, &decision.next);
        for event in &decision.events {
            self.heard(event);
        }
    }

    /// An attempt under way has left its queue, after what earlier attempts were told.
    pub(crate) fn detached(&mut self, from: &Slip, told: &[Told], hold: &Hold, event: &JobEvent) {
        self.rested(from, told, hold);
        self.heard(event);
    }

    /// A slip rests without a decision.
    pub(crate) fn rested(&mut self, from: &Slip, told: &[Told], hold: &Hold) {
        let idempotent = self.definition.step(&from.step).is_none_or(|step| step.is_idempotent());
        let account = self.accounts.entry(from.job).or_default();
        for told in told {
            account.attempt(from, *told, idempotent);
        }
        self.moved(from.job, from.hop, &Next::Hold(hold.clone()));
    }

    /// The worker of a call that was marked as begun is lost.
    pub(crate) fn lost(&mut self, slip: &Slip) {
        let account = self.accounts.entry(slip.job).or_default();
        account.told.push((slip.step.clone(), Told::Redelivered));
        account.barred.insert(slip.idempotency_key());
    }

    /// The acceptance.
    pub(crate) fn accepted(&mut self, job: JobId, decision: &Decision) {
        self.moved(job, 0, &decision.next);
        for event in &decision.events {
            self.heard(event);
        }
    }

    /// An operator has sent the job on.
    pub(crate) fn resumed(&mut self, event: &JobEvent) {
        let account = self.accounts.entry(event.job).or_default();
        account.attempts.clear();
        account.barred.clear();
        account.told.push((event.step.clone().unwrap_or_default(), Told::SentOn));
        account.sent_on.extend(event.step.clone());
        self.heard(event);
    }

    /// An operator has said how the step ended that the job is parked at, and the job goes on.
    pub(crate) fn ruled(&mut self, event: &JobEvent, said: &Said) {
        let account = self.accounts.entry(event.job).or_default();
        assert!(account.verdict.is_none(), "a verdict upon a verdict");
        let suffix = if matches!(said, Said::Undone(_)) { ":undo" } else { "" };
        let key = format!("{}:{}:{}{suffix}", event.job, event.step.clone().unwrap_or_default(), event.visit);
        account.verdict = Some((event.hop, key, matches!(said, Said::Succeeded(_))));
        account.attempts.clear();
        self.heard(event);
    }

    fn moved(&mut self, job: JobId, hop: u32, next: &Next) {
        let account = self.accounts.entry(job).or_default();
        assert!(account.hops.insert(hop), "a second successor of hop {hop}");
        let slip = match next {
            Next::Step { slip, .. } => slip,
            Next::Hold(hold) => &hold.slip,
            Next::RetryNow { .. } => panic!("a retry in the process is never committed"),
            Next::End => return,
        };
        assert_eq!(slip.hop, hop + 1, "a hop is one more than the one before");
    }

    fn heard(&mut self, event: &JobEvent) {
        self.cursor += 1;
        let account = self.accounts.entry(event.job).or_default();
        assert!(account.events.insert((event.hop, event.index)), "two events of one name: {event:?}");
        assert!(account.ended.is_none(), "{:?} after the end", event.kind);
        match &mut account.view {
            Some(view) => assert!(view.apply(self.cursor, event)),
            None => account.view = Some(JobView::from_event(self.cursor, event)),
        }
        let step = event.step.clone().unwrap_or_default();
        match event.kind {
            EventKind::StepCompensated => account.compensated.push(step),
            EventKind::StepSucceeded => account.passed.push((step, Passed::Done)),
            // One with data waited in vain, or fell back.
            EventKind::StepSkipped if event.data.is_some() => account.passed.push((step, Passed::InVain)),
            EventKind::StepSkipped => account.passed.push((step, Passed::Done)),
            EventKind::JobSucceeded | EventKind::JobFailed | EventKind::JobCancelled => {
                account.ended = Some(event.kind)
            }
            EventKind::JobAccepted
            | EventKind::StepRunning
            | EventKind::StepRetrying
            | EventKind::StepWaiting
            | EventKind::StepFailed
            | EventKind::JobCompensating
            | EventKind::JobParked
            | EventKind::JobResumed
            | EventKind::JobStuck
            | EventKind::Other(_) => {}
        }
        assert_eq!(event.status.is_final(), account.ended.is_some(), "{event:?}");
        let view = account.view.as_ref().expect("it was just made");
        assert_eq!(view.status, event.status);
    }

    /// Follows the steps that a job has passed; the number of the step that it comes to after them.
    fn walked(&self, passed: &[(String, Passed)]) -> usize {
        let mut next = 0;
        for (step, passed) in passed {
            assert_eq!(self.definition.steps().get(next).map(|step| &step.id), Some(step), "each step in its turn");
            next = match (passed, self.leads_to(step)) {
                (Passed::InVain, Some(target)) => target,
                _ => next + 1,
            };
        }
        next
    }

    /// The number of the step to which the flow jumps from a step that was passed without being done.
    fn leads_to(&self, step: &str) -> Option<usize> {
        let steps = self.definition.document()["steps"].as_array()?;
        let own = steps.iter().find(|entry| entry["id"] == step)?;
        match own["fallback"]["step"].as_str() {
            Some(target) => self.definition.steps().iter().position(|step| step.id == *target),
            None => self.leads_back(step),
        }
    }

    /// The number of the step to which a wait in vain leads back.
    fn leads_back(&self, step: &str) -> Option<usize> {
        match &self.definition.step(step)?.wait()?.on_timeout {
            OnTimeout::Step(target) => self.definition.steps().iter().position(|step| step.id == *target),
            OnTimeout::Fail | OnTimeout::Continue => None,
        }
    }

    /// What must not be repeated was done once at most, but for what an operator has sent on without knowing.
    fn never_twice(&self, account: &Account, service: &Service) {
        let loops = self.definition.steps().iter().any(|step| self.leads_back(&step.id).is_some());
        for (id, keys) in &account.keys_by_step {
            let step = self.definition.step(id).expect("it was called");
            if step.is_idempotent() || (step.verify().is_none() && account.sent_on.contains(id)) {
                continue;
            }
            let times = |key: &String| service.times.get(key).copied().unwrap_or(0);
            for key in keys {
                assert!(times(key) <= 1, "{key} was done {} times", times(key));
            }
            // A visit that an operator, `verify` or a refusal calls not done is followed by another one.
            let all: u32 = keys.iter().map(times).sum();
            assert!(loops || all <= 1, "{id} was done {all} times");
        }
    }

    pub(crate) fn has_ended(&self, job: JobId) -> bool {
        self.accounts.get(&job).is_some_and(|account| account.ended.is_some())
    }

    pub(crate) fn has_succeeded(&self, job: JobId) -> bool {
        self.accounts.get(&job).is_some_and(|account| account.ended == Some(EventKind::JobSucceeded))
    }

    /// At the very end: everything that was promised about the job.
    pub(crate) fn close(&self, job: JobId, was_cancelled: bool, service: &Service) {
        let account = &self.accounts[&job];
        let ended = account.ended.expect("every job ends");
        let ids: Vec<String> = self.definition.steps().iter().map(|step| step.id.clone()).collect();
        self.never_twice(account, service);
        if ended == EventKind::JobSucceeded {
            assert_eq!(self.walked(&account.passed), ids.len(), "every step is passed, in order");
            assert_eq!(account.compensated, Vec::<String>::new());
            return;
        }
        assert!(ended == EventKind::JobFailed || was_cancelled, "nobody has cancelled");
        let parks = self.definition.on_failure() == OnFailure::Park;
        let result_failed = self.walked(&account.passed) == ids.len();
        let loops = ids.iter().any(|id| self.leads_back(id).is_some());
        assert!(
            !parks || was_cancelled || result_failed,
            "a flow that parks ends badly only by a cancel or its result"
        );
        let can_be_undone = |id: &&String| self.definition.step(id).is_some_and(|step| step.is_undoable());
        let done = |id: &&String| account.was_perhaps_done(id);
        let expected: Vec<String> = ids.iter().rev().filter(can_be_undone).filter(done).cloned().collect();
        // A step that was come to several times is undone as often.
        assert!(
            loops || account.compensated == expected,
            "what is undone is what was, or may have been, done, in reverse: {:?}, {expected:?}, {:?}",
            account.compensated,
            account.told
        );
        for id in ids.iter().filter(can_be_undone) {
            for key in account.keys_by_step.get(id).into_iter().flatten().filter(|key| service.done.contains(*key)) {
                assert!(
                    service.undone.contains(key),
                    "{key} was done and never undone: {:?} {:?}",
                    account.told,
                    account.compensated
                );
            }
        }
    }
}

/// True if this is the key, or that of a second undo under it.
fn is_of(key: &str, of: &str) -> bool {
    key == of || key.strip_suffix(":2") == Some(of)
}

impl Account {
    /// What an operator has said is what the job goes by: once, and unless it is cancelled meanwhile.
    fn obey(&mut self, from: &Slip, told: &[Told], decision: &Decision) {
        let is_undone = told.contains(&Told::RuledUndone);
        let is_ruled = is_undone || told.iter().any(|told| matches!(told, Told::RuledDone | Told::RuledNotDone));
        let is_over = decision.events.iter().any(|event| event.kind != EventKind::StepRetrying);
        if !is_ruled {
            // Whatever else ends the visit: it was not looked at.
            self.verdict.take_if(|_| is_over);
            return;
        }
        let (_, key, is_done) = self.verdict.take().expect("a verdict counts once");
        assert!(is_of(&from.idempotency_key(), &key), "a verdict is about one visit");
        let told_of = |kind| {
            let of_step = |event: &&JobEvent| event.kind == kind && event.step.as_ref() == Some(&from.step);
            decision.events.iter().find(of_step)
        };
        if is_undone {
            let event = told_of(EventKind::StepCompensated).expect("an operator has undone it");
            assert_eq!(event.actor.as_deref(), Some(OPERATOR));
        } else if is_done {
            let event = told_of(EventKind::StepSucceeded).expect("an operator has said that it was done");
            assert_eq!(event.actor.as_deref(), Some(OPERATOR));
        } else {
            assert!(told_of(EventKind::StepSucceeded).is_none(), "an operator has said that it was not done");
            let failed = told_of(EventKind::StepFailed).or(told_of(EventKind::StepSkipped));
            assert!(failed.is_some(), "an operator has said that it was not done");
        }
    }

    fn attempt(&mut self, slip: &Slip, told: Told, idempotent: bool) {
        if slip.phase == Phase::Forward {
            self.told.push((slip.step.clone(), told));
        }
        match told {
            Told::SaidNotDone => drop(self.barred.remove(&slip.idempotency_key())),
            Told::RuledDone | Told::RuledNotDone | Told::RuledUndone => {}
            Told::Redelivered | Told::SaidDone | Told::Completed | Told::CalledBackFailed | Told::InVain => {}
            _ => self.made(slip, told, idempotent),
        }
    }

    fn made(&mut self, slip: &Slip, told: Told, idempotent: bool) {
        *self.attempts.entry(slip.idempotency_key()).or_default() += 1;
        if slip.phase == Phase::Forward && !idempotent {
            assert!(
                !self.barred.contains(&slip.idempotency_key()),
                "{} was repeated after an unknown outcome",
                slip.step
            );
            if told == Told::Unknown {
                self.barred.insert(slip.idempotency_key());
            }
        }
    }

    fn was_perhaps_done(&self, step: &str) -> bool {
        let told = self.told.iter().filter(|(id, _)| id == step);
        // What was known before the attempt that was accepted last is known again once that is told to have failed.
        let fold = told.fold((false, true), |(perhaps, before), (_, told)| match told {
            Told::Accepted => (true, perhaps),
            Told::CalledBackFailed => (perhaps && before, true),
            Told::Unknown => (true, true),
            Told::Succeeded
            | Told::Done
            | Told::Redelivered
            | Told::Completed
            | Told::InVain
            | Told::SaidDone
            | Told::RuledDone => (true, before),
            Told::RuledOut | Told::SaidNotDone | Told::RuledNotDone => (false, true),
            Told::SentOn => (perhaps, perhaps || before),
            Told::Unsent | Told::Refused | Told::Nothing | Told::RuledUndone => (perhaps, true),
        });
        fold.0
    }
}
