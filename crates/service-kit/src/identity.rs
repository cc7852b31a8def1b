//! Ids, chance and time, handed in so that tests can decide them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// The time of day: the system's, or a test's.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The system's clock.
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `now_ms` until a test moves it.
    pub fn manual(now_ms: i64) -> Self {
        Self(Some(Arc::new(AtomicI64::new(now_ms))))
    }

    /// Milliseconds since the Unix epoch.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that others are handed")]
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Some(manual) => manual.load(Ordering::SeqCst),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
        }
    }

    /// Sets a manual clock; the system's clock stays as it is.
    pub fn set_ms(&self, now_ms: i64) {
        if let Some(manual) = &self.0 {
            manual.store(now_ms, Ordering::SeqCst);
        }
    }

    /// Moves a manual clock on; the system's clock stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.0 {
            manual.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }
}

/// The source of ids and chance: the system, or a test's seed.
#[derive(Debug, Clone, Default)]
pub struct Ids(Option<Arc<AtomicU64>>);

impl Ids {
    /// The system's source, whose ids cannot be guessed.
    pub const fn system() -> Self {
        Self(None)
    }

    /// A source that gives the same ids for the same seed, in the order in which they are drawn.
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(AtomicU64::new(seed))))
    }

    /// 64 random bits.
    pub fn random_u64(&self) -> u64 {
        match &self.0 {
            Some(state) => mix(state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)),
            // Of the thread's own generator (ChaCha): a request draws several, and each took a call of the kernel.
            None => rand::random(),
        }
    }

    /// A UUIDv7 (RFC 9562) for the time `now_ms`: for jobs and messages. Ids of one millisecond are in no order.
    pub fn uuid_v7(&self, now_ms: i64) -> Uuid {
        let chance = self.trace_id();
        let tail = chance.first_chunk().expect("10 of 16 bytes");
        uuid::Builder::from_unix_timestamp_millis(u64::try_from(now_ms).unwrap_or_default(), tail).into_uuid()
    }

    /// A random UUID.
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.trace_id()).into_uuid()
    }

    /// 16 random bytes, not all zero: a W3C trace id.
    pub fn trace_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.span_id());
        id[8..].copy_from_slice(&self.span_id());
        id
    }

    /// 8 random bytes, not all zero: a W3C span id.
    pub fn span_id(&self) -> [u8; 8] {
        self.random_u64().max(1).to_be_bytes()
    }
}

/// SplitMix64's finaliser: spreads a counter over all 64 bits.
const fn mix(counter: u64) -> u64 {
    let one = (counter ^ (counter >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let two = (one ^ (one >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    two ^ (two >> 31)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests own what they start")]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_time_and_differ() {
        let ids = Ids::system();
        let drawn: std::collections::HashSet<Uuid> = (0..1_000).map(|_| ids.uuid_v7(1_700_000_000_123)).collect();
        assert_eq!(drawn.len(), 1_000);
        for id in drawn {
            assert_eq!((id.get_version_num(), id.as_u128() >> 80), (7, 1_700_000_000_123));
        }
    }

    #[test]
    fn a_seed_gives_the_same_ids_again() {
        let draw = |seed| {
            let ids = Ids::seeded(seed);
            (ids.uuid_v7(5), ids.uuid(), ids.trace_id(), ids.span_id(), ids.random_u64())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_manual_clock_moves_when_it_is_told_to() {
        let clock = Clock::manual(1_000);
        let other_hand = clock.clone();
        clock.advance(Duration::from_secs(2));
        assert_eq!(other_hand.now_ms(), 3_000);
        assert!(Clock::system().now_ms() > 1_700_000_000_000);
    }
}
