//! The repository keeps its own rules.

use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use events::topic::Topics;
use tidy::layer::{Dependency, wrong_dependencies};
use tidy::{license, size, text};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).exec().expect("cargo metadata runs")
}

/// All text files that are committed or about to be.
fn files() -> Vec<(String, String)> {
    let git = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(git).current_dir(root()).output().expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let paths = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let files: Vec<_> = paths
        .lines()
        .filter_map(|path| Some((path.to_owned(), std::fs::read_to_string(root().join(path)).ok()?)))
        .collect();
    assert!(files.iter().any(|(path, _)| path == "crates/tidy/tests/repository.rs"), "git lists no files");
    files
}

fn is_code((path, text): &&(String, String)) -> bool {
    path.ends_with(".rs") || path.ends_with(".sql") || path.ends_with(".py") || text.starts_with("#!")
}

fn assert_none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn dependencies_follow_the_layers_and_the_doors() {
    let metadata = metadata();
    let members = metadata.workspace_packages();
    let crates: Vec<String> = members.iter().map(|package| package.name.to_string()).collect();
    let dependencies = members.iter().flat_map(|package| {
        package.dependencies.iter().map(|dependency| Dependency {
            user: package.name.to_string(),
            used: dependency.name.clone(),
            dev: dependency.kind == DependencyKind::Development,
        })
    });
    assert_none(wrong_dependencies(&crates, &dependencies.collect::<Vec<_>>()));
}

#[test]
fn folders_are_named_for_their_crates() {
    let metadata = metadata();
    let members = metadata.workspace_packages();
    let wrong = members
        .iter()
        .filter(|package| package.manifest_path.parent().and_then(|p| p.file_name()) != Some(&package.name));
    assert_none(wrong.map(|package| format!("{} lies in {}", package.name, package.manifest_path)).collect());
}

#[test]
fn every_licence_is_permissive() {
    let metadata = metadata();
    let wrong = metadata.packages.iter().filter(|package| !package.license.as_deref().is_some_and(license::is_allowed));
    assert_none(wrong.map(|package| format!("{} {}: {:?}", package.name, package.version, package.license)).collect());
}

#[test]
fn files_functions_and_lines_are_short() {
    let files = files();
    let code = files.iter().filter(is_code);
    assert_none(
        code.flat_map(|(path, text)| {
            let functions = if path.ends_with(".rs") { size::long_functions(path, text) } else { vec![] };
            [size::long_files_and_lines(path, text), functions].concat()
        })
        .collect(),
    );
}

#[test]
fn no_file_names_a_registry_or_a_machine() {
    let exempt = ["Cargo.lock", "crates/tidy/src/text.rs"];
    let files = files();
    let files = files.iter().filter(|(path, _)| !exempt.contains(&path.as_str()));
    assert_none(files.flat_map(|(path, text)| text::machine_words(path, text)).collect());
}

#[test]
fn nothing_is_left_for_later() {
    let files = files();
    let code = files.iter().filter(|(path, _)| path.ends_with(".rs") && path != "crates/tidy/src/text.rs");
    assert_none(code.flat_map(|(path, text)| text::unfinished(path, text)).collect());
}

#[test]
fn every_crate_has_its_row_in_the_architecture() {
    let crates: Vec<String> = metadata().workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let document = read("ARCHITECTURE.md");
    assert_none(text::names_without_row(&document, &crates).into_iter().map(str::to_owned).collect());
}

#[test]
fn every_topic_has_its_row_in_the_architecture() {
    let topics = Topics::default();
    let names = [
        topics.commands(),
        topics.steps("<queue>"),
        topics.events(),
        topics.waits(),
        topics.cancels(),
        topics.progress(),
        topics.flows(),
        topics.relay(),
        topics.dead_letters(),
    ];
    let document = read("ARCHITECTURE.md");
    assert_none(text::names_without_row(&document, &names).into_iter().map(str::to_owned).collect());
}

#[test]
fn the_makefile_has_at_most_ten_targets() {
    let makefile = read("Makefile");
    let targets: Vec<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with([' ', '\t', '#', '.']))
        .filter_map(|line| line.split_once(':').filter(|(_, rest)| !rest.starts_with('=')))
        .flat_map(|(targets, _)| targets.split_whitespace())
        .collect();
    assert!(!targets.is_empty() && targets.len() <= 10, "{targets:?}");
}
