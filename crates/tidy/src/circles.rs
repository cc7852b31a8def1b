//! Circles between the files of a crate: each needs the other, so neither can be read, tested or moved alone.
//!
//! A file needs another one when it names one of its items by a path that begins with `crate::`, `super::` or `self::`.
//! The modules above a file do not count: a parent hands work to its children, which use its types.

use std::collections::{BTreeMap, BTreeSet};

/// The files of one crate by their module paths, such as `decide::token`; the root is the empty path.
type Modules<'a> = BTreeMap<Vec<&'a str>, &'a str>;

/// The circles between source files (path and text) of all crates, each as one line.
pub fn circles(files: &[(String, String)]) -> Vec<String> {
    let mut crates: BTreeMap<&str, Vec<&(String, String)>> = BTreeMap::new();
    for file in files {
        if let Some((name, _)) = file.0.split_once("/src/") {
            crates.entry(name).or_default().push(file);
        }
    }
    crates.into_iter().flat_map(|(name, files)| circles_of_crate(name, &files)).collect()
}

fn circles_of_crate(name: &str, files: &[&(String, String)]) -> Vec<String> {
    let texts: Modules<'_> = files.iter().map(|(path, text)| (module_of(path), text.as_str())).collect();
    let needs: BTreeMap<_, _> = texts.iter().map(|(module, text)| (module, needed(module, text, &texts))).collect();
    let mut findings = vec![];
    let mut told: BTreeSet<&Vec<&str>> = BTreeSet::new();
    for module in texts.keys() {
        let mine = reachable(module, &needs);
        if told.contains(module) || !mine.contains(module) {
            continue;
        }
        let circle: Vec<_> = mine.into_iter().filter(|other| reachable(other, &needs).contains(module)).collect();
        let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
        findings.push(format!("{name}: a circle of {}", names.join(", ")));
        told.extend(circle);
    }
    findings
}

/// All modules that a module needs, and that those need.
fn reachable<'a, 'b>(
    from: &'a Vec<&'b str>,
    needs: &BTreeMap<&'a Vec<&'b str>, BTreeSet<&'a Vec<&'b str>>>,
) -> BTreeSet<&'a Vec<&'b str>> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        let new = needs.get(module).into_iter().flatten().filter(|needed| found.insert(**needed));
        open.extend(new);
    }
    found
}

/// The module path of a file: `crates/flow/src/decide/token.rs` is `decide::token`.
fn module_of(path: &str) -> Vec<&str> {
    let inside = path.split_once("/src/").map_or(path, |(_, inside)| inside);
    let mut parts: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
    if matches!(parts.last(), Some(&("mod" | "lib" | "main"))) {
        parts.pop();
    }
    parts
}

/// The modules that a file names, without those above it and itself.
fn needed<'a, 'b>(module: &Vec<&'b str>, text: &str, all: &'a Modules<'b>) -> BTreeSet<&'a Vec<&'b str>> {
    let text = without_tests(text);
    let mut found = BTreeSet::new();
    for named in paths(&text) {
        let Some(absolute) = absolute(module, &named) else { continue };
        // The longest beginning that is a file.
        let file = (1..=absolute.len()).rev().find_map(|length| {
            let start: Vec<&str> = absolute[..length].iter().map(String::as_str).collect();
            all.keys().find(|known| **known == start)
        });
        found.extend(file.filter(|file| !module.starts_with(file)));
    }
    found
}

fn absolute(module: &[&str], named: &[String]) -> Option<Vec<String>> {
    let mut base: Vec<String> = module.iter().map(|part| (*part).to_owned()).collect();
    let mut rest = named;
    while let Some((first, after)) = rest.split_first() {
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => drop(base.pop()?),
            _ => break,
        }
        rest = after;
    }
    (rest.len() < named.len()).then(|| [base, rest.to_vec()].concat())
}

/// Code without comments and without the modules of its tests.
fn without_tests(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Every path that begins with `crate`, `super` or `self`; lists in braces are taken apart.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = vec![];
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '$') {
                tree(&mut text[at..].chars().peekable(), vec![], &mut found);
            }
        }
    }
    found
}

/// One `a::b`, or `a::{b, c::d}`.
fn tree(text: &mut std::iter::Peekable<std::str::Chars<'_>>, mut path: Vec<String>, found: &mut Vec<Vec<String>>) {
    loop {
        while text.next_if(|c| c.is_whitespace()).is_some() {}
        if text.next_if_eq(&'{').is_some() {
            while text.peek().is_some_and(|c| *c != '}') {
                tree(text, path.clone(), found);
                while text.next_if(|c| *c != ',' && *c != '}').is_some() {}
                text.next_if_eq(&',');
                while text.next_if(|c| c.is_whitespace()).is_some() {}
            }
            text.next();
            return;
        }
        let mut word = String::new();
        while let Some(c) = text.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            word.push(c);
        }
        if !word.is_empty() {
            path.push(word);
        }
        if text.next_if_eq(&':').is_none() || text.next_if_eq(&':').is_none() {
            found.push(path);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> =
            files.iter().map(|(path, text)| (format!("crates/x/src/{path}"), (*text).to_owned())).collect();
        circles(&files)
    }

    #[test]
    fn two_files_that_need_each_other_are_found() {
        let files = [("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B;"), ("b.rs", "fn f() { crate::a::g() }")];
        assert_eq!(found(&files), ["crates/x: a circle of a, b"]);
    }

    #[test]
    fn a_circle_through_braces_and_siblings_is_found() {
        let files = [
            ("a.rs", "use crate::{Y, b::c::{self, C}, z};"),
            ("b/c.rs", "use super::d::D;"),
            ("b/d.rs", "use crate::a;"),
            ("b.rs", ""),
        ];
        assert_eq!(found(&files), ["crates/x: a circle of a, b::c, b::d"]);
    }

    #[test]
    fn parents_comments_and_tests_make_no_circle() {
        let files = [
            ("lib.rs", "mod a;\npub use crate::a::A;"),
            ("a.rs", "use self::c::C;\n// crate::b::B\n#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}"),
            ("a/c.rs", "use super::A;\nuse crate::Y;"),
            ("b.rs", "use crate::a::A;"),
        ];
        assert!(found(&files).is_empty(), "{:?}", found(&files));
    }
}
