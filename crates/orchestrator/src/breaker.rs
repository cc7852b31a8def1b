//! The state machine of a breaker. Pure: its caller says what has happened, and does what comes of it.
//!
//! closed -> paused -> probing -> recovering -> closed. A probe that fails leads back to a pause, twice as long. Where
//! no hold is there to be the probe, the breaker is ready: the next one that comes is. A probe that is lost (its job
//! was cancelled, its worker died) is followed by another one after a time, so that nothing waits for ever.

use events::breaker::{BreakerSaid, BreakerState};
use serde::Deserialize;
use store::breakers::{BreakerRow, Phase};

/// The steps in which holds are let pass.
const TICK_MS: u64 = 100;
/// The growth of the rate in a tick: twofold in a second.
const GROWTH: f64 = 1.071_773_462_536_293;
/// The pause before holds are let pass that came while the breaker was closed, or closing.
const STRAY_MS: u64 = 500;

/// The settings of all breakers.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerConfig {
    /// The pause before the first probe, in milliseconds.
    pub pause_ms: u64,
    /// The longest pause before a probe, in milliseconds.
    pub pause_ms_max: u64,
    /// The time after which a probe counts as lost, in milliseconds.
    pub probe_timeout_ms: u64,
    /// Holds that are let pass in the first second after a probe has succeeded.
    pub release_per_s: u32,
    /// Holds that are let pass in a second, at most.
    pub release_per_s_max: u32,
}

/// Holds to be let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) holds_max: u32,
    pub(crate) is_probe: bool,
}

/// News come in. True if workers must know of the change.
pub(crate) fn hear(breaker: &mut BreakerRow, said: &BreakerSaid, config: &BreakerConfig) -> bool {
    let phase = breaker.phase;
    match said {
        BreakerSaid::Failing { epoch, calls, failures } => {
            // Of a state that is over: whoever said it knows by now.
            if breaker.forced || *epoch < breaker.epoch {
                return false;
            }
            let pause_ms = match phase {
                Phase::Closed => config.pause_ms,
                Phase::Recovering => longer(breaker, config),
                Phase::Paused | Phase::Ready | Phase::Probing => return false,
            };
            open(breaker, pause_ms, format!("{failures} of {calls} calls failed"));
        }
        // Whatever probe it was: the downstream answers again.
        BreakerSaid::Probed { answered: true, .. } => {
            if breaker.forced || matches!(phase, Phase::Closed | Phase::Recovering) {
                return false;
            }
            breaker.release_per_s = f64::from(config.release_per_s.max(1));
            turn(breaker, Phase::Recovering, Some(0), "a probe was answered".to_owned());
        }
        BreakerSaid::Probed { epoch, answered: false } => {
            if breaker.forced || phase != Phase::Probing || *epoch != breaker.epoch {
                return false;
            }
            open(breaker, longer(breaker, config), "a probe failed".to_owned());
        }
        BreakerSaid::Order { state, reason, by } => {
            breaker.forced = state.is_some();
            let reason = reason.clone().unwrap_or_default();
            match state {
                Some(BreakerState::Open | BreakerState::HalfOpen) => turn(breaker, Phase::Paused, None, reason),
                Some(BreakerState::Closed) => turn(breaker, Phase::Closed, Some(0), reason),
                // A probe decides about what is open.
                None if phase == Phase::Closed => turn(breaker, Phase::Closed, Some(0), reason),
                None => turn(breaker, Phase::Paused, Some(0), reason),
            }
            breaker.ordered_by = Some(by.clone());
        }
    }
    true
}

/// A hold has come that waits for the breaker.
pub(crate) fn hold_came(breaker: &mut BreakerRow) {
    match breaker.phase {
        Phase::Ready => breaker.due_in_ms = Some(0),
        // It was laid to rest by a worker that did not know yet.
        Phase::Closed => breaker.due_in_ms = breaker.due_in_ms.or(Some(STRAY_MS)),
        Phase::Paused | Phase::Probing | Phase::Recovering => {}
    }
}

/// Its time has come. Returns the holds to be let pass; [`passed`] is to follow.
pub(crate) fn wanted(breaker: &BreakerRow, config: &BreakerConfig) -> Wanted {
    let at = |per_s: f64| Wanted {
        holds_max: (per_s * TICK_MS as f64 / 1_000.0).ceil().clamp(1.0, 10_000.0) as u32,
        is_probe: false,
    };
    match breaker.phase {
        Phase::Paused if breaker.forced => Wanted { holds_max: 0, is_probe: false },
        Phase::Paused | Phase::Ready | Phase::Probing => Wanted { holds_max: 1, is_probe: true },
        Phase::Recovering => at(breaker.release_per_s),
        Phase::Closed => at(f64::from(config.release_per_s_max)),
    }
}

/// So many of the holds that were wanted were there. True if workers must know of the change.
pub(crate) fn passed(breaker: &mut BreakerRow, wanted: Wanted, holds: u32, config: &BreakerConfig) -> bool {
    let is_last = holds < wanted.holds_max;
    match breaker.phase {
        Phase::Paused if breaker.forced => {
            breaker.due_in_ms = None;
            false
        }
        Phase::Paused | Phase::Ready | Phase::Probing if is_last => {
            breaker.due_in_ms = None;
            breaker.phase = Phase::Ready;
            true
        }
        Phase::Paused | Phase::Ready | Phase::Probing => {
            breaker.due_in_ms = Some(config.probe_timeout_ms);
            breaker.phase = Phase::Probing;
            true
        }
        Phase::Recovering => {
            breaker.release_per_s *= GROWTH;
            if is_last || breaker.release_per_s >= f64::from(config.release_per_s_max) {
                turn(breaker, Phase::Closed, Some(TICK_MS), "its downstream answers".to_owned());
                return true;
            }
            breaker.due_in_ms = Some(TICK_MS);
            false
        }
        Phase::Closed => {
            breaker.due_in_ms = (!is_last).then_some(TICK_MS);
            false
        }
    }
}

/// The epoch of holds that are let pass now: a probe begins a state of its own.
pub(crate) fn begin(breaker: &mut BreakerRow, wanted: Wanted) {
    breaker.epoch += u64::from(wanted.is_probe);
}

fn open(breaker: &mut BreakerRow, pause_ms: u64, reason: String) {
    breaker.pause_ms = pause_ms;
    breaker.openings += u64::from(breaker.phase != Phase::Probing);
    turn(breaker, Phase::Paused, Some(pause_ms), reason);
}

fn longer(breaker: &BreakerRow, config: &BreakerConfig) -> u64 {
    breaker.pause_ms.saturating_mul(2).clamp(config.pause_ms, config.pause_ms_max.max(config.pause_ms))
}

fn turn(breaker: &mut BreakerRow, phase: Phase, due_in_ms: Option<u64>, reason: String) {
    (breaker.phase, breaker.due_in_ms) = (phase, due_in_ms);
    (breaker.reason, breaker.ordered_by) = (reason, None);
    breaker.epoch += 1;
}

#[cfg(test)]
mod tests;
