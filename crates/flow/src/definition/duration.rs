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

#[cfg(test)]
mod tests {
    use super::parse_ms;

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
