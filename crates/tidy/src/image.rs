//! The image is built from what `.dockerignore` lets through: what a crate compiles in has to be among it.

use crate::documents::resolve;

/// The macros that read a file at compile time.
const INCLUDES: [&str; 2] = ["include_str!(\"", "include_bytes!(\""];

/// Files that this source compiles in and that the image's build would not find.
pub fn missing_from_image(path: &str, text: &str, dockerignore: &str) -> Vec<String> {
    let let_through: Vec<&str> = dockerignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let is_there = |file: &str| {
        let_through
            .iter()
            .any(|entry| file.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = vec![];
    for (number, line) in (1..).zip(text.lines()) {
        for include in INCLUDES {
            let Some((_, rest)) = line.split_once(include) else { continue };
            let Some((name, _)) = rest.split_once('"') else { continue };
            let file = resolve(folder, name);
            if !is_there(&file) {
                findings.push(format!("{path}:{number}: compiles in {file}: let it through in .dockerignore"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crate_compiles_in_has_to_be_let_through() {
        let dockerignore = "# comment\n*\n!crates\n!deploy/kafka\n";
        let source = "const A: &str = include_str!(\"page.css\");\n\
                      const B: &[u8] = include_bytes!(\"../../../deploy/kafka/topics.yaml\");\n\
                      const C: &str = include_str!(\"../../../deploy/kafkaesque.yaml\");\n\
                      const D: &str = include_str!(\"../../../asyncapi.yaml\");\n";
        assert_eq!(
            missing_from_image("crates/ingest/src/page.rs", source, dockerignore),
            [
                "crates/ingest/src/page.rs:3: compiles in deploy/kafkaesque.yaml: let it through in .dockerignore",
                "crates/ingest/src/page.rs:4: compiles in asyncapi.yaml: let it through in .dockerignore",
            ]
        );
    }
}
