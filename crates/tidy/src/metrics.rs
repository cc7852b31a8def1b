//! What is measured, read from the sources, so that docs/metrics.md, the dashboards and the alerts can be held to it.

use std::collections::BTreeSet;

use crate::log_lines::{arguments, literal};

/// One metric that the sources register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// The file.
    pub path: String,
    /// Its name, without what Prometheus adds for a histogram.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: BTreeSet<String>,
}

const KINDS: [&str; 3] = ["counter", "gauge", "histogram"];
/// What a histogram's series are called beside its name.
const HISTOGRAM_SUFFIXES: [&str; 3] = ["_bucket", "_count", "_sum"];
/// Labels that scraping and Prometheus itself add.
const OWN_LABELS: [&str; 4] = ["instance", "job", "le", "service"];
/// What comes before a list of labels in a query.
const LISTS: [&str; 5] = ["by", "without", "on", "ignoring", "group_left"];

/// The metrics of a source file, without those of its tests.
pub fn metrics(path: &str, text: &str) -> Vec<Metric> {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut found = vec![];
    for kind in KINDS {
        let call = format!("{kind}!(");
        for (start, _) in text.match_indices(&call) {
            if text[..start].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
                continue;
            }
            let arguments = arguments(&text[start + call.len()..]);
            let Some((name, rest)) = arguments.split_first() else { continue };
            let name = literal(name).or_else(|| constant(text, name)).unwrap_or_else(|| name.clone());
            let labels = rest.iter().filter_map(|argument| literal(argument.split("=>").next()?.trim())).collect();
            found.push(Metric { path: path.to_owned(), name, kind, labels });
        }
    }
    found
}

/// The text of `const NAME: &str = "...";`.
fn constant(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("const {name}: &str = "))?;
    literal(rest.split(';').next()?)
}

/// What in the document does not agree with the sources. A row is `` | `name` | kind | `label`, `label` | ... | ``.
pub fn disagreements(document: &str, metrics: &[Metric]) -> Vec<String> {
    let rows: Vec<(String, &str, BTreeSet<String>)> = document.lines().filter_map(row).collect();
    let mut findings = vec![];
    for Metric { path, name, kind, labels } in metrics {
        let Some((_, told_kind, told_labels)) = rows.iter().find(|(told, ..)| told == name) else {
            findings.push(format!("{path}: docs/metrics.md has no row for `{name}`"));
            continue;
        };
        if told_kind != kind || told_labels != labels {
            findings.push(format!("{path}: `{name}` is a {kind} with {labels:?}, its row says otherwise"));
        }
    }
    let nobody = rows.iter().filter(|(told, ..)| !metrics.iter().any(|metric| metric.name == *told));
    findings.extend(nobody.map(|(told, ..)| format!("docs/metrics.md: nobody measures `{told}`")));
    findings
}

fn row(line: &str) -> Option<(String, &str, BTreeSet<String>)> {
    let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
    let name = cells.next()?.trim_matches('`').to_owned();
    let kind = cells.next()?;
    let labels = cells.next()?.split(',').map(|label| label.trim().trim_matches('`').to_owned());
    Some((name, kind, labels.filter(|label| !label.is_empty()).collect()))
}

/// What a query asks for that nobody has: metrics, labels, recorded series (`recorded`: those that rules make).
pub fn unanswerable(place: &str, query: &str, metrics: &[Metric], recorded: &[String]) -> Vec<String> {
    let tokens = tokens(query);
    let (mut findings, mut known, mut all_ours) = (vec![], BTreeSet::new(), true);
    for (index, token) in tokens.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        if word.starts_with("meanwhile:") {
            all_ours = false;
            if !recorded.contains(word) {
                findings.push(format!("{place}: no rule records {word}"));
            }
        } else if word.starts_with("meanwhile_") || word.starts_with("process_") {
            let Some(metric) = metrics.iter().find(|metric| is_series(word, metric)) else {
                findings.push(format!("{place}: nobody measures {word}"));
                continue;
            };
            known.extend(metric.labels.iter().map(String::as_str));
            for label in matched(&tokens[index + 1..]) {
                if !metric.labels.contains(label) && !OWN_LABELS.contains(&label) {
                    findings.push(format!("{place}: {word} has no label {label}"));
                }
            }
        } else if word == "ALERTS" || word == "label_replace" {
            all_ours = false;
        }
    }
    if all_ours {
        let grouped = tokens.iter().enumerate().filter(|(_, token)| is_list(token));
        for label in grouped.flat_map(|(index, _)| listed(&tokens[index + 1..])) {
            if !known.contains(label) && !OWN_LABELS.contains(&label) {
                findings.push(format!("{place}: nothing in it has a label {label}: {query}"));
            }
        }
    }
    findings
}

fn is_series(word: &str, metric: &Metric) -> bool {
    let rest = word.strip_prefix(metric.name.as_str());
    rest.is_some_and(
        |rest| if metric.kind == "histogram" { HISTOGRAM_SUFFIXES.contains(&rest) } else { rest.is_empty() },
    )
}

/// The labels in the braces that follow a metric.
fn matched(tokens: &[Token]) -> Vec<&str> {
    if tokens.first() != Some(&Token::Sign('{')) {
        return vec![];
    }
    words(tokens.iter().take_while(|token| **token != Token::Sign('}')))
}

fn is_list(token: &Token) -> bool {
    matches!(token, Token::Word(word) if LISTS.contains(&word.as_str()))
}

/// The labels in the brackets that follow `by` and the like.
fn listed(tokens: &[Token]) -> Vec<&str> {
    if tokens.first() != Some(&Token::Sign('(')) {
        return vec![];
    }
    words(tokens.iter().take_while(|token| **token != Token::Sign(')')))
}

fn words<'a>(tokens: impl Iterator<Item = &'a Token>) -> Vec<&'a str> {
    tokens.filter_map(|token| if let Token::Word(word) = token { Some(word.as_str()) } else { None }).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(char),
}

/// A query in pieces, without what stands in quotes.
fn tokens(query: &str) -> Vec<Token> {
    let mut found = vec![];
    let mut quote = None;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    for c in query.chars() {
        match (quote, c) {
            (Some(open), _) => quote = Some(open).filter(|open| *open != c),
            (None, '"' | '\'') => quote = Some(c),
            (None, c) if is_word(c) => match found.last_mut() {
                Some(Token::Word(word)) => word.push(c),
                _ => found.push(Token::Word(c.to_string())),
            },
            (None, c) => found.push(Token::Sign(c)),
        }
    }
    found.retain(|token| !matches!(token, Token::Sign(c) if c.is_whitespace()));
    found
}

/// The queries of a rules file (`expr:`, on its line or folded below it), and the series that it records.
pub fn rules(yaml: &str) -> (Vec<String>, Vec<String>) {
    let (mut queries, mut recorded) = (vec![], vec![]);
    let lines: Vec<&str> = yaml.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let text = line.trim_start().trim_start_matches("- ");
        if let Some(name) = text.strip_prefix("record: ") {
            recorded.push(name.trim().to_owned());
        }
        let Some(query) = text.strip_prefix("expr: ") else { continue };
        let depth = |line: &str| line.len() - line.trim_start().len();
        let folded = lines[index + 1..].iter().take_while(|below| depth(below) > depth(line));
        queries.push(if query == ">-" { folded.copied().collect::<Vec<_>>().join(" ") } else { query.to_owned() });
    }
    (queries, recorded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "const LAG: &str = \"meanwhile_lag\";\nfn f() {\n describe_gauge!(LAG, \"how far\");\n \
                          gauge!(LAG, \"queue\" => name.clone()).set(1.0);\n metrics::histogram!(\"meanwhile_s\", \
                          \"flow\" => f(a, b), \"step\" => step).record(1);\n counter!(\"meanwhile_n\");\n}\n\
                          #[cfg(test)]\nmod tests {\n counter!(\"no\");\n}";

    fn labels(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|label| (*label).to_owned()).collect()
    }

    #[test]
    fn names_kinds_and_labels_are_read_off_the_sources() {
        let metric = |name: &str, kind, of: &[&str]| Metric {
            path: "a.rs".to_owned(),
            name: name.to_owned(),
            kind,
            labels: labels(of),
        };
        let found = [
            metric("meanwhile_n", "counter", &[]),
            metric("meanwhile_lag", "gauge", &["queue"]),
            metric("meanwhile_s", "histogram", &["flow", "step"]),
        ];
        assert_eq!(metrics("a.rs", SOURCE), found);
    }

    #[test]
    fn a_row_too_many_one_too_few_and_one_that_is_wrong_are_found() {
        let document = "| `meanwhile_lag` | gauge | `queue` | x |\n| `meanwhile_s` | histogram | `flow` | x |\n\
                        | `meanwhile_old` | counter | | x |";
        let findings = disagreements(document, &metrics("a.rs", SOURCE));
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(findings[0].contains("no row for `meanwhile_n`"), "{findings:?}");
        assert!(findings[1].contains("`meanwhile_s` is a histogram"), "{findings:?}");
        assert!(findings[2].contains("nobody measures `meanwhile_old`"), "{findings:?}");
    }

    #[track_caller]
    fn check(query: &str, findings: usize) {
        let recorded = ["meanwhile:bound".to_owned()];
        let found = unanswerable("here", query, &metrics("a.rs", SOURCE), &recorded);
        assert_eq!(found.len(), findings, "{query}: {found:?}");
    }

    #[test]
    fn a_query_for_what_nobody_has_is_found() {
        check("max by (queue) (meanwhile_lag{queue=~\"a|flow\", job=\"x\"}) > on () meanwhile:bound{of=\"lag\"}", 0);
        check("histogram_quantile(0.5, sum by (le,step) (rate(meanwhile_s_bucket{flow=~\"$flow\"}[5m])))", 0);
        check("rate(meanwhile_s[5m])", 1);
        check("meanwhile_lag_total", 1);
        check("sum by (flow) (meanwhile_lag)", 1);
        check("meanwhile_lag{flow=\"x\"}", 1);
        check("meanwhile:other", 1);
    }

    #[test]
    fn rules_are_read_with_what_they_record() {
        let yaml = "  - record: meanwhile:bound\n    expr: vector(1)\n\
                    \u{20} - alert: A\n    expr: >-\n      a\n      > b\n    for: 1m\n";
        let (queries, recorded) = rules(yaml);
        assert_eq!(recorded, ["meanwhile:bound"]);
        assert_eq!(queries.len(), 2);
        assert_eq!(queries[1].split_whitespace().collect::<Vec<_>>(), ["a", ">", "b"]);
    }
}
