//! `contracts/flows` is what callers of the example's flows were promised last; `flows/` is held against it.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "a test that meets an error fails")]

use std::fs;
use std::path::{Path, PathBuf};

use flow::definition::Definition;
use flow::diff::{FlowDiff, flows};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn definitions(folder: &Path) -> Vec<Definition> {
    let read = |file: &Path| fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut resolve = |name: &str| serde_json::from_str(&read(&folder.join(name))).map_err(|error| error.to_string());
    let is_flow = |file: &&PathBuf| file.extension().is_some_and(|extension| extension == "yaml") && !is_cases(file);
    let parse =
        |file: &PathBuf| Definition::parse_yaml(&file.display().to_string(), &read(file), &mut resolve).unwrap();
    files(folder).iter().filter(is_flow).map(parse).collect()
}

/// Test cases lie beside the flows, and are no promise.
fn is_cases(file: &Path) -> bool {
    file.to_string_lossy().ends_with(".test.yaml")
}

/// The accepted flows become these, byte for byte.
fn accept(from: &Path, to: &Path) {
    for file in files(to) {
        fs::remove_file(file).unwrap();
    }
    for file in files(from).iter().filter(|file| !is_cases(file)) {
        fs::copy(file, to.join(file.file_name().unwrap())).unwrap();
    }
}

#[test]
fn the_examples_flows_are_the_accepted_ones() {
    let (present, accepted) = (root().join("flows"), root().join("contracts/flows"));
    fs::create_dir_all(&accepted).unwrap();
    let diffs = flows(&definitions(&accepted), &definitions(&present));
    if diffs.is_empty() {
        return;
    }
    let is_breaking = diffs.iter().any(FlowDiff::is_breaking);
    let changes = diffs.iter().flat_map(|diff| diff.changes.iter().map(move |it| format!("  {}  {it}", diff.flow)));
    match (std::env::var("ACCEPT_CONTRACTS").as_deref(), is_breaking) {
        (Ok("breaking"), _) | (Ok("fine"), false) => accept(&present, &accepted),
        _ => panic!(
            "the flows of flows/ are not those of contracts/flows:\n{}\nIf it is meant: scripts/check/contracts {}",
            changes.collect::<Vec<_>>().join("\n"),
            if is_breaking { "--accept-breaking, and a line in CHANGELOG.md" } else { "--accept" }
        ),
    }
}
