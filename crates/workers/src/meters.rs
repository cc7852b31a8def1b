//! The counters of each step. An attempt costs one look-up and makes no label.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use flow::decide::Outcome;
use flow::slip::{Phase, Slip};
use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::RwLock;

/// Steps that have counters of their own, at most; a deployment has tens. The rest are counted together.
const STEPS_MAX: usize = 5_000;
/// The name of flow and step under which the rest is counted.
const OTHER: &str = "(other)";

/// The meters of a step in one phase.
pub(crate) struct StepMeters {
    /// The time that its attempts take.
    pub(crate) seconds: Histogram,
    succeeded: Counter,
    failed: Counter,
    refused: Counter,
    cancelled: Counter,
    /// Attempts that follow a failed one after a short wait in the same worker.
    pub(crate) retried_at_once: Counter,
    /// Attempts that follow a failed one after a hold.
    pub(crate) retried_after_hold: Counter,
    /// The share of recent attempts that took long, in 65536ths; the newest attempt counts for an eighth.
    long_share: AtomicU32,
}

/// The share when all recent attempts took long.
const ALL: u32 = 1 << 16;

impl StepMeters {
    fn new(flow: &str, step: &str, phase: &'static str) -> Self {
        let (flow, step) = (flow.to_owned(), step.to_owned());
        let attempts = |outcome: &'static str| {
            let (flow, step) = (flow.clone(), step.clone());
            counter!("meanwhile_steps_total", "flow" => flow, "step" => step, "phase" => phase, "outcome" => outcome)
        };
        let retries = |after: &'static str| {
            let (flow, step) = (flow.clone(), step.clone());
            counter!(
                "meanwhile_step_retries_total", "flow" => flow, "step" => step, "phase" => phase, "after" => after
            )
        };
        Self {
            succeeded: attempts("succeeded"),
            failed: attempts("failed"),
            refused: attempts("refused"),
            cancelled: attempts("cancelled"),
            retried_at_once: retries("wait"),
            retried_after_hold: retries("hold"),
            long_share: AtomicU32::new(0),
            seconds: histogram!(
                "meanwhile_step_seconds", "flow" => flow.clone(), "step" => step.clone(), "phase" => phase
            ),
        }
    }

    /// An attempt has ended that took long, or did not.
    pub(crate) fn took(&self, long: bool) {
        // Two concurrent calls may lose one update, which an estimate tolerates.
        let share = self.long_share.load(Ordering::Relaxed);
        if long || share > 0 {
            self.long_share.store(share - share / 8 + u32::from(long) * (ALL / 8), Ordering::Relaxed);
        }
    }

    /// True when most of the last attempts took long.
    pub(crate) fn takes_long(&self) -> bool {
        self.long_share.load(Ordering::Relaxed) > ALL / 2
    }

    /// The counter of attempts that end like this; none where nothing was attempted.
    pub(crate) fn attempts(&self, outcome: &Outcome) -> Option<&Counter> {
        match outcome {
            Outcome::Succeeded { .. } | Outcome::Accepted { .. } | Outcome::NothingToUndo { .. } => {
                Some(&self.succeeded)
            }
            Outcome::Failed { retryable: true, .. } => Some(&self.failed),
            Outcome::Failed { retryable: false, .. } => Some(&self.refused),
            Outcome::Cancelled => Some(&self.cancelled),
            Outcome::NotYet { .. } | Outcome::Skipped | Outcome::Rests(_) | Outcome::NotSignalled => None,
        }
    }
}

/// By flow, then step.
type Steps = HashMap<String, HashMap<String, [Arc<StepMeters>; 2]>>;

/// The counters of every step that this process has run. They are made when a step is first run, all at zero.
#[derive(Default)]
pub(crate) struct Meters {
    steps: RwLock<Steps>,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}

impl Meters {
    /// The meters of a slip's step, in the slip's phase.
    pub(crate) fn of(&self, slip: &Slip) -> Arc<StepMeters> {
        let found = find(&self.steps.read(), slip);
        found.unwrap_or_else(|| self.make(slip))
    }

    fn make(&self, slip: &Slip) -> Arc<StepMeters> {
        let mut steps = self.steps.write();
        let full = steps.values().map(HashMap::len).sum::<usize>() >= STEPS_MAX;
        let (flow, step) = if full { (OTHER, OTHER) } else { (slip.flow.as_str(), slip.step.as_str()) };
        let of_flow = steps.entry(flow.to_owned()).or_default();
        let both = of_flow.entry(step.to_owned()).or_insert_with(|| {
            [Phase::Forward, Phase::Undo].map(|phase| Arc::new(StepMeters::new(flow, step, phase.as_str())))
        });
        Arc::clone(&both[place(slip.phase)])
    }
}

fn find(steps: &Steps, slip: &Slip) -> Option<Arc<StepMeters>> {
    Some(Arc::clone(&steps.get(&slip.flow)?.get(&slip.step)?[place(slip.phase)]))
}

const fn place(phase: Phase) -> usize {
    match phase {
        Phase::Forward => 0,
        Phase::Undo => 1,
    }
}
