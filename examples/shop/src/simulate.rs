//! Failures on request: the `simulate` member of a body.

use std::time::Duration;

/// How long `slow` takes when it names no time.
const SLOW_MS: u64 = 3_000;
/// The longest time that a caller may ask for.
const SLOW_MS_MAX: u64 = 120_000;
/// After how long `timeout_after_effect` and `timeout_before_effect` answer.
const TIMEOUT_MS: u64 = 10_000;
/// How often `flaky` fails when it names no number.
const FLAKY_CALLS: u32 = 2;

/// The failure that a piece of work shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Simulate {
    /// Nothing.
    #[default]
    Nothing,
    /// 409 for good.
    OutOfStock,
    /// 402 for good.
    Declined,
    /// 503 for the first calls with a key, then fine.
    Flaky(u32),
    /// 503 with `Retry-After` in seconds for the first call with a key, then fine.
    Busy(u64),
    /// Waits, then does it and answers.
    Slow(Duration),
    /// Does it, then waits, and answers after the caller has given up. Every repetition waits too.
    TimeoutAfterEffect(Duration),
    /// The first call with a key waits, and answers 503 after the caller has given up, without an effect. Later ones
    /// are fine.
    TimeoutBeforeEffect(Duration),
    /// Does it, waits, then answers. It does not honour keys: a repetition is refused for good, with 409.
    Once(Duration),
    /// 500 until mended.
    Error,
    /// This status, without an effect.
    Status(u16),
    /// Is fine, but its undo answers 500 until mended.
    UndoError,
    /// Is fine, but its undo answers 503 for the first calls.
    UndoFlaky(u32),
}

impl Simulate {
    /// Reads `flaky`, `flaky:3`, `slow:250`, ...
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (word, argument) = text.split_once(':').map_or((text, None), |(word, argument)| (word, Some(argument)));
        let number = |default: u64| match argument {
            None => Ok(default),
            Some(digits) => digits.parse().map_err(|_| format!("simulate `{text}`: `{digits}` is not a number")),
        };
        let calls = |default: u32| number(default.into()).map(|calls| u32::try_from(calls).unwrap_or(u32::MAX));
        let wait = |default: u64| number(default).map(|wait_ms| Duration::from_millis(wait_ms.min(SLOW_MS_MAX)));
        Ok(match word {
            "" | "none" => Self::Nothing,
            "out_of_stock" => Self::OutOfStock,
            "declined" => Self::Declined,
            "flaky" => Self::Flaky(calls(FLAKY_CALLS)?),
            "busy" => Self::Busy(number(2)?),
            "slow" => Self::Slow(wait(SLOW_MS)?),
            "timeout_after_effect" => Self::TimeoutAfterEffect(wait(TIMEOUT_MS)?),
            "timeout_before_effect" => Self::TimeoutBeforeEffect(wait(TIMEOUT_MS)?),
            "once" => Self::Once(wait(0)?),
            "error" => Self::Error,
            "status" => Self::Status(number(500)?.try_into().unwrap_or(500)),
            "undo_error" => Self::UndoError,
            "undo_flaky" => Self::UndoFlaky(calls(FLAKY_CALLS)?),
            _ => {
                return Err(format!(
                    "simulate `{text}` is not known; known are out_of_stock, declined, flaky[:CALLS], busy[:SECONDS], \
                     slow[:MS], timeout_after_effect[:MS], timeout_before_effect[:MS], once[:MS], error, status:CODE, \
                     undo_error, undo_flaky[:CALLS]"
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_can_be_asked_for() {
        for (text, simulate) in [
            ("", Simulate::Nothing),
            ("declined", Simulate::Declined),
            ("flaky", Simulate::Flaky(2)),
            ("flaky:5", Simulate::Flaky(5)),
            ("slow:250", Simulate::Slow(Duration::from_millis(250))),
            ("slow:999999999", Simulate::Slow(Duration::from_secs(120))),
            ("timeout_after_effect", Simulate::TimeoutAfterEffect(Duration::from_secs(10))),
            ("once", Simulate::Once(Duration::ZERO)),
            ("status:429", Simulate::Status(429)),
        ] {
            assert_eq!(Simulate::parse(text), Ok(simulate), "{text}");
        }
        assert!(Simulate::parse("flakey").unwrap_err().contains("known are"));
        assert!(Simulate::parse("slow:soon").unwrap_err().contains("not a number"));
    }
}
