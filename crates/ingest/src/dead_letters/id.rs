//! The id of a dead letter: its place on the dead letters' topic, `{partition}-{offset}`.

use std::fmt;
use std::str::FromStr;

use flow::id::JobId;
use store::letters::{After, Letter, Place};

/// The end of the year 9999: Postgres has no time so late as an `i64` could name.
const LATEST_US: i64 = 253_402_300_799_999_999;

/// The id of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) Place);

impl Id {
    pub(crate) const fn of(letter: &Letter) -> Self {
        Self(Place { partition: letter.letter.partition, offset: letter.letter.offset })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.partition, self.0.offset)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (partition, offset) = text.split_once('-').ok_or(())?;
        let id = Self(Place { partition: partition.parse().map_err(drop)?, offset: offset.parse().map_err(drop)? });
        // One id has one form.
        if id.to_string() == text && id.0.partition >= 0 && id.0.offset >= 0 { Ok(id) } else { Err(()) }
    }
}

/// A place in the list, as `next` tells it: a time, and what was listed last of it.
pub(super) fn cursor(after: After) -> String {
    match after {
        After::Letter(at_us, place) => format!("{at_us}.{}", Id(place)),
        After::Token(at_us, job) => format!("{at_us}.{job}"),
    }
}

/// The place that a cursor names.
pub(super) fn parse_cursor(text: &str) -> Option<After> {
    let (at_us, last) = text.split_once('.')?;
    let at_us = at_us.parse().ok().filter(|at_us| (0..=LATEST_US).contains(at_us))?;
    match last.parse::<Id>() {
        Ok(Id(place)) => Some(After::Letter(at_us, place)),
        Err(()) => last.parse::<JobId>().ok().map(|job| After::Token(at_us, job)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_form() {
        let id: Id = "2-17".parse().unwrap();
        assert_eq!((id.0.partition, id.0.offset, id.to_string().as_str()), (2, 17, "2-17"));
        for text in ["", "2", "2-", "-17", "2--17", "02-17", "2-+17", "2-17-1", "a-b", "99999999999-1"] {
            assert_eq!(text.parse::<Id>(), Err(()), "{text}");
        }
    }

    #[test]
    fn a_cursor_names_a_letter_or_a_job() {
        let job: JobId = "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".parse().unwrap();
        for after in [After::Letter(5, Place { partition: 0, offset: 9 }), After::Token(7, job)] {
            assert_eq!(parse_cursor(&cursor(after)), Some(after));
        }
        for text in ["5", "x.0-1", "5.x", "-1.0-1", "9223372036854775807.0-1"] {
            assert_eq!(parse_cursor(text), None, "{text}");
        }
    }
}
