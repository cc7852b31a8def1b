//! The other side: it does things, forgets to answer, and refuses.

use std::collections::BTreeSet;

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
    /// Not an attempt: the slip may have been run before by a worker that is gone.
    Redelivered,
}

/// Everything that was ever done, by idempotency key.
#[derive(Default)]
pub(crate) struct Service {
    /// Under one key it does one thing once, and remembers a no. One that does not refuses what is there already.
    honours_keys: bool,
    pub(crate) done: BTreeSet<String>,
    pub(crate) undone: BTreeSet<String>,
    refused: BTreeSet<String>,
}

impl Service {
    pub(crate) fn new(honours_keys: bool) -> Self {
        Self { honours_keys, ..Self::default() }
    }

    /// One attempt. `trouble`: how many of a hundred go wrong.
    pub(crate) fn call(&mut self, chance: &mut Chance, call: &NativeCall, trouble: usize) -> (Told, Outcome) {
        let told = if chance.percent(trouble) {
            [Told::Refused, Told::Unsent, Told::Unsent, Told::Unknown, Told::Unknown][chance.below(5)]
        } else {
            Told::Succeeded
        };
        let arrives = match told {
            Told::Succeeded => true,
            Told::Unknown => chance.percent(60),
            Told::Refused | Told::RuledOut | Told::Unsent | Told::Done | Told::Redelivered => false,
        };
        let told = if call.undo { self.undo(call, told, arrives) } else { self.work(call, told, arrives) };
        (told, outcome(told, chance))
    }

    fn work(&mut self, call: &NativeCall, told: Told, arrives: bool) -> Told {
        let key = &call.idempotency_key;
        if !self.honours_keys {
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
        let key = call.idempotency_key.strip_suffix(":undo").expect("an undo has a key of its own");
        if arrives {
            self.undone.insert(key.to_owned());
        }
        told
    }
}

fn outcome(told: Told, chance: &mut Chance) -> Outcome {
    let (retryable, effect) = match told {
        Told::Succeeded => return Outcome::Succeeded { output: json!("done") },
        Told::Refused => (false, Effect::Refused),
        Told::RuledOut => (false, Effect::RuledOut),
        Told::Unsent => (true, Effect::Unsent),
        Told::Unknown => (chance.percent(90), Effect::Unknown),
        Told::Done | Told::Redelivered => (false, Effect::Done),
    };
    let error = StepError { code: code::STEP_FAILED.to_owned(), message: format!("{told:?}"), status: None };
    let retry_after_ms = chance.percent(10).then_some(3_000);
    Outcome::Failed { error, retryable, effect, retry_after_ms }
}
