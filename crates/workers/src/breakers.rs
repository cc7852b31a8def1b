//! The breakers of downstreams as this worker knows them: the states that their owner publishes on
//! `meanwhile.breakers`, and what the worker's own calls say.
//!
//! The orchestrator owns every breaker. A worker whose calls fail tells it, and makes no further calls until it hears
//! the new state, or for some seconds. Any later state of the owner counts.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::Inbound;
use events::breaker::{Breaker, BreakerSaid, BreakerState};
use flow::decide::Told;
use flow::slip::Pass;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::config::BreakerConfig;
use crate::followed::{Following, Learn};
use crate::window::{Threshold, Window};

/// Downstreams that are looked at; a deployment has tens.
const DOWNSTREAMS_MAX: usize = 1_000;
/// The time for which a worker trusts its own calls, if nobody answers.
const DOUBT_MAX: Duration = Duration::from_secs(10);
/// A breaker that has just let calls pass again opens by fewer failures.
const RECOVERING_CALLS_MIN: u32 = 5;

/// All breakers. Shared by reference.
pub(crate) struct Breakers {
    config: BreakerConfig,
    known: Mutex<HashMap<String, Downstream>>,
}

/// One downstream.
struct Downstream {
    state: BreakerState,
    epoch: u64,
    forced: bool,
    window: Window,
    /// Since when this worker waits for the owner's answer.
    doubted: Option<Instant>,
}

impl Downstream {
    fn new(window_s: u32) -> Self {
        let window = Window::new(window_s);
        Self { state: BreakerState::Closed, epoch: 0, forced: false, window, doubted: None }
    }

    fn hear(&mut self, breaker: &Breaker) {
        if breaker.epoch < self.epoch {
            return;
        }
        (self.state, self.epoch, self.forced) = (breaker.state, breaker.epoch, breaker.forced);
        self.doubted = None;
        self.window.clear();
    }
}

impl fmt::Debug for Breakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breakers").field("downstreams", &self.known.lock().len()).finish_non_exhaustive()
    }
}

impl Breakers {
    /// Knows of none. The second value is for [`crate::followed::follow`]; the receiver becomes true once all states
    /// are known.
    pub(crate) fn new(config: BreakerConfig) -> (Arc<Self>, Following, watch::Receiver<bool>) {
        let (_, following, is_loaded) = Following::new();
        (Arc::new(Self { config, known: Mutex::default() }), following, is_loaded)
    }

    /// True if a call may be made now. `pass`: what the breaker gave the slip. A pass of an earlier state is void.
    pub(crate) fn lets(&self, downstream: &str, pass: Option<Pass>) -> bool {
        let mut known = self.known.lock();
        let Some(known) = known.get_mut(downstream) else { return true };
        if known.doubted.is_some_and(|since| since.elapsed() > DOUBT_MAX) {
            known.doubted = None;
        }
        match (known.state, pass) {
            (BreakerState::Closed, None) => known.doubted.is_none(),
            (BreakerState::Closed, Some(pass)) => known.doubted.is_none() || pass.epoch > known.epoch,
            (BreakerState::Open | BreakerState::HalfOpen, Some(pass)) => pass.epoch >= known.epoch,
            (BreakerState::Open | BreakerState::HalfOpen, None) => false,
        }
    }

    /// A call has ended. Returns the news for the breaker's owner.
    pub(crate) fn note(&self, downstream: &str, pass: Option<Pass>, told: Told, now_ms: i64) -> Option<BreakerSaid> {
        let failed = match told {
            Told::Answered => false,
            Told::Failed => true,
            Told::Nothing => return None,
        };
        if let Some(Pass { epoch, .. }) = pass.filter(|pass| pass.is_probe) {
            return Some(BreakerSaid::Probed { epoch, answered: !failed });
        }
        if !self.config.enabled {
            return None;
        }
        let mut all = self.known.lock();
        if !all.contains_key(downstream) {
            if all.len() >= DOWNSTREAMS_MAX {
                return None;
            }
            all.insert(downstream.to_owned(), Downstream::new(self.config.window_s));
        }
        let known = all.get_mut(downstream)?;
        known.window.note(now_ms, failed);
        let calls_min = match known.state {
            BreakerState::Closed => self.config.calls_min,
            BreakerState::HalfOpen => self.config.calls_min.min(RECOVERING_CALLS_MIN),
            // Calls that were under way before.
            BreakerState::Open => return None,
        };
        if known.forced || known.doubted.is_some() || !failed {
            return None;
        }
        let threshold = Threshold { calls_min, failures_percent: self.config.failures_percent };
        let (calls, failures) = known.window.failing(now_ms, threshold)?;
        known.doubted = Some(Instant::now());
        known.window.clear();
        Some(BreakerSaid::Failing { epoch: known.epoch, calls, failures })
    }

    fn hear(&self, all: &mut HashMap<String, Downstream>, record: &Inbound) {
        match Breaker::read(record) {
            Ok(Some(breaker)) => {
                let of_breaker = all.entry(breaker.downstream.clone());
                of_breaker.or_insert_with(|| Downstream::new(self.config.window_s)).hear(&breaker);
                let open = u32::from(breaker.state != BreakerState::Closed);
                metrics::gauge!("meanwhile_breaker_open", "downstream" => breaker.downstream).set(f64::from(open));
            }
            Ok(None) => {
                let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
                key.map(|downstream| all.remove(downstream));
            }
            Err(error) => {
                metrics::counter!("meanwhile_unreadable_skipped_total", "role" => "workers").increment(1);
                tracing::warn!(offset = record.offset, %error, "a breaker cannot be read; passed over");
            }
        }
    }
}

impl Learn for Breakers {
    async fn load(&self, records: &[Inbound]) {
        self.learn(records).await;
    }

    async fn learn(&self, records: &[Inbound]) {
        let mut all = self.known.lock();
        records.iter().for_each(|record| self.hear(&mut all, record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn breakers() -> Arc<Breakers> {
        let config = BreakerConfig { enabled: true, window_s: 10, calls_min: 20, failures_percent: 50 };
        Breakers::new(config).0
    }

    fn tell(breakers: &Breakers, state: BreakerState, epoch: u64) {
        let breaker = Breaker { downstream: "payment".to_owned(), state, epoch, forced: false };
        breakers.known.lock().entry("payment".to_owned()).or_insert_with(|| Downstream::new(10)).hear(&breaker);
    }

    fn fail(breakers: &Breakers, calls: usize) -> Vec<BreakerSaid> {
        (0..calls).filter_map(|_| breakers.note("payment", None, Told::Failed, NOW_MS)).collect()
    }

    const fn pass(epoch: u64, is_probe: bool) -> Option<Pass> {
        Some(Pass { epoch, is_probe })
    }

    #[test]
    fn calls_that_fail_are_told_once_and_none_is_made_until_the_owner_answers() {
        let breakers = breakers();
        assert_eq!(fail(&breakers, 50), [BreakerSaid::Failing { epoch: 0, calls: 20, failures: 20 }]);
        assert!(!breakers.lets("payment", None) && breakers.lets("shipping", None));
        assert!(!breakers.lets("payment", pass(0, false)), "let pass before");
        assert!(breakers.lets("payment", pass(1, true)), "by a state of which the worker has not heard yet");
        tell(&breakers, BreakerState::Closed, 0);
        assert!(breakers.lets("payment", None));
    }

    #[test]
    fn while_it_is_not_closed_only_a_pass_of_its_present_state_counts() {
        let breakers = breakers();
        for state in [BreakerState::Open, BreakerState::HalfOpen] {
            tell(&breakers, state, 7);
            assert!(!breakers.lets("payment", None) && !breakers.lets("payment", pass(6, true)));
            assert!(breakers.lets("payment", pass(7, true)) && breakers.lets("payment", pass(8, false)));
        }
        tell(&breakers, BreakerState::Closed, 5);
        assert!(!breakers.lets("payment", None), "an earlier state changes nothing");
        tell(&breakers, BreakerState::Closed, 8);
        assert!(breakers.lets("payment", None));
    }

    #[test]
    fn the_outcome_of_a_probe_is_told_whatever_else_was_seen() {
        let breakers = breakers();
        tell(&breakers, BreakerState::HalfOpen, 3);
        for (told, answered) in [(Told::Answered, true), (Told::Failed, false)] {
            let said = breakers.note("payment", pass(3, true), told, NOW_MS);
            assert_eq!(said, Some(BreakerSaid::Probed { epoch: 3, answered }));
        }
        assert_eq!(breakers.note("payment", pass(3, true), Told::Nothing, NOW_MS), None);
    }

    #[test]
    fn a_worker_that_asks_no_breaker_to_open_tells_of_probes_all_the_same() {
        let config = BreakerConfig { enabled: false, window_s: 10, calls_min: 20, failures_percent: 50 };
        let breakers = Breakers::new(config).0;
        tell(&breakers, BreakerState::HalfOpen, 3);
        let said = breakers.note("payment", pass(3, true), Told::Answered, NOW_MS);
        assert_eq!(said, Some(BreakerSaid::Probed { epoch: 3, answered: true }));
        assert_eq!(fail(&breakers, 50), []);
    }

    #[test]
    fn a_breaker_that_lets_calls_pass_again_opens_by_a_few_failures() {
        let breakers = breakers();
        tell(&breakers, BreakerState::HalfOpen, 4);
        assert_eq!(fail(&breakers, 9), [BreakerSaid::Failing { epoch: 4, calls: 5, failures: 5 }]);
        tell(&breakers, BreakerState::Open, 5);
        assert_eq!(fail(&breakers, 50), [], "calls that were under way");
    }
}
