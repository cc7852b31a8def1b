//! JSON in one form for every way of writing it: the canonical form of RFC 8785. Unlike there, a number keeps all of
//! its digits, so that two numbers are never one.

use serde_json::Value;

use crate::decimal::Decimal;

/// The canonical form: names sorted by their UTF-16 units, numbers by their value, no white space.
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            out.push('{');
            for (place, (name, entry)) in entries.into_iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(entry, out);
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (place, entry) in list.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write(entry, out);
            }
            out.push(']');
        }
        Value::Number(number) => match Decimal::parse(number.as_str()) {
            Some(decimal) => out.push_str(&decimal.canonical()),
            None => out.push_str(number.as_str()),
        },
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        canonical(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn bodies_that_mean_the_same_have_one_form() {
        for (one, other) in [
            (r#"{"a":1}"#, r#"{ "a" : 1.0 }"#),
            (r#"{"a":1,"b":[{"x":1e2,"y":"z"}]}"#, r#"{"b":[{"y":"z","x":100}],"a":1e0}"#),
            (r#"["\u00e4\/"]"#, r#"["ä/"]"#),
        ] {
            assert_eq!(of(one), of(other));
        }
    }

    #[test]
    fn bodies_that_differ_have_two_forms() {
        for (one, other) in [
            (r#"{"a":100000000000000000001}"#, r#"{"a":100000000000000000002}"#),
            (r#"{"a":1e400}"#, r#"{"a":1e401}"#),
            (r#"{"a":0.1}"#, r#"{"a":0.10000000000000000555}"#),
            (r#"{"a":1}"#, r#"{"a":"1"}"#),
            ("[1,[2]]", "[[1],2]"),
            (r#"{"a":1e99999999999999999999}"#, r#"{"a":1e99999999999999999998}"#),
        ] {
            assert_ne!(of(one), of(other));
        }
    }

    #[test]
    fn the_examples_of_rfc_8785_come_out_as_it_says() {
        let numbers = of(r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"z":0}"#);
        // RFC 8785 makes the first one 333333333.3333333: to us those are two numbers.
        assert_eq!(numbers, r#"{"numbers":[333333333.33333329,1e+30,4.5,0.002,1e-27],"z":0}"#);
        let sorted = of(r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#);
        assert_eq!(sorted, "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\u{fb33}\":3}");
    }
}
