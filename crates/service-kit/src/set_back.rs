//! Notices that the wall clock was set back.
//!
//! librdkafka's threads wait by the wall clock (`cnd_timedwait` with an absolute time, librdkafka 2.12): where it is
//! set back by an hour, they stand still for an hour, and nothing from outside wakes all of them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::identity::Clock;

/// The interval between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Waits until the clock has gone back by more than `limit` from one look to the next; returns by how much.
pub async fn set_back(clock: &Clock, limit: Duration) -> Duration {
    loop {
        let (began, before_ms) = (Instant::now(), clock.now_ms());
        sleep(LOOK_EVERY).await;
        let expected_ms = before_ms.saturating_add(i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX));
        let back_ms = expected_ms.saturating_sub(clock.now_ms());
        let back = Duration::from_millis(u64::try_from(back_ms).unwrap_or(0));
        if back > limit {
            return back;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_is_noticed_and_one_that_goes_slowly_or_ahead_is_not() {
        let clock = Clock::manual(1_000_000);
        let limit = Duration::from_secs(30);
        let watching = set_back(&clock, limit);
        let changing = async {
            sleep(Duration::from_millis(2_500)).await;
            clock.advance(Duration::from_secs(3_600));
            sleep(Duration::from_millis(2_500)).await;
            clock.set_ms(clock.now_ms() - 20_000);
            sleep(Duration::from_millis(2_500)).await;
            clock.set_ms(clock.now_ms() - 40_000);
            std::future::pending::<()>().await;
        };
        let began = Instant::now();
        let back = tokio::select! {
            back = watching => back,
            () = changing => unreachable!("it waits for ever"),
        };
        // The manual clock stands still, so each look adds its second.
        assert_eq!((back.as_secs(), began.elapsed().as_secs()), (41, 8));
    }
}
