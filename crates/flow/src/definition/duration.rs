//! Durations as flows write them: `200ms`, `2s`, `15m`, `2h`, `2d`.

/// The form of a duration, for messages.
pub(crate) const EXPECTED: &str = "a whole number and a unit: 200ms, 2s, 15m, 2h or 2d";

/// Milliseconds of a duration; none when the text is not one, or out of range.
pub fn parse_ms(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms)
}

/// Units from the longest.
const UNITS: [(&str, u64); 5] =
    [("d", 24 * 60 * 60 * 1000), ("h", 60 * 60 * 1000), ("m", 60 * 1000), ("s", 1000), ("ms", 1)];

/// A duration as flows write it, in the longest unit in which it is a whole number: `15m`.
#[cfg(test)]
pub(super) fn told(ms: u64) -> String {
    let fits = UNITS.iter().find(|(_, unit_ms)| ms >= *unit_ms && ms.is_multiple_of(*unit_ms));
    fits.map_or_else(|| "0s".to_owned(), |(unit, unit_ms)| format!("{}{unit}", ms / unit_ms))
}

/// A duration as it was written, and a bound of it, in one unit: that of the text, or else the longest in which both
/// are whole numbers. `2h` beside a bound of 15 minutes is `120m`.
pub(crate) fn told_alike(text: &str, bound_ms: u64) -> Option<(String, String)> {
    let ms = parse_ms(text)?;
    let own = UNITS.iter().find(|(unit, _)| text.trim_start_matches(|sign: char| sign.is_ascii_digit()) == *unit);
    let both = || UNITS.iter().find(|(_, unit_ms)| ms.is_multiple_of(*unit_ms) && bound_ms.is_multiple_of(*unit_ms));
    let (unit, unit_ms) = own.filter(|(_, unit_ms)| bound_ms.is_multiple_of(*unit_ms)).or_else(both)?;
    Some((format!("{}{unit}", ms / unit_ms), format!("{}{unit}", bound_ms / unit_ms)))
}

#[cfg(test)]
mod tests {
    use super::{parse_ms, told, told_alike};

    #[test]
    fn a_duration_is_told_in_the_longest_unit_and_two_of_them_in_one() {
        for (ms, text) in [(0, "0s"), (100, "100ms"), (900_000, "15m"), (86_400_000, "1d"), (90_000, "90s")] {
            assert_eq!(told(ms), text);
            assert_eq!(parse_ms(text), Some(ms));
        }
        for (text, bound_ms, both) in [
            ("20m", 900_000, ("20m", "15m")),
            ("1200s", 900_000, ("1200s", "900s")),
            ("2h", 900_000, ("120m", "15m")),
            ("50ms", 100, ("50ms", "100ms")),
            ("0s", 100, ("0ms", "100ms")),
        ] {
            assert_eq!(told_alike(text, bound_ms), Some((both.0.to_owned(), both.1.to_owned())), "{text}");
        }
    }

    #[test]
    fn durations_are_read_in_every_unit() {
        let cases =
            [("200ms", 200), ("2s", 2_000), ("15m", 900_000), ("2h", 7_200_000), ("2d", 172_800_000), ("0s", 0)];
        for (text, ms) in cases {
            assert_eq!(parse_ms(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in ["", "2", "s", "2 s", "-2s", "2.5s", "2w", "2S", "99999999999999999999d", "20000000000000d"] {
            assert_eq!(parse_ms(text), None, "{text}");
        }
    }
}
