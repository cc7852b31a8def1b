//! The other side: it does things, forgets to answer, and refuses.

use std::collections::{BTreeMap, BTreeSet};

use flow::decide::{Effect, NativeCall, Outcome, StepError, code};
use serde_json::json;

use crate::chance::Chance;

/// What an attempt told its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Succeeded,
    /// A no, which says nothing of earlier attempts.
    Refused,
    /// A no that rules out that anything was done under the key.
    RuledOut,
    /// Nothing arrived.
    Unsent,
    /// Something may have.
    Unknown,
    /// It was done, its output is lost.
    Done,
    /// There was nothing to undo.
    Nothing,
    /// It was taken, and its end will be told.
    Accepted,
    /// Not an attempt: the callback or the poll says that it is done.
    Completed,
    /// Not an attempt: the callback says that it was not done.
    CalledBackFailed,
    /// Not an attempt: neither says anything, for too long or for good.
    InVain,
    /// Not an attempt: the slip may have been run before by a worker that is gone.
    Redelivered,
    /// Not an attempt: it was asked whether it was done.
    SaidDone,
    SaidNotDone,
    /// Not an attempt: an operator says so.
    RuledDone,
    RuledNotDone,
    RuledUndone,
    /// Not an attempt: an operator has sent it on, and a late callback counts for the calls before that, too.
    SentOn,
}

/// What a service knows of idempotency keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Under one key it does one thing once, and remembers a no, and an undo.
    Whole,
    /// The same, but an undo that finds nothing leaves no trace but its answer: what comes after it is done.
    OfDeeds,
    /// It knows no keys, and refuses what is there already.
    None,
}

/// Everything that was ever done, by idempotency key.
pub(crate) struct Service {
    pub(crate) memory: Memory,
    pub(crate) done: BTreeSet<String>,
    pub(crate) undone: BTreeSet<String>,
    refused: BTreeSet<String>,
    /// The keys of undos that found nothing: the same key gets the same answer.
    in_vain: BTreeSet<String>,
    /// Requests that are on their way, and the time of their arrival.
    late: Vec<(String, i64)>,
    /// By key: how often it was done for a step that must not be repeated. Such a service knows no keys.
    pub(crate) times: BTreeMap<String, u32>,
    pub(crate) undone_again: u64,
    pub(crate) came_late: u64,
}

impl Service {
    pub(crate) fn new(memory: Memory) -> Self {
        let (done, undone, refused, in_vain, times) = Default::default();
        Self { memory, done, undone, refused, in_vain, late: Vec::new(), times, undone_again: 0, came_late: 0 }
    }

    /// One attempt. `trouble`: how many of a hundred go wrong.
    pub(crate) fn call(
        &mut self,
        chance: &mut Chance,
        call: &NativeCall,
        trouble: usize,
        now_ms: i64,
    ) -> (Told, Outcome) {
        self.pass_time(now_ms);
        let told = if chance.percent(trouble) {
            [Told::Refused, Told::Unsent, Told::Unsent, Told::Unknown, Told::Unknown][chance.below(5)]
        } else {
            Told::Succeeded
        };
        let mut arrives = match told {
            Told::Succeeded => true,
            Told::Unknown => chance.percent(60),
            _ => false,
        };
        if told == Told::Unknown && !call.undo && arrives && self.memory == Memory::OfDeeds && chance.percent(70) {
            self.send_late(chance, call, now_ms);
            arrives = false;
        }
        let told = if call.undo { self.undo(call, told, arrives) } else { self.work(call, told, arrives) };
        (told, outcome(told, chance))
    }

    /// A call that nobody waits for any more arrives within the longest time of its step.
    pub(crate) fn send_late(&mut self, chance: &mut Chance, call: &NativeCall, now_ms: i64) {
        let timeout_ms = usize::try_from(call.timeout_ms).expect("a time-out is short");
        let after_ms = i64::try_from(chance.below(timeout_ms + 1)).expect("a time-out is short");
        self.late.push((call.idempotency_key.clone(), now_ms + after_ms));
    }

    /// True if a call under this key may arrive still.
    pub(crate) fn is_on_its_way(&self, key: &str) -> bool {
        self.late.iter().any(|(late, _)| late == key)
    }

    /// What was late arrives.
    pub(crate) fn pass_time(&mut self, now_ms: i64) {
        let (here, late) = std::mem::take(&mut self.late).into_iter().partition(|(_, at_ms)| *at_ms <= now_ms);
        self.late = late;
        for (key, _) in here {
            self.came_late += 1;
            if !self.refused.contains(&key) && !self.undone.contains(&key) {
                self.times.entry(key.clone()).and_modify(|times| *times += 1);
                self.done.insert(key);
            }
        }
    }

    fn work(&mut self, call: &NativeCall, told: Told, arrives: bool) -> Told {
        let key = &call.idempotency_key;
        if self.memory == Memory::None {
            if told == Told::Succeeded && self.done.contains(key) {
                return Told::Refused;
            }
            if arrives {
                self.done.insert(key.clone());
            }
            return told;
        }
        // What was undone before it was done stays undone: its maker is late, and gets a no.
        let bars = self.refused.contains(key) || self.undone.contains(key);
        match told {
            Told::Succeeded | Told::Refused if bars => Told::RuledOut,
            Told::Refused if self.done.contains(key) => Told::Succeeded,
            Told::Refused => {
                self.refused.insert(key.clone());
                Told::RuledOut
            }
            other => {
                if arrives && !bars {
                    self.done.insert(key.clone());
                }
                other
            }
        }
    }

    fn undo(&mut self, call: &NativeCall, told: Told, arrives: bool) -> Told {
        let second = call.idempotency_key.strip_suffix(":2");
        self.undone_again += u64::from(second.is_some());
        let key = second.unwrap_or(&call.idempotency_key).strip_suffix(":undo").expect("an undo has a key of its own");
        let was_answered = self.in_vain.contains(&call.idempotency_key);
        let is_there = self.done.contains(key) && !self.undone.contains(key) && !was_answered;
        if arrives && (is_there || self.memory != Memory::OfDeeds) {
            self.undone.insert(key.to_owned());
        }
        if told != Told::Succeeded || is_there {
            return told;
        }
        if self.memory == Memory::OfDeeds {
            self.in_vain.insert(call.idempotency_key.clone());
        }
        Told::Nothing
    }
}

pub(crate) fn outcome(told: Told, chance: &mut Chance) -> Outcome {
    let (retryable, effect) = match told {
        Told::Succeeded => return Outcome::done(json!("done")),
        Told::Nothing => return Outcome::NothingToUndo { status: None },
        Told::Refused => (false, Effect::Refused),
        Told::RuledOut => (false, Effect::RuledOut),
        Told::Unsent => (true, Effect::Unsent),
        Told::Unknown => (chance.percent(90), Effect::Unknown),
        _ => (false, Effect::Done),
    };
    let error = StepError { code: code::STEP_FAILED.to_owned(), message: format!("{told:?}"), status: None };
    let retry_after_ms = chance.percent(10).then_some(3_000);
    Outcome::Failed { error, retryable, effect, retry_after_ms }
}
