//! Words that must not stand in the repository, and words that must.

/// Package registries and paths of one machine: a file that names them works in one place only.
const MACHINE_WORDS: &[&str] = &[
    "/home/",
    "/root/",
    "/work/",
    "crates.io/",
    "deb.debian.org",
    "files.pythonhosted.org",
    "proxy.golang.org",
    "pypi.org",
    "registry.npmjs.org",
    "repo.maven.apache.org",
    "repo1.maven.org",
];

/// Macros that admit that something is missing.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!"];

/// Places that name a registry's host or a path that exists on one machine only.
pub fn machine_words(path: &str, text: &str) -> Vec<String> {
    places(path, text, MACHINE_WORDS, |_, _| true)
}

/// Places where the code says that it is not finished.
pub fn unfinished(path: &str, text: &str) -> Vec<String> {
    places(path, text, UNFINISHED, |before, after| {
        !before.ends_with(['`', '_', '"']) && after.starts_with(['(', '[', '{'])
    })
}

fn places(path: &str, text: &str, words: &[&str], counts: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut findings = vec![];
    for (index, line) in text.lines().enumerate() {
        for word in words {
            if let Some((before, after)) = line.split_once(word)
                && counts(before, after)
            {
                findings.push(format!("{path}:{}: names {word}", index + 1));
            }
        }
    }
    findings
}

/// Which of `names` have no row in a table of `document`: a line that starts with `| name |`, backquotes allowed.
pub fn names_without_row<'a>(document: &str, names: &'a [String]) -> Vec<&'a str> {
    let first_cells: Vec<&str> = document
        .lines()
        .filter_map(|line| line.trim().strip_prefix('|')?.split('|').next())
        .flat_map(|cell| cell.split(','))
        .map(|word| word.trim().trim_matches('`'))
        .collect();
    names.iter().map(String::as_str).filter(|name| !first_cells.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_path_and_a_registry_are_found() {
        assert_eq!(machine_words("f", "a\ncd /work/main\n"), ["f:2: names /work/"]);
        assert_eq!(machine_words("f", "from https://pypi.org/simple").len(), 1);
        assert!(machine_words("f", "network/works, homework").is_empty());
    }

    #[test]
    fn a_macro_for_later_is_found() {
        assert_eq!(unfinished("f", "    todo!()").len(), 1);
        assert_eq!(unfinished("f", "x => unimplemented!(\"soon\"),").len(), 1);
        assert!(unfinished("f", "// say `todo!` nowhere").is_empty());
    }

    #[test]
    fn a_name_without_a_row_is_found() {
        let names = ["flow".to_owned(), "bus".to_owned(), "store".to_owned()];
        assert_eq!(
            names_without_row("| crate | what |\n|---|---|\n| `flow` | x |\n| bus, relay | y |", &names),
            ["store"]
        );
    }
}
