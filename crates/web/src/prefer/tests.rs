use axum::response::IntoResponse;
use proptest::prelude::*;

use super::*;
use crate::problem::Kind;

fn of(lines: &[&'static str]) -> Preferences {
    Preferences::of(&lines.iter().map(|line| (PREFER, HeaderValue::from_static(line))).collect())
}

fn listed(line: &str) -> Vec<(String, String)> {
    list([line.as_bytes()].into_iter())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_examples_of_the_rfc_mean_what_it_says() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("respond-async, wait=100", &[("respond-async", ""), ("wait", "100")]),
        ("foo; bar", &[("foo", "")]),
        ("foo; bar=\"\"", &[("foo", "")]),
        ("foo=\"\"; bar", &[("foo", "")]),
        ("priority=5", &[("priority", "5")]),
        ("Lenient", &[("lenient", "")]),
        (
            "handling=lenient, wait=100, respond-async",
            &[("handling", "lenient"), ("wait", "100"), ("respond-async", "")],
        ),
        ("foo; some-parameter=\"xyz\", return=minimal", &[("foo", ""), ("return", "minimal")]),
    ];
    for (line, expected) in cases {
        assert_eq!(listed(line), pairs(expected), "{line}");
    }
    let both = Preferences { respond_async: true, wait_s: Some(100), minimal: false };
    assert_eq!(of(&["respond-async, wait=100"]), both);
    assert_eq!(of(&["respond-async", "wait=100"]), both, "several lines are one list");
    assert_eq!(of(&["RESPOND-Async", "WAIT = \"100\" ; a=\"b,c\"; ;"]), both, "names have no case, blanks no meaning");
    assert!(of(&["return=minimal"]).minimal && !of(&["return=representation"]).minimal);
    assert_eq!(of(&[]), Preferences::default());
}

#[test]
fn the_first_of_a_preference_counts_even_if_it_is_of_no_use() {
    assert_eq!(of(&["wait=1, wait=2", "wait=3"]).wait_s, Some(1));
    assert_eq!(of(&["wait=soon, wait=2"]).wait_s, None);
    assert_eq!(of(&["return=representation, return=minimal"]), Preferences::default());
}

#[test]
fn a_wait_is_a_number_of_seconds_and_has_a_bound() {
    for (text, expected) in [("0", Some(0)), ("007", Some(7)), ("99999999999999999999999", Some(u64::MAX))] {
        assert_eq!(delta_seconds(text), expected, "{text}");
    }
    for text in ["", "-1", "+1", "1.5", "1s", "\u{661}"] {
        assert_eq!(delta_seconds(text), None, "{text}");
    }
    assert_eq!(of(&["wait=600"]).wait(60), Some(Duration::from_secs(60)));
    assert_eq!(of(&["wait=6"]).wait(60), Some(Duration::from_secs(6)));
    assert_eq!(of(&["wait"]).wait(60), None);
}

#[test]
fn what_the_grammar_does_not_allow_is_passed_over_and_the_rest_counts() {
    for line in [
        "wait 5, respond-async",
        "=5, respond-async",
        "wait=5 6, respond-async",
        "wait=5; a=b c, respond-async",
        "wait=\"5\"6, respond-async",
        "wa(it=5, respond-async",
        "a b \"c, wait=7\" d, respond-async",
        ",, ,respond-async,,",
        "respond-async, wait=\"5",
    ] {
        assert_eq!(listed(line), pairs(&[("respond-async", "")]), "{line}");
    }
    assert_eq!(of(&["wait=\"5, x", "wait=6"]).wait_s, Some(6), "an open quote ends with its line");
    assert_eq!(listed("a=\"b \\\" , \\\\ c\", d"), pairs(&[("a", "b \" , \\ c"), ("d", "")]));
    assert!(!of(&["respond-async=maybe"]).respond_async);
}

#[test]
fn an_answer_and_a_problem_say_that_they_vary() {
    let plain = vary(Ok("".into_response())).unwrap();
    let problem = vary(Err(Problem::new(Kind::NotFinished, "Not yet."))).unwrap_err().into_response();
    for response in [plain, problem] {
        assert_eq!(response.headers()["vary"], "Prefer");
    }
}

/// A word as it may be written: as a token where that is possible, or quoted, with escapes that need not be.
fn written(value: &str, quote: bool, escape: bool) -> String {
    let is_token = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_token && !quote {
        return value.to_owned();
    }
    let escaped = |c: char| if escape || "\"\\".contains(c) { format!("\\{c}") } else { c.to_string() };
    format!("\"{}\"", value.chars().map(escaped).collect::<String>())
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        elements in prop::collection::vec(
            ("[a-z][a-z0-9-]{0,8}", "[ -~]{0,8}", any::<(bool, bool)>(), "[ \t]{0,2}", any::<bool>()),
            0..8,
        ),
        lines in 1_usize..4,
    ) {
        let mut expected: Vec<(String, String)> = Vec::new();
        let mut texts = vec![String::new(); lines];
        for (at, (name, value, (quote, escape), blank, parameter)) in elements.iter().enumerate() {
            if expected.iter().all(|(known, _)| known != name) {
                expected.push((name.clone(), value.clone()));
            }
            let word = written(value, *quote, *escape);
            let parameter = match parameter {
                true => format!("{blank};{blank}p={}", written(value, true, *escape)),
                false => String::new(),
            };
            // Lines follow each other in the order of their elements.
            let line = &mut texts[at * lines / elements.len()];
            line.push_str(&format!("{blank}{name}{blank}={blank}{word}{parameter}{blank},"));
        }
        prop_assert_eq!(list(texts.iter().map(String::as_bytes)), expected);
    }

    #[test]
    fn damaged_preferences_are_read_as_far_as_they_can_be(bytes in fuzz::damaged(&[
        "respond-async, wait=10",
        "return=minimal; foo=\"a, \\\"b\", wait=\"5\" ; x",
        "handling = lenient , , WAIT = 99999999999999999999",
    ])) {
        let line: Vec<u8> = bytes.into_iter().filter(|byte| *byte >= b' ' && *byte != 0x7f).collect();
        let headers = HeaderMap::from_iter([(PREFER, HeaderValue::from_bytes(&line).unwrap())]);
        let preferences = Preferences::of(&headers);
        prop_assert!(preferences.wait(60).is_none_or(|wait| wait <= Duration::from_secs(60)));
    }

    #[test]
    fn whatever_comes_the_next_line_counts(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let read = list([&bytes[..], b"meanwhile-test=1"].into_iter());
        prop_assert!(read.contains(&("meanwhile-test".to_owned(), "1".to_owned())));
    }
}
