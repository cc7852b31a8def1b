//! Do money and stock agree with what the jobs say?

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::PerService;
use crate::state::{EntryState, EntryView, State};
use crate::trade::Trade;

/// Complaints listed in full; more are counted.
const COMPLAINTS_SHOWN_MAX: usize = 20;

/// How the job of one order ended. An order is named once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The order's name, as in the bodies that the shop got.
    pub order: String,
    /// True: succeeded. False: failed or cancelled, so nothing of it may stand.
    pub succeeded: bool,
}

/// The books and the outcomes do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditError {
    /// One sentence for each disagreement.
    pub complaints: Vec<String>,
}

impl std::fmt::Display for AuditError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "the shop's books disagree with the jobs in {} ways:", self.complaints.len())?;
        for complaint in self.complaints.iter().take(COMPLAINTS_SHOWN_MAX) {
            write!(formatter, "\n  {complaint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for AuditError {}

/// Compares the books with the outcomes of all jobs. A succeeded order has exactly one reservation, charge and shipment
/// that stand; any other order has none. Stock and balance are the sums of the standing ones.
///
/// # Errors
/// Every disagreement.
pub fn audit(states: &PerService<State>, outcomes: &[Outcome]) -> Result<(), AuditError> {
    let mut complaints = Vec::new();
    for state in [&states.inventory, &states.payment, &states.shipping] {
        check_orders(state, outcomes, &mut complaints);
        check_keys(state, &mut complaints);
        check_sums(state, &mut complaints);
    }
    if complaints.is_empty() { Ok(()) } else { Err(AuditError { complaints }) }
}

fn standing(state: &State) -> impl Iterator<Item = &EntryView> {
    state.entries.iter().filter(|entry| entry.state == EntryState::Done)
}

fn check_orders(state: &State, outcomes: &[Outcome], complaints: &mut Vec<String>) {
    let plural = state.service.plural();
    let mut found: HashMap<&str, u32> = HashMap::new();
    for entry in standing(state) {
        *found.entry(&entry.order).or_default() += 1;
    }
    for Outcome { order, succeeded } in outcomes {
        let count = found.remove(order.as_str()).unwrap_or_default();
        if count != u32::from(*succeeded) {
            let word = if *succeeded { "succeeded" } else { "did not succeed" };
            complaints.push(format!("order {order} {word}, but has {count} standing {plural}"));
        }
    }
    for (order, count) in found {
        complaints.push(format!("order {order} has {count} standing {plural}, but no job of it has ended"));
    }
}

/// The shop's own promise: no key ever had two effects.
fn check_keys(state: &State, complaints: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for entry in &state.entries {
        if !seen.insert(&entry.key) {
            complaints.push(format!("the key {} had two effects in {}", entry.key, state.service.name()));
        }
    }
}

fn check_sums(state: &State, complaints: &mut Vec<String>) {
    match state.service {
        Trade::Inventory => {
            let mut held: BTreeMap<&str, u64> = BTreeMap::new();
            for entry in standing(state) {
                *held.entry(&entry.sku).or_default() += entry.amount;
            }
            for (sku, left) in &state.stock {
                let expected = state.stock_per_sku - held.get(sku.as_str()).copied().unwrap_or_default();
                if *left != expected {
                    complaints.push(format!("{left} of {sku} are in stock, but the reservations leave {expected}"));
                }
            }
        }
        Trade::Payment => {
            let charged: i64 = standing(state).map(|entry| i64::try_from(entry.amount).unwrap_or(i64::MAX)).sum();
            if state.balance_cents != charged {
                complaints
                    .push(format!("the balance is {} cents, but the charges make {charged}", state.balance_cents));
            }
        }
        Trade::Shipping => {}
    }
}
