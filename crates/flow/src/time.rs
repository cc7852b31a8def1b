//! Instants as text: RFC 3339, UTC, milliseconds, years 0000 to 9999.

/// An hour has so many milliseconds.
pub const HOUR_MS: i64 = 3_600_000;
/// A day has so many milliseconds.
pub const DAY_MS: i64 = 86_400_000;
const YEAR_0_MS: i64 = -62_167_219_200_000;
const YEAR_9999_END_MS: i64 = 253_402_300_799_999;

/// `1970-01-01T00:00:00.000Z` for 0. An instant outside RFC 3339 is moved to the nearest one inside.
pub fn rfc3339(ms: i64) -> String {
    let ms = ms.clamp(YEAR_0_MS, YEAR_9999_END_MS);
    let (days, in_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", in_day % 1000)
}

/// The reverse of [`rfc3339`], for exactly the form that it writes.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| {
        let part = text.get(from..to)?;
        if part.bytes().all(|byte| byte.is_ascii_digit()) { part.parse::<i64>().ok() } else { None }
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let in_day = ((number(11, 13)? * 60 + number(14, 16)?) * 60 + number(17, 19)?) * 1000 + number(20, 23)?;
    let ms = days_from_civil(year, month, day) * DAY_MS + in_day;
    // A text that is out of range or has other separators is not written as it was read.
    (rfc3339(ms) == text).then_some(ms)
}

/// An instant as people write it (RFC 3339): with any offset, and with or without a fraction, of which milliseconds
/// count.
pub fn parse_instant(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_uppercase();
    let (local, offset) = match text.strip_suffix('Z') {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            (local, offset_ms(offset)?)
        }
    };
    let (seconds, fraction) = local.split_once('.').unwrap_or((local, "0"));
    let is_number = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let ms = is_number.then(|| fraction.chars().chain("00".chars()).take(3).collect::<String>())?;
    parse_rfc3339(&format!("{}.{ms}Z", seconds.replacen(' ', "T", 1)))?.checked_sub(offset)
}

/// `+01:00`
fn offset_ms(text: &str) -> Option<i64> {
    let (sign, of_day) = match text.split_at_checked(1)? {
        ("+", of_day) => (1, of_day),
        ("-", of_day) => (-1, of_day),
        _ => return None,
    };
    // As the time of a day that it looks like.
    Some(sign * parse_rfc3339(&format!("1970-01-01T{of_day}:00.000Z"))?)
}

/// Days since 1970-01-01 to (year, month, day), proleptic Gregorian (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_instants_are_written_as_the_world_writes_them() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_614_265_330_007, "2021-02-25T15:02:10.007Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (YEAR_0_MS, "0000-01-01T00:00:00.000Z"),
            (YEAR_9999_END_MS, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
            assert_eq!(parse_rfc3339(text), Some(ms));
        }
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn other_forms_and_impossible_instants_are_refused() {
        for text in
            ["", "2021-02-30T00:00:00.000Z", "2021-02-25 15:02:10.007Z", "2021-02-25T15:02:10Z", "ééééééééééééé"]
        {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn people_may_write_offsets_and_fractions() {
        let at = Some(1_614_265_330_000);
        for text in [
            "2021-02-25T15:02:10Z",
            "2021-02-25t15:02:10z",
            "2021-02-25 15:02:10Z",
            "2021-02-25T16:02:10+01:00",
            "2021-02-25T09:32:10.0-05:30",
            "2021-02-25T15:02:10.0004Z",
        ] {
            assert_eq!(parse_instant(text), at, "{text}");
        }
        assert_eq!(parse_instant("2021-02-25T15:02:10.7Z"), Some(1_614_265_330_700));
        for text in
            ["", "tomorrow", "2021-02-25", "2021-02-25T15:02:10", "2021-02-25T15:02:10+25:00", "10+0100", "é:ééé"]
        {
            assert_eq!(parse_instant(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_instant_reads_back_as_it_was_written(ms in YEAR_0_MS..=YEAR_9999_END_MS) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(ms)), Some(ms));
        }

        #[test]
        fn no_text_is_too_strange_to_parse(text in ".{0,40}") {
            parse_rfc3339(&text);
            parse_instant(&text);
        }
    }
}
