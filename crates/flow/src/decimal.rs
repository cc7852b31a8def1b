//! A JSON number by its exact value, however it is written.

/// The digits and the place of the point: `0.d1d2d3… × 10^point`. Zero has no digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    /// Without zeros at either end.
    digits: String,
    point: i64,
}

/// A number with an exponent beyond this has only its written form.
const EXPONENT_MAX: i64 = 1 << 32;

impl Decimal {
    /// Reads a number as JSON writes it; none when its exponent is beyond all use.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(mantissa) => (true, mantissa),
            None => (false, mantissa),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let significant = all.trim_start_matches('0');
        let leading = i64::try_from(all.len() - significant.len()).ok()?;
        let digits = significant.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, point: 0 });
        }
        if exponent.abs() > EXPONENT_MAX {
            return None;
        }
        Some(Self { negative, digits, point: i64::try_from(whole.len()).ok()? - leading + exponent })
    }

    /// The number in the form of RFC 8785, which is that of ECMAScript. A number with more digits than a double holds
    /// keeps them.
    pub(crate) fn canonical(&self) -> String {
        let (digits, point) = (self.digits.as_str(), self.point);
        let count = i64::try_from(digits.len()).unwrap_or(i64::MAX);
        let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
        let split = |at: i64| digits.split_at(usize::try_from(at).unwrap_or_default());
        let text = match point {
            _ if digits.is_empty() => "0".to_owned(),
            _ if (count..=21).contains(&point) => format!("{digits}{}", zeros(point - count)),
            1..=21 => format!("{}.{}", split(point).0, split(point).1),
            -5..=0 => format!("0.{}{digits}", zeros(-point)),
            _ => {
                let (first, rest) = split(1);
                let dot = if rest.is_empty() { "" } else { "." };
                format!("{first}{dot}{rest}e{:+}", point - 1)
            }
        };
        if self.negative { format!("-{text}") } else { text }
    }
}

/// The double that is exactly what was written, up to the rounding of its shortest form; none when it has more digits
/// than a double holds, or is too large or too small for one.
pub(crate) fn double(text: &str) -> Option<f64> {
    let double = text.parse::<f64>().ok().filter(|double| double.is_finite())?;
    (Decimal::parse(text)? == Decimal::parse(&format!("{double:e}"))?).then_some(double)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_canonical_form() {
        for (canonical, texts) in [
            ("1", &["1", "1.0", "1e0", "0.1e1", "10e-1", "1.000"][..]),
            ("0", &["0", "-0", "0.0", "-0.0e5", "0e99999999999"]),
            ("-1.5", &["-1.5", "-15e-1", "-0.15E+1"]),
            ("100000000000000000000", &["100000000000000000000", "1e20", "1E+20"]),
            ("1e+21", &["1e21", "1000000000000000000000"]),
            ("1.23456789012345678901234567891e+29", &["123456789012345678901234567891"]),
            ("100000000000000000001", &["100000000000000000001"]),
            ("100000000000000000002", &["100000000000000000002"]),
            ("0.000001", &["1e-6", "0.000001"]),
            ("1e-7", &["1e-7", "0.0000001"]),
            ("333333333.3333333", &["333333333.3333333"]),
            ("5e-324", &["5e-324"]),
            ("1.7976931348623157e+308", &["1.7976931348623157e308"]),
            ("1e+400", &["1e400", "10e399"]),
        ] {
            for text in texts {
                assert_eq!(Decimal::parse(text).unwrap().canonical(), canonical, "{text}");
            }
        }
        assert_eq!(Decimal::parse("1e99999999999999999999"), None);
    }

    #[test]
    fn a_double_is_what_was_written_or_none() {
        for (text, number) in [("0.1", 0.1), ("1.10", 1.1), ("1e300", 1e300), ("-0.0", 0.0), ("5e-324", 5e-324)] {
            assert_eq!(double(text), Some(number), "{text}");
        }
        for text in ["1e400", "1e-400", "9007199254740993.0", "0.10000000000000000555", "1e99999999999999999999"] {
            assert_eq!(double(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_canonical_form_of_a_double_is_that_number(number in proptest::num::f64::NORMAL) {
            let text = Decimal::parse(&number.to_string()).unwrap().canonical();
            proptest::prop_assert_eq!(text.parse::<f64>().unwrap(), number);
            proptest::prop_assert_eq!(double(&text), Some(number));
        }
    }
}
