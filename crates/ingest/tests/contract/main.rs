//! `contracts/openapi.json` is what callers were promised last; what is served now is held against it.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "a test that meets an error fails")]

mod diff;

use std::fs;
use std::path::{Path, PathBuf};

use flow::definition::Definition;
use ingest::config::{DEFAULT, SECTION};
use serde_json::Value;
use service_kit::config::{Sources, load};

use crate::diff::diff;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The document of the example's flows, with the default settings.
fn served() -> Value {
    let folder = root().join("flows");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let is_cases = |file: &Path| file.to_string_lossy().ends_with(".test.yaml");
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml") && !is_cases(file));
    files.sort();
    let read = |file: &Path| fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut resolve = |name: &str| serde_json::from_str(&read(&folder.join(name))).map_err(|error| error.to_string());
    let parse =
        |file: &PathBuf| Definition::parse_yaml(&file.display().to_string(), &read(file), &mut resolve).unwrap();
    let flows: Vec<Definition> = files.iter().map(parse).collect();
    ingest::openapi::document(&load(SECTION, DEFAULT, &Sources::default()).unwrap(), &flows)
}

#[test]
fn the_http_contract_is_the_accepted_one() {
    let path = root().join("contracts/openapi.json");
    let served = served();
    let accepted = fs::read_to_string(&path).unwrap_or_default();
    let accepted: Value = serde_json::from_str(&accepted).unwrap_or_default();
    if served == accepted {
        return;
    }
    let changes = diff(&accepted, &served);
    let is_breaking = changes.iter().any(|change| change.is_breaking);
    let told: Vec<String> = changes.iter().map(ToString::to_string).collect();
    match (std::env::var("ACCEPT_CONTRACTS").as_deref(), is_breaking) {
        (Ok("breaking"), _) | (Ok("fine"), false) => {
            fs::write(&path, serde_json::to_string_pretty(&served).unwrap() + "\n").unwrap();
        }
        _ => panic!(
            "the HTTP contract is not that of contracts/openapi.json:\n{}\nIf it is meant: scripts/check/contracts {}",
            told.join("\n"),
            if is_breaking { "--accept-breaking, and a line in CHANGELOG.md" } else { "--accept" }
        ),
    }
}
