//! `docs/flows.md` says what the code does: its flows lint, its expressions give what it says, and its tables have
//! every key of the schema, with its default and its bounds.

use std::collections::BTreeMap;

use super::*;
use crate::expression::{Evaluation, Scope, Template};

const PAGE: &str = include_str!("../../../../../docs/flows.md");

/// The fenced blocks whose fence says just this, with the line of each.
fn blocks(fence: &str) -> Vec<(usize, String)> {
    let (mut found, mut lines) = (Vec::new(), (1..).zip(PAGE.lines()));
    while let Some((line, text)) = lines.next() {
        if let Some(name) = text.strip_prefix("```") {
            let inside: Vec<&str> = lines.by_ref().map(|(_, text)| text).take_while(|text| *text != "```").collect();
            if name == fence {
                found.push((line, inside.join("\n")));
            }
        }
    }
    found
}

/// The rows of the tables in a section, by the first cell without its quotes.
fn rows(heading: &str) -> BTreeMap<&'static str, &'static str> {
    let from = PAGE.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("there is no `## {heading}`"));
    let section = &PAGE[from + 1..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    let row = |line: &'static str| Some((line.strip_prefix("| `")?.split_once('`')?.0, line));
    section.lines().filter_map(row).collect()
}

/// The keys of an object of the schema, those of the objects inside of it with a dot.
fn keys(object: &Value, before: &str, found: &mut Vec<(String, Value)>) {
    for (name, property) in object["properties"].as_object().into_iter().flatten() {
        let key = format!("{before}{name}");
        let forms = property["oneOf"].as_array().map_or(&[][..], Vec::as_slice);
        for inner in forms.iter().chain([property]) {
            keys(inner, &format!("{key}."), found);
        }
        found.push((key, property.clone()));
    }
}

#[test]
fn every_flow_of_the_page_lints_and_is_valid_by_the_schema() {
    let language: Value = serde_json::from_str(LANGUAGE).unwrap();
    let validator = jsonschema::options().build(&language).unwrap();
    let mut flows = blocks("yaml flow");
    flows.extend(blocks("yaml steps").into_iter().map(|(line, steps)| (line, format!("flow: t\nsteps:\n{steps}\n"))));
    assert!(flows.len() >= 10, "they are not found");
    for (line, text) in flows {
        let flow = parse(&text).unwrap_or_else(|problems| panic!("docs/flows.md:{line}: {problems:#?}"));
        assert_eq!(flow.hints(), [], "docs/flows.md:{line}");
        let errors: Vec<_> = validator.iter_errors(flow.document()).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "docs/flows.md:{line}: {errors:?}");
    }
    let fences: Vec<&str> = PAGE.lines().filter_map(|line| line.strip_prefix("```yaml")).collect();
    assert!(fences.iter().all(|fence| [" flow", " steps"].contains(fence)), "one is not linted: {fences:?}");
}

#[test]
fn every_expression_of_the_page_gives_what_it_says() {
    let (_, input) = blocks("json").pop().unwrap();
    let input: Value = serde_json::from_str(&input).unwrap();
    let blocks = blocks("text expressions");
    let lines: Vec<&str> = blocks.iter().flat_map(|(_, text)| text.lines()).collect();
    assert!(lines.len() > 50, "they are not found");
    for line in lines {
        let (text, said) = line.split_once(" => ").unwrap_or_else(|| panic!("{line}"));
        let evaluation = Evaluation::new(Scope { input: &input, slip: None, step: None, env: None, more: &[] });
        let given = Template::text(text.trim_end()).and_then(|template| template.render(&evaluation));
        match (said.strip_prefix("error: "), given) {
            (Some(error), Err(given)) => assert!(given.to_string().contains(error), "{line}: {given}"),
            (None, Ok(given)) => {
                let said: Value = serde_json::from_str(said).unwrap_or_else(|error| panic!("{line}: {error}"));
                assert_eq!(given.to_string(), said.to_string(), "{line}");
            }
            (_, given) => panic!("{line}: {given:?}"),
        }
    }
}

#[test]
fn every_key_of_the_schema_has_its_row_with_default_and_choices_and_there_are_no_others() {
    let language: Value = serde_json::from_str(LANGUAGE).unwrap();
    let defined = [
        "on",
        "webhook",
        "upload",
        "route",
        "respond",
        "http",
        "auth",
        "retry",
        "compensate",
        "verify",
        "wait",
        "callback",
        "poll",
        "simulate",
        "fail",
    ];
    let sections = [("a flow".to_owned(), &language), ("a step".to_owned(), &language["$defs"]["step"])]
        .into_iter()
        .chain(defined.iter().map(|name| (format!("`{name}`"), &language["$defs"][name])));
    let known = ["name", "duration", "statuses", "step", "secret"];
    let objects = language["$defs"].as_object().unwrap().keys().filter(|name| !known.contains(&name.as_str()));
    assert!(objects.clone().all(|name| defined.contains(&name.as_str())), "one has no section");
    for (of, object) in sections {
        let (heading, mut found) = (format!("Keys of {of}"), Vec::new());
        keys(object, "", &mut found);
        let rows = rows(&heading);
        for (key, property) in &found {
            let row = rows.get(key.as_str()).unwrap_or_else(|| panic!("`{key}` has no row in `## {heading}`"));
            let words = property["enum"].as_array().into_iter().flatten().chain(property.get("default"));
            for word in words.map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)) {
                assert!(row.contains(&format!("`{word}`")), "`{word}` is not in: {row}");
            }
            let bounds = ["minimum", "maximum", "minItems", "maxItems", "maxLength"];
            for bound in bounds.iter().filter_map(|name| property.get(*name)) {
                assert!(row.contains(&bound.to_string()), "{bound} is not in: {row}");
            }
        }
        // The table of outcomes in the section of `compensate` has cells without quotes.
        let more: Vec<_> = rows.keys().filter(|row| !found.iter().any(|(key, _)| key == *row)).collect();
        assert!(more.is_empty(), "the schema has no {more:?} in `## {heading}`");
    }
}

#[test]
fn the_bounds_of_the_page_are_those_of_the_code() {
    use limit::{BACKOFF_MS_MAX, DEADLINE_MS_MAX, POLL_EVERY_MS_MAX, POLL_EVERY_MS_MIN, SETTLE_MS_MAX, TIMEOUT_MS_MAX};
    for (heading, key, least_ms, most_ms) in [
        ("a flow", "deadline", 1, DEADLINE_MS_MAX),
        ("a flow", "result_ttl", 1_000, DEADLINE_MS_MAX),
        ("a flow", "retention", limit::RETENTION_MS_MIN, limit::RETENTION_MS_MAX),
        ("`route`", "hold", 1, TIMEOUT_MS_MAX),
        ("`route`", "latency_budget", 1, TIMEOUT_MS_MAX),
        ("`webhook`", "tolerance", limit::TOLERANCE_MS_MIN, limit::TOLERANCE_MS_MAX),
        ("a step", "timeout", 1, TIMEOUT_MS_MAX),
        ("a step", "deadline", 1, DEADLINE_MS_MAX),
        ("a step", "settle", 0, SETTLE_MS_MAX),
        ("a step", "sleep", 0, DEADLINE_MS_MAX),
        ("`retry`", "backoff", 1, BACKOFF_MS_MAX),
        ("`compensate`", "timeout", 1, TIMEOUT_MS_MAX),
        ("`simulate`", "latency", 0, TIMEOUT_MS_MAX),
        ("`verify`", "timeout", 1, TIMEOUT_MS_MAX),
        ("`wait`", "timeout", 1, DEADLINE_MS_MAX),
        ("`callback`", "timeout", 1, DEADLINE_MS_MAX),
        ("`poll`", "every", POLL_EVERY_MS_MIN, POLL_EVERY_MS_MAX),
        ("`poll`", "timeout", 1, DEADLINE_MS_MAX),
    ] {
        let (row, said) = (rows(&format!("Keys of {heading}"))[key], [least_ms, most_ms].map(duration::told));
        let bounds = format!("`{}` to `{}`", said[0], said[1]);
        assert!(row.contains(&bounds), "{bounds} is not in: {row}");
    }
    let (retry, poll) = (rows("Keys of `retry`"), rows("Keys of `poll`"));
    for (row, said) in [
        (retry["attempts"], format!(" {}; {} for", Retry::STEP_DEFAULT.attempts, Retry::UNDO_DEFAULT.attempts)),
        (retry["backoff"], "`200ms..30s`".to_owned()),
        (poll["timeout"], format!("`{}`", duration::told(limit::POLL_TIMEOUT_MS_DEFAULT))),
        (poll["every"], format!("`{}`", duration::told(limit::POLL_EVERY_MS_DEFAULT))),
    ] {
        assert!(row.contains(&said), "{said} is not in: {row}");
    }
    assert_eq!((Retry::STEP_DEFAULT.backoff_min_ms, Retry::STEP_DEFAULT.backoff_max_ms), (200, 30_000));
    assert!(PAGE.contains(&format!("1 to {} bytes: jobs of one key", limit::KEY_BYTES_MAX)));
    assert!(PAGE.contains(&format!("The {}st visit", limit::VISITS_MAX + 1)));
    assert!(PAGE.contains(&format!("at most {} KiB", limit::DOCUMENT_BYTES_MAX / 1024)));
}

#[test]
fn the_page_tells_which_names_each_place_sees() {
    use crate::definition::visible;
    let (_, expressions) = PAGE.split_once("\n## Expressions\n").unwrap();
    let rows: Vec<&str> = expressions.lines().filter(|line| line.contains("| `input`")).collect();
    for (place, names) in [
        ("`key`, `filter` and `id` of `on`", visible::KEY),
        ("`when`, `result`, `respond`, `sleep`, `fallback.value`", visible::DECISION),
        ("`with`, `compensate`, the request of `verify`", visible::CALL),
        ("`done_when`", visible::ANSWER),
        ("`simulate`", visible::SIMULATED),
        ("`url` and `headers` of `poll`", visible::POLL),
        ("`until` of `poll`", visible::POLLED),
    ] {
        let row = rows.iter().find(|row| row.starts_with(&format!("| {place} |"))).unwrap_or_else(|| panic!("{place}"));
        let said = row.split('|').nth(2).unwrap_or_default().split(',').map(|name| name.trim().trim_matches('`'));
        let (mut said, mut names) = (said.collect::<Vec<_>>(), names.to_vec());
        said.sort_unstable();
        names.sort_unstable();
        assert_eq!(said, names, "{place}");
    }
}
