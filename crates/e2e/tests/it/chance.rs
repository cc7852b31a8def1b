//! Seeded chance, so that a run can be told and replayed.

use std::time::Duration;

/// SplitMix64: small, and good enough to choose moments.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A time below this many milliseconds.
    pub(crate) fn ms_below(&mut self, bound_ms: u64) -> Duration {
        Duration::from_millis(self.below(bound_ms))
    }
}

/// `E2E_SEED`, else from the clock. Whoever asks prints it when the test fails.
pub(crate) fn seed() -> u64 {
    if let Ok(text) = std::env::var("E2E_SEED") {
        return text.parse().expect("E2E_SEED is a number");
    }
    uuid::Uuid::now_v7().as_u128() as u64 % 1_000_000
}

/// Tells the seed when the test fails.
#[derive(Debug)]
pub(crate) struct TellSeed(pub(crate) u64);

impl Drop for TellSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with E2E_SEED={}", self.0);
        }
    }
}
