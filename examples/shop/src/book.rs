//! The books of one service: what was done under which idempotency key. No I/O, no clock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answer::{Answer, failure};
use crate::simulate::Simulate;
use crate::state::{Calls, EntryState, EntryView, State};
use crate::trade::Trade;

/// The stock of each SKU at the start: enough for any test that does not ask for `out_of_stock`.
const STOCK_PER_SKU: u64 = 1_000_000;
/// Idempotency keys that one service remembers; then it takes no new ones (forgetting would break its promise).
const KEYS_MAX: usize = 500_000;
/// Log lines that one service keeps; older ones are dropped and counted.
const LOG_LINES_MAX: usize = 200_000;
/// Characters kept of anything that a caller names (keys, orders, SKUs).
pub(crate) const NAME_CHARS_MAX: usize = 300;

/// The kinds of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// A `POST` arrived.
    CreateCalled,
    /// A `POST` took effect.
    Created,
    /// A `DELETE` arrived.
    UndoCalled,
    /// A `DELETE` took effect.
    Undone,
}

/// One call or effect, in the order in which they happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Rises by one.
    pub at_seq: u64,
    pub op: Op,
    /// The idempotency key. An undo has the key of its create.
    pub key: String,
    /// The order; empty where an undo found nothing.
    pub order: String,
    /// The call's own `traceparent` header; empty without one.
    pub traceparent: String,
}

/// The work that a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) order: String,
    pub(crate) sku: String,
    /// Pieces or cents.
    pub(crate) amount: u64,
    pub(crate) simulate: Simulate,
}

#[derive(Debug)]
enum Standing {
    /// Called, but nothing was done yet.
    Pending,
    /// Refused for good.
    Refused(Answer),
    /// In force: the answer, and the place among the effects.
    Done(Answer, usize),
    /// Was in force.
    Undone,
    /// Undone before it was done: a late create must not happen.
    Barred,
}

#[derive(Debug)]
struct Entry {
    order: String,
    calls: Calls,
    simulate: Simulate,
    standing: Standing,
}

/// Work that was accepted, to be done later.
#[derive(Debug, Default)]
struct Taken {
    begins: u32,
    under_way: bool,
    callback: Option<String>,
}

/// The books of one service.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) trade: Trade,
    entries: HashMap<String, Entry>,
    /// In the order of their effects; `EntryView::key` leads back.
    effects: Vec<EntryView>,
    /// From an id to its place in `effects`.
    by_id: HashMap<String, usize>,
    stock: BTreeMap<String, u64>,
    balance_cents: i64,
    log: VecDeque<LogLine>,
    log_seq: u64,
    /// By key.
    taken: HashMap<String, Taken>,
    /// The answers to callbacks, by status.
    told: BTreeMap<u16, u64>,
    /// When true, `error` and `undo_error` no longer fail.
    pub(crate) mended: bool,
}

impl Book {
    pub(crate) fn new(trade: Trade) -> Self {
        Self {
            trade,
            entries: HashMap::new(),
            effects: Vec::new(),
            by_id: HashMap::new(),
            stock: BTreeMap::new(),
            balance_cents: 0,
            log: VecDeque::new(),
            log_seq: 0,
            taken: HashMap::new(),
            told: BTreeMap::new(),
            mended: false,
        }
    }

    /// Counts and logs a `POST` that arrived. Answers at once if the work is not to be done, or was done before.
    /// `None`: go on with [`Book::create`], now or after a while.
    pub(crate) fn arrive(&mut self, key: &str, wish: &Wish, traceparent: &str) -> Option<Answer> {
        if self.entries.len() >= KEYS_MAX && !self.entries.contains_key(key) {
            return Some(Answer::problem(503, "The books are full", "Restart the shop to begin new ones."));
        }
        self.log(Op::CreateCalled, key, &wish.order, traceparent);
        let entry = self.entry(key, &wish.order, wish.simulate);
        entry.calls.create = entry.calls.create.saturating_add(1);
        let calls = entry.calls.create;
        if entry.order != wish.order && !entry.order.is_empty() {
            return Some(Answer::problem(422, "The key was used for another order", "Use a new Idempotency-Key."));
        }
        let fails = match wish.simulate {
            Simulate::Flaky(first_calls) => calls <= first_calls,
            Simulate::Busy(_) => calls == 1,
            Simulate::Error => !self.mended,
            Simulate::Status(_) => true,
            Simulate::Nothing
            | Simulate::OutOfStock
            | Simulate::Declined
            | Simulate::Slow(_)
            | Simulate::TimeoutAfterEffect(_)
            | Simulate::TimeoutBeforeEffect(_)
            | Simulate::Once(_)
            | Simulate::UndoError
            | Simulate::UndoFlaky(_) => false,
        };
        fails.then(|| failure(wish.simulate))
    }

    /// The wait after which a call that arrived is answered without an effect, if it is to be.
    pub(crate) fn waits_in_vain(&self, key: &str, wish: &Wish) -> Option<(Duration, Answer)> {
        let is_first = self.entries.get(key).is_some_and(|entry| entry.calls.create == 1);
        match wish.simulate {
            Simulate::TimeoutBeforeEffect(wait) if is_first => Some((wait, failure(wish.simulate))),
            _ => None,
        }
    }

    /// What stands of an order.
    pub(crate) fn standing_of(&self, order: &str) -> Option<&EntryView> {
        self.effects.iter().rev().find(|effect| effect.order == order && effect.state == EntryState::Done)
    }

    /// Does what `wish` says unless it was done, refused or undone before.
    pub(crate) fn create(&mut self, key: &str, wish: &Wish, traceparent: &str) -> Answer {
        let entry = self.entry(key, &wish.order, wish.simulate);
        match &entry.standing {
            Standing::Pending => {}
            Standing::Done(..) if matches!(wish.simulate, Simulate::Once(_)) => {
                return Answer::problem(409, "It was done", "This service does no work twice, and repeats no answer.");
            }
            Standing::Done(answer, _) | Standing::Refused(answer) => {
                return Answer { replayed: true, ..answer.clone() };
            }
            Standing::Undone | Standing::Barred => {
                return Answer::problem(
                    410,
                    "It was undone",
                    "This Idempotency-Key was undone; it cannot be done any more.",
                );
            }
        }
        if entry.order.is_empty() {
            wish.order.clone_into(&mut entry.order);
        }
        if let Some(refusal) = self.refusal(wish) {
            self.entry(key, &wish.order, wish.simulate).standing = Standing::Refused(refusal.clone());
            return refusal;
        }
        let place = self.effects.len();
        let answer = self.take_effect(key, wish);
        self.entry(key, &wish.order, wish.simulate).standing = Standing::Done(answer.clone(), place);
        self.log(Op::Created, key, &wish.order, traceparent);
        answer
    }

    /// Accepts work that is to be done later: the number of its begin. None if it is under way already.
    /// One that asks to be called back elsewhere is told there, too.
    pub(crate) fn take(&mut self, key: &str, callback: Option<&str>) -> Option<u32> {
        let taken = self.taken.entry(key.to_owned()).or_default();
        let is_known = std::mem::replace(&mut taken.under_way, true);
        let is_told = std::mem::replace(&mut taken.callback, callback.map(str::to_owned)).as_deref() == callback;
        if is_known && is_told {
            return None;
        }
        taken.begins += 1;
        Some(taken.begins)
    }

    /// Work that was accepted is not done: a later call may begin it again.
    pub(crate) fn let_go(&mut self, key: &str) {
        if let Some(taken) = self.taken.get_mut(key) {
            taken.under_way = false;
        }
    }

    /// A callback was answered.
    pub(crate) fn told(&mut self, status: u16) {
        *self.told.entry(status).or_default() += 1;
    }

    /// What has become of accepted work: `{state: pending|done|undone|refused, ...}`. None: nobody knows the key.
    pub(crate) fn look(&self, key: &str) -> Option<Value> {
        let state = |word: &str, body: &Value| {
            let mut told = body.clone();
            told["state"] = json!(word);
            told
        };
        let is_under_way = self.taken.get(key).is_some_and(|taken| taken.under_way);
        match (&self.entries.get(key)?.standing, is_under_way) {
            (Standing::Done(answer, _), _) => Some(state("done", &answer.body)),
            (Standing::Refused(answer), _) => Some(state("refused", &answer.body)),
            (Standing::Undone | Standing::Barred, _) => Some(json!({ "state": "undone" })),
            (Standing::Pending, true) => Some(json!({ "state": "pending" })),
            (Standing::Pending, false) => None,
        }
    }

    fn refusal(&self, wish: &Wish) -> Option<Answer> {
        let left = self.stock.get(&wish.sku).copied().unwrap_or(STOCK_PER_SKU);
        if wish.simulate == Simulate::OutOfStock || (self.trade == Trade::Inventory && wish.amount > left) {
            let detail = format!("{} of `{}` are not there.", wish.amount, wish.sku);
            return Some(Answer::problem(409, "Out of stock", &detail));
        }
        (wish.simulate == Simulate::Declined)
            .then(|| Answer::problem(402, "Card declined", "The bank declined the charge."))
    }

    fn take_effect(&mut self, key: &str, wish: &Wish) -> Answer {
        let number = self.effects.len() + 1;
        let id = format!("{}-{number}", self.trade.id_prefix());
        let mut body = json!({ "id": id, "order": wish.order });
        match self.trade {
            Trade::Inventory => {
                let left = self.stock.entry(wish.sku.clone()).or_insert(STOCK_PER_SKU);
                *left -= wish.amount;
                body["sku"] = json!(wish.sku);
                body["qty"] = json!(wish.amount);
            }
            Trade::Payment => {
                self.balance_cents += cents(wish.amount);
                body["amount_cents"] = json!(wish.amount);
            }
            Trade::Shipping => body["tracking"] = json!(format!("TRACK-{number:06}")),
        }
        self.by_id.insert(id.clone(), self.effects.len());
        self.effects.push(EntryView {
            id,
            key: key.to_owned(),
            order: wish.order.clone(),
            amount: wish.amount,
            sku: wish.sku.clone(),
            state: EntryState::Done,
        });
        Answer::new(201, body)
    }

    /// A `DELETE` of an id or an idempotency key: 204 once the work is undone, 404 where nothing was done. The 404 bars
    /// the key.
    pub(crate) fn undo(&mut self, id_or_key: &str, traceparent: &str) -> Answer {
        let key =
            self.by_id.get(id_or_key).map_or_else(|| id_or_key.to_owned(), |place| self.effects[*place].key.clone());
        if self.entries.len() >= KEYS_MAX && !self.entries.contains_key(&key) {
            return Answer::problem(503, "The books are full", "Restart the shop to begin new ones.");
        }
        let order = self.entries.get(&key).map(|entry| entry.order.clone()).unwrap_or_default();
        self.log(Op::UndoCalled, &key, &order, traceparent);
        let mended = self.mended;
        let entry = self.entry(&key, "", Simulate::Nothing);
        entry.calls.undo = entry.calls.undo.saturating_add(1);
        match entry.simulate {
            Simulate::UndoError if !mended => return failure(entry.simulate),
            Simulate::UndoFlaky(first_calls) if entry.calls.undo <= first_calls => return failure(entry.simulate),
            _ => {}
        }
        let gone = || Answer::new(204, Value::Null);
        let nothing = || Answer::problem(404, "Nothing to undo", "Nothing was done under this id or key.");
        let place = match entry.standing {
            Standing::Done(_, place) => place,
            Standing::Undone => return gone(),
            Standing::Refused(_) | Standing::Barred => return nothing(),
            Standing::Pending => {
                entry.standing = Standing::Barred;
                return nothing();
            }
        };
        entry.standing = Standing::Undone;
        self.take_back(place);
        self.log(Op::Undone, &key, &order, traceparent);
        gone()
    }

    fn take_back(&mut self, place: usize) {
        let effect = &mut self.effects[place];
        effect.state = EntryState::Undone;
        match self.trade {
            Trade::Inventory => *self.stock.entry(effect.sku.clone()).or_insert(STOCK_PER_SKU) += effect.amount,
            Trade::Payment => self.balance_cents -= cents(effect.amount),
            Trade::Shipping => {}
        }
    }

    fn entry(&mut self, key: &str, order: &str, simulate: Simulate) -> &mut Entry {
        self.entries.entry(key.to_owned()).or_insert_with(|| Entry {
            order: order.to_owned(),
            calls: Calls::default(),
            simulate,
            standing: Standing::Pending,
        })
    }

    fn log(&mut self, op: Op, key: &str, order: &str, traceparent: &str) {
        self.log_seq += 1;
        if self.log.len() == LOG_LINES_MAX {
            self.log.pop_front();
        }
        let (key, order, traceparent) = (key.to_owned(), order.to_owned(), traceparent.to_owned());
        self.log.push_back(LogLine { at_seq: self.log_seq, op, key, order, traceparent });
    }

    pub(crate) fn log_after(&self, seq: u64) -> Vec<LogLine> {
        let first = self.log.front().map_or(0, |line| line.at_seq);
        let skip = usize::try_from((seq + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        self.log.iter().skip(skip).cloned().collect()
    }

    pub(crate) fn state(&self) -> State {
        State {
            service: self.trade,
            stock: self.stock.clone(),
            stock_per_sku: STOCK_PER_SKU,
            balance_cents: self.balance_cents,
            entries: self.effects.clone(),
            calls: self.entries.iter().map(|(key, entry)| (key.clone(), entry.calls)).collect(),
            callbacks: self.told.clone(),
            log_lines_dropped: self.log_seq - self.log.len() as u64,
        }
    }
}

fn cents(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
