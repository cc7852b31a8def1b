//! Times at which a flow starts by itself: a cron pattern in a time zone. Pure: the present is handed in.
//!
//! Where the clock is set forward, a time that does not exist comes at the first moment after the gap; where it is set
//! back, a time of day comes once and a repetition (`*/15`) goes on, as cron does it.

use chrono::{DateTime, SecondsFormat, TimeZone};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde_json::{Value, json};

use crate::time::rfc3339;

/// A tick is missed if it is later than this.
pub const GRACE_MS: i64 = 60_000;
/// Ticks that are made up for at once, and looked for in a round: a pattern of each minute has 1,440 a day.
pub const MISSED_MAX: usize = 100;

/// 2027-01-01.
const SOME_TIME_MS: i64 = 1_798_761_600_000;

/// The pattern, its zone, and the policy for missed ticks.
#[derive(Debug)]
pub struct Schedule {
    cron: Cron,
    text: String,
    zone: Tz,
    missed: Missed,
}

/// The policy for ticks at which nothing could be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// Nothing.
    Skip,
    /// The last one is made up for.
    Last,
    /// Each is made up for, the last [`MISSED_MAX`] at most.
    All,
}

impl Missed {
    pub(super) const WORDS: [(&'static str, Self); 3] =
        [("skip", Self::Skip), ("last", Self::Last), ("all", Self::All)];
}

/// The ticks of some time, by the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The ticks that start jobs, in milliseconds since the Unix epoch, in order.
    pub ticks: Vec<i64>,
    /// The last tick that has passed, whether it starts a job or not; none: none has.
    pub reached_ms: Option<i64>,
    /// Ticks that start nothing.
    pub skipped: usize,
}

impl Schedule {
    /// # Errors
    /// The part that is none, for a person.
    pub(super) fn new(text: &str, zone: &str, missed: Missed) -> Result<Self, String> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let fields = text.split(' ').count();
        if fields != 5 {
            return Err(format!("`cron` has {fields} of five fields: minute, hour, day of month, month, day of week"));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&text).map_err(|error| format!("`cron`: {error}"))?;
        let zone = zone.parse().map_err(|_| format!("`timezone`: there is no `{zone}`"))?;
        Ok(Self { cron, text, zone, missed })
    }

    /// Pattern and zone: another text means other ticks.
    pub fn terms(&self) -> String {
        format!("{} {}", self.text, self.zone.name())
    }

    /// The first tick after this time; none: it never comes.
    pub fn next_ms(&self, after_ms: i64) -> Option<i64> {
        let after = self.at(after_ms)?;
        let next = self.cron.find_next_occurrence(&after, false).ok()?.timestamp_millis();
        // Whatever the library says of odd zones: time goes on.
        (next > after_ms).then_some(next)
    }

    /// The last tick at or before this time.
    fn last_ms(&self, until_ms: i64) -> Option<i64> {
        let until = self.at(until_ms)?;
        Some(self.cron.find_previous_occurrence(&until, true).ok()?.timestamp_millis())
    }

    /// The ticks after `reached_ms` up to now, by the policy.
    pub fn due(&self, reached_ms: i64, now_ms: i64) -> Due {
        let mut passed = Vec::new();
        let mut at_ms = reached_ms;
        while let Some(next_ms) = self.next_ms(at_ms).filter(|next_ms| *next_ms <= now_ms) {
            passed.push(next_ms);
            at_ms = next_ms;
            if passed.len() > MISSED_MAX {
                return self.long_due(now_ms, passed);
            }
        }
        self.by_policy(passed, now_ms, 0)
    }

    /// More have passed than are made up for: the last ones count, found from behind.
    fn long_due(&self, now_ms: i64, begun: Vec<i64>) -> Due {
        let mut last = Vec::new();
        let mut until_ms = now_ms;
        while let Some(tick_ms) = self.last_ms(until_ms).filter(|_| last.len() < MISSED_MAX) {
            last.push(tick_ms);
            until_ms = tick_ms - 1;
        }
        last.reverse();
        // At least so many; nobody counts the rest.
        let before = begun.iter().filter(|tick| last.first().is_none_or(|first| *tick < first)).count();
        self.by_policy(last, now_ms, before)
    }

    fn by_policy(&self, passed: Vec<i64>, now_ms: i64, before: usize) -> Due {
        let (count, reached_ms) = (passed.len(), passed.last().copied());
        let ticks: Vec<i64> = match self.missed {
            Missed::Skip => passed.into_iter().filter(|tick_ms| now_ms - tick_ms <= GRACE_MS).collect(),
            // Those that are in time are never left out.
            Missed::Last => {
                let in_time = passed.iter().filter(|tick_ms| now_ms - **tick_ms <= GRACE_MS).count().max(1);
                passed.into_iter().skip(count.saturating_sub(in_time)).collect()
            }
            Missed::All => passed.into_iter().skip(count.saturating_sub(MISSED_MAX)).collect(),
        };
        Due { skipped: before + count - ticks.len(), ticks, reached_ms }
    }

    /// The input of the job of a tick: the instant, and the same as the clock of the zone shows it.
    pub fn input(&self, tick_ms: i64) -> Value {
        let local = self.at(tick_ms).map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
        json!({ "tick": rfc3339(tick_ms), "scheduled_at": local })
    }

    /// The input of some tick, the same on every day.
    pub(super) fn sample(&self) -> Option<Value> {
        self.next_ms(SOME_TIME_MS).map(|tick_ms| self.input(tick_ms))
    }

    fn at(&self, ms: i64) -> Option<DateTime<Tz>> {
        self.zone.timestamp_millis_opt(ms).single()
    }
}
