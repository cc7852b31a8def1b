//! Documents and comments name only files that exist, and links lead somewhere.

/// Folders at the top whose files documents and comments name by their whole path.
const FOLDERS: [&str; 2] = ["docs/", "scripts/"];

/// A file that a line names.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    line: usize,
    file: &'a str,
}

/// Documents (`*.md`) and files of `docs/` and `scripts/` that a text names and that are not in the repository. A name
/// is a path from the top or from the text's own folder. In documents, source files (`*.rs`) count as well; there the
/// end of a path is enough.
pub fn missing_files(path: &str, text: &str, paths: &[String]) -> Vec<String> {
    let in_document = is_document(path);
    let exists = |file: &str| {
        let from_top = resolve("", file);
        let from_here = resolve(folder_of(path), file);
        paths.iter().any(|known| {
            let inside = |folder: &str| known.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
            *known == from_top || *known == from_here || inside(&from_top) || inside(&from_here)
        })
    };
    let ends_a_path = |file: &str| paths.iter().any(|known| format!("/{known}").ends_with(&format!("/{file}")));
    let missing = |named: &Named| {
        if named.file.ends_with(".rs") { in_document && !ends_a_path(named.file) } else { !exists(named.file) }
    };
    let absent = named_files(text).into_iter().filter(missing);
    absent.map(|Named { line, file }| format!("{path}:{line}: names {file}, which is not there")).collect()
}

/// Relative links of a document that lead to no file or to no heading. `read` gives the text of another document.
pub fn broken_links(path: &str, text: &str, paths: &[String], read: impl Fn(&str) -> String) -> Vec<String> {
    let mut findings = vec![];
    for (target, line) in links(text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let resolved = if file.is_empty() { path.to_owned() } else { resolve(folder_of(path), file) };
        let folder = format!("{resolved}/");
        if !paths.iter().any(|known| *known == resolved || known.starts_with(&folder)) {
            findings.push(format!("{path}:{line}: links to {target}, which is not there"));
        } else if !anchor.is_empty() && !headings(&read(&resolved)).contains(&anchor.to_owned()) {
            findings.push(format!("{path}:{line}: links to {target}, but {resolved} has no such heading"));
        }
    }
    findings
}

/// Lines of prose in a document that are longer than `chars_max`. Tables, code blocks and lone links may be.
pub fn long_prose(path: &str, text: &str, chars_max: usize) -> Vec<String> {
    let mut findings = vec![];
    for (line, content) in prose(text) {
        let length = content.chars().count();
        if length > chars_max && !content.starts_with('|') && content.trim().contains(' ') {
            findings.push(format!("{path}:{line}: {length} characters; the limit is {chars_max}"));
        }
    }
    findings
}

/// Whether a path is a document's.
pub fn is_document(path: &str) -> bool {
    path.ends_with(".md")
}

/// The lines outside of code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !fence && !in_code
    })
}

fn named_files(text: &str) -> Vec<Named<'_>> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    let mut found = vec![];
    for (line, content) in (1..).zip(text.lines()) {
        // A name beside other signs is a pattern (`*.md`, `<name>.md`) or part of an address.
        let apart = |c: char| !is_part(c) && !"*<>{}$:#@".contains(c);
        for word in content.split(apart) {
            let file = word.trim_end_matches(['.', ':', ',']);
            let by_folder = FOLDERS.iter().any(|folder| file.starts_with(folder) && file.len() > folder.len());
            let plain = file.chars().all(is_part) && !file.starts_with('/');
            let by_name = [".md", ".rs"].iter().any(|end| file.strip_suffix(end).is_some_and(is_stem));
            if plain && (by_name || by_folder) {
                found.push(Named { line, file });
            }
        }
    }
    found
}

fn is_stem(stem: &str) -> bool {
    stem.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// The targets of links in the prose, with their lines.
fn links(text: &str) -> Vec<(&str, usize)> {
    let mut found = vec![];
    for (line, content) in prose(text) {
        for (start, _) in content.match_indices("](") {
            if let Some((target, _)) = content[start + 2..].split_once(')') {
                found.push((target, line));
            }
        }
    }
    found
}

/// The anchors that GitHub makes of a document's headings.
fn headings(text: &str) -> Vec<String> {
    let headings = prose(text).filter_map(|(_, line)| line.strip_prefix('#'));
    headings.map(|heading| anchor(heading.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || "- _".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// `name` as seen from `folder`, from the top of the repository.
pub(crate) fn resolve(folder: &str, name: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> Vec<String> {
        ["README.md", "docs/rules.md", "docs/decisions/README.md", "crates/flow/src/lib.rs", "scripts/check/golden"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn a_file_that_is_not_there_is_found() {
        let missing = |path: &str, text: &str| missing_files(path, text, &paths());
        assert_eq!(missing("a.rs", "// x\n// see design.md, 4"), ["a.rs:2: names design.md, which is not there"]);
        assert_eq!(missing("a.rs", "// rules.md").len(), 1);
        assert_eq!(missing("a.rs", "// run scripts/check/silver.").len(), 1);
        assert_eq!(missing("docs/a.md", "in `lost.rs`").len(), 1);
        for fine in
            ["docs/rules.md.", "`*.md` and <name>.md", "https://example.com/x/y.md", "scripts/check/golden", "docs/"]
        {
            assert!(missing("a.rs", fine).is_empty(), "{fine}");
        }
        assert!(missing("docs/a.md", "rules.md, decisions/README.md, `flow/src/lib.rs`").is_empty());
        assert!(missing("a.rs", "// lost.rs").is_empty(), "the compiler sees to that");
    }

    #[test]
    fn a_link_to_nothing_is_found() {
        let broken = |path: &str, text: &str| broken_links(path, text, &paths(), |_| "# One rule: a, b\n".to_owned());
        assert_eq!(broken("docs/a.md", "[a](gone.md)"), ["docs/a.md:1: links to gone.md, which is not there"]);
        assert_eq!(broken("docs/a.md", "[a](rules.md#two)").len(), 1);
        assert!(broken("docs/a.md", "[a](rules.md#one-rule-a-b), [b](../README.md), [c](decisions)").is_empty());
        assert!(broken("README.md", "[a](https://example.com)\n```\n[a](gone.md)\n```\n[b](docs/rules.md)").is_empty());
    }

    #[test]
    fn a_long_line_of_prose_is_found() {
        let long = "word ".repeat(30);
        assert_eq!(long_prose("a.md", &long, 120).len(), 1);
        assert!(long_prose("a.md", &format!("| {long} |\n```\n{long}\n```"), 120).is_empty());
    }
}
