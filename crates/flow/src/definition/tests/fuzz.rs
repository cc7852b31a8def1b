use ::fuzz::damaged_text;
use proptest::prelude::*;

use super::*;

const FLOWS: [&str; 4] = [
    ORDER,
    include_str!("../../../../../flows/dropship.yaml"),
    include_str!("../../../../../flows/preorder.yaml"),
    include_str!("../../../../../examples/legacy/report.yaml"),
];

proptest! {
    #![proptest_config(::fuzz::config())]

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z:{}\\[\\]\"'|>&*#!%@ \n0-9.-]{0,200}") {
        let _ = parse(&text);
        let _ = parse(&with_step(&format!("result: \"{}\"\n", text.replace(['"', '\n', '\\'], " "))));
    }

    #[test]
    fn a_damaged_flow_is_read_or_refused_with_places_that_exist(text in damaged_text(&FLOWS)) {
        let lines = text.lines().count().max(1);
        match parse(&text) {
            Ok(definition) => {
                let again = parse(&text).map(|again| again.version().to_owned());
                prop_assert_eq!(again, Ok(definition.version().to_owned()));
            }
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    prop_assert!((1..=lines + 1).contains(&(problem.line as usize)), "{}", problem);
                }
            }
        }
    }
}
