//! Reads values out of a document and collects their problems.

use std::ops::RangeInclusive;

use super::key::RESERVED;
use super::node::{Content, Key, Node, Place};
use super::problem::Hint;
use super::{Problem, duration, limit};
use crate::nearest::nearest;

/// Collects problems; every method answers none where it has reported one.
pub struct Reader<'a> {
    file: &'a str,
    is_file: bool,
    problems: Vec<Problem>,
    hints: Vec<Hint>,
    /// Steps of whose answer an expression reads more than the body.
    answers_read: Vec<String>,
}

/// The entries of a mapping whose keys were checked.
#[derive(Clone, Copy)]
pub struct Fields<'n> {
    /// Where the mapping begins.
    pub place: Place,
    entries: &'n [(Key, Node)],
}

impl<'n> Fields<'n> {
    /// The value of this key, if it is there.
    pub fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
    }

    /// The place of the key.
    pub fn place_of(&self, name: &str) -> Place {
        self.entries.iter().find(|(key, _)| key.text == name).map_or(self.place, |(key, _)| key.place)
    }
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(file: &'a str) -> Self {
        Self { file, is_file: true, problems: Vec::new(), hints: Vec::new(), answers_read: Vec::new() }
    }

    /// For a document that was read from a file before.
    pub(super) fn of_document() -> Self {
        Self { is_file: false, ..Self::new("flow document") }
    }

    /// True where what works, but hardly as it is meant, is refused. What was applied once stays readable.
    pub(super) const fn is_strict(&self) -> bool {
        self.is_file
    }

    /// Notes that an expression reads the status or the headers of a step's answer.
    pub(super) fn note_answer_read(&mut self, step: &str) {
        self.answers_read.push(step.to_owned());
    }

    pub(super) fn reads_answer_of(&self, step: &str) -> bool {
        self.answers_read.iter().any(|read| read == step)
    }

    /// Notes what works, but may not be meant.
    pub(super) fn hint(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        let Place { line, column } = place;
        let (file, message, hint) = (self.file.to_owned(), message.into(), Some(hint.into()));
        self.hints.push(Hint(Problem { file, line, column, message, expected: None, hint }));
    }

    pub(super) fn take_hints(&mut self) -> Vec<Hint> {
        std::mem::take(&mut self.hints)
    }

    /// The problems in the order of the file.
    pub fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems
    }

    /// True while there is no problem.
    pub const fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Notes a problem; the caller may add to it.
    pub fn problem(&mut self, place: Place, message: impl Into<String>) -> &mut Problem {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            message: message.into(),
            expected: None,
            hint: None,
        });
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    /// The entries of a mapping that has no other keys than these.
    pub fn fields<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<Fields<'n>> {
        let Content::Map(entries) = &node.content else {
            let problem = self.problem(node.place, format!("{what} is {}", node.kind()));
            problem.expected = Some(format!("a mapping with {}", known.join(", ")));
            return None;
        };
        for (at, (key, _)) in entries.iter().enumerate() {
            if entries[..at].iter().any(|(other, _)| other.text == key.text) {
                self.problem(key.place, format!("`{}` stands twice in {what}", key.text));
            }
            if known.contains(&key.text.as_str()) {
                continue;
            }
            if RESERVED.contains(&key.text.as_str()) {
                let message = format!("`{}` is not yet supported in this version", key.text);
                self.problem(key.place, message).expected = Some(known.join(", "));
                continue;
            }
            let problem = self.problem(key.place, format!("unknown key `{}` in {what}", key.text));
            problem.expected = Some(known.join(", "));
            problem.hint = nearest(&key.text, known.iter().copied()).map(|name| format!("did you mean `{name}`?"));
        }
        Some(Fields { place: node.place, entries })
    }

    /// The entries of a mapping with keys of the writer's own.
    pub fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [(Key, Node)]> {
        match &node.content {
            Content::Map(entries) => Some(entries),
            _ => self.wrong_kind(node, what, "a mapping"),
        }
    }

    /// The items of a list.
    pub fn list<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.content {
            Content::List(items) => Some(items),
            _ => self.wrong_kind(node, what, "a list"),
        }
    }

    /// A text.
    pub fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.content {
            Content::Text(text) => Some(text),
            Content::Map(_) => {
                let problem = self.problem(node.place, format!("{what} is a mapping"));
                problem.expected = Some("a text".to_owned());
                problem.hint = Some("a text that begins with `{{` needs quotes: \"{{ … }}\"".to_owned());
                None
            }
            _ => self.wrong_kind(node, what, "a text"),
        }
    }

    /// A boolean.
    pub fn bool(&mut self, node: &Node, what: &str) -> Option<bool> {
        match node.content {
            Content::Bool(bool) => Some(bool),
            _ => self.wrong_kind(node, what, "true or false"),
        }
    }

    /// A whole number of this range.
    pub fn whole_number(&mut self, node: &Node, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        match &node.content {
            Content::Number(number) if number.as_u64().is_some_and(|number| range.contains(&number)) => number.as_u64(),
            _ => {
                let expected = format!("a whole number from {} to {}", range.start(), range.end());
                self.wrong_kind(node, what, &expected)
            }
        }
    }

    /// One of a few words.
    pub fn word<'w>(&mut self, node: &Node, what: &str, words: &[&'w str]) -> Option<&'w str> {
        let text = self.text(node, what)?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            let problem = self.problem(node.place, format!("{what} cannot be `{text}`"));
            problem.expected = Some(words.join(", "));
            let upper = text.to_ascii_uppercase();
            problem.hint = nearest(text, words.iter().copied())
                .or_else(|| words.iter().find(|word| **word == upper).copied())
                .map(|word| format!("did you mean `{word}`?"));
        }
        found
    }

    /// A duration in milliseconds, within this range.
    pub fn duration_ms(&mut self, node: &Node, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let text = match &node.content {
            Content::Text(text) => text.as_str(),
            _ => return self.wrong_kind(node, what, duration::EXPECTED),
        };
        self.checked_ms(node.place, text, what, range)
    }

    /// A duration that was part of a longer text.
    pub fn checked_ms(&mut self, place: Place, text: &str, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let text = text.trim();
        let Some(ms) = duration::parse_ms(text) else {
            let problem = self.problem(place, format!("{what}: `{text}` is not a duration"));
            problem.expected = Some(duration::EXPECTED.to_owned());
            return None;
        };
        let (fault, bound, bound_ms) = match ms {
            ms if ms < *range.start() => ("too short", "at least", *range.start()),
            ms if ms > *range.end() => ("too long", "at most", *range.end()),
            ms => return Some(ms),
        };
        // Both in one unit, so that nobody has to reckon.
        let (given, bound_told) = duration::told_alike(text, bound_ms).unwrap_or_default();
        let same = if given == text || ms == 0 { String::new() } else { format!(" (`{given}`)") };
        let problem = self.problem(place, format!("{what}: `{text}`{same} is {fault}"));
        problem.expected = Some(format!("{bound} {bound_told}"));
        None
    }

    /// A name that may stand in topics, keys and headers. `dashes`: `-` is allowed too.
    pub fn name(&mut self, node: &Node, what: &str, dashes: bool) -> Option<String> {
        let text = self.text(node, what)?;
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let all =
            text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || (dashes && b == b'-'));
        if first && all && text.len() <= limit::NAME_BYTES_MAX {
            return Some(text.to_owned());
        }
        let problem = self.problem(node.place, format!("{what} cannot be `{text}`"));
        let signs = if dashes { "a-z, 0-9, `_` and `-`" } else { "a-z, 0-9 and `_` (it stands in expressions)" };
        problem.expected = Some(format!("a letter, then {signs}; lower case, at most {} bytes", limit::NAME_BYTES_MAX));
        None
    }

    /// Notes that a key is not there.
    pub fn missing(&mut self, place: Place, what: &str, key: &str) {
        self.problem(place, format!("{what} has no `{key}`")).expected = Some(format!("`{key}`"));
    }

    fn wrong_kind<T>(&mut self, node: &Node, what: &str, expected: &str) -> Option<T> {
        let found = match &node.content {
            Content::Text(text) => format!("`{text}`"),
            Content::Number(number) => format!("`{number}`"),
            Content::Bool(bool) => format!("`{bool}`"),
            Content::Null | Content::List(_) | Content::Map(_) => node.kind().to_owned(),
        };
        self.problem(node.place, format!("{what} is {found}")).expected = Some(expected.to_owned());
        None
    }
}
