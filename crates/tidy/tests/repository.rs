//! The repository keeps its own rules.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]

use std::path::{Path, PathBuf};
use std::process::Command;

use events::topic::Topics;
use serde_json::Value;
use tidy::layer::{Dependency, layers, wrong_dependencies};
use tidy::metrics::Metric;
use tidy::{circles, documents, image, log_lines, metrics, size, text};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Our packages, as `cargo metadata` has them. (The crate of that name would switch on a feature of serde_json for
/// tests, so that everything were compiled twice.)
fn packages() -> Vec<Value> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--format-version=1", "--no-deps"]).current_dir(root());
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    metadata["packages"].as_array().filter(|packages| !packages.is_empty()).expect("packages").clone()
}

fn text_of(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
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
fn each_crate_uses_exactly_the_crates_of_its_row() {
    let packages = packages();
    let crates: Vec<String> = packages.iter().map(|package| text_of(package, "name")).collect();
    let dependencies = packages.iter().flat_map(|package| {
        package["dependencies"].as_array().into_iter().flatten().map(|dependency| Dependency {
            user: text_of(package, "name"),
            used: text_of(dependency, "name"),
            dev: dependency["kind"] == "dev",
        })
    });
    let ours: Vec<_> = dependencies.filter(|dependency| crates.contains(&dependency.used)).collect();
    assert!(ours.iter().any(|dependency| dependency.dev) && ours.iter().any(|dependency| !dependency.dev));
    assert_none(wrong_dependencies(&layers(&read("ARCHITECTURE.md")), &crates, &ours));
}

#[test]
fn folders_are_named_for_their_crates() {
    let members = packages();
    let named = |package: &Value| {
        let manifest = PathBuf::from(text_of(package, "manifest_path"));
        manifest.ends_with(format!("{}/Cargo.toml", text_of(package, "name")))
    };
    assert_none(members.iter().filter(|package| !named(package)).map(|package| package["id"].to_string()).collect());
}

#[test]
fn no_files_of_a_crate_need_each_other_in_a_circle() {
    let files: Vec<_> = files().into_iter().filter(|(path, _)| path.ends_with(".rs")).collect();
    assert_none(circles::circles(&files));
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
fn what_is_compiled_in_reaches_the_image() {
    let (files, dockerignore) = (files(), read(".dockerignore"));
    let sources = files.iter().filter(|(path, _)| path.ends_with(".rs") && path != "crates/tidy/src/image.rs");
    assert_none(sources.flat_map(|(path, text)| image::missing_from_image(path, text, &dockerignore)).collect());
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
fn every_topic_has_its_row_in_the_architecture() {
    let names = Topics::default().all("<queue>");
    let document = read("ARCHITECTURE.md");
    assert_none(text::names_without_row(&document, &names).into_iter().map(str::to_owned).collect());
}

#[test]
fn documents_and_comments_name_only_files_that_exist() {
    let exempt = ["Cargo.lock", "crates/tidy/src/documents.rs"];
    let files = files();
    let paths: Vec<String> = files.iter().map(|(path, _)| path.clone()).collect();
    let files = files.iter().filter(|(path, _)| !exempt.contains(&path.as_str()) && !path.ends_with(".json"));
    assert_none(files.flat_map(|(path, text)| documents::missing_files(path, text, &paths)).collect());
}

#[test]
fn links_lead_somewhere_and_prose_is_not_wide() {
    let files = files();
    let paths: Vec<String> = files.iter().map(|(path, _)| path.clone()).collect();
    let documents: Vec<_> = files.iter().filter(|(path, _)| documents::is_document(path)).collect();
    assert!(documents.len() > 20, "only {} documents were found", documents.len());
    let findings = documents.into_iter().flat_map(|(path, text)| {
        let broken = documents::broken_links(path, text, &paths, read);
        [broken, documents::long_prose(path, text, size::LINE_CHARS_MAX)].concat()
    });
    assert_none(findings.collect());
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

/// The sources of the product: path and text.
fn sources() -> Vec<(String, String)> {
    let apart = ["crates/tidy/", "crates/test-kit/", "crates/bench/"];
    let mut files = files();
    files.retain(|(path, _)| {
        let in_crate = path.starts_with("crates/") && path.contains("/src/") && path.ends_with(".rs");
        in_crate && !apart.iter().any(|apart| path.starts_with(apart))
    });
    files
}

fn measured() -> Vec<Metric> {
    let found: Vec<Metric> = sources().iter().flat_map(|(path, text)| metrics::metrics(path, text)).collect();
    assert!(found.len() > 30, "only {} metrics were found", found.len());
    found
}

#[test]
fn the_document_lists_every_line_of_the_log_with_its_fields_and_no_other() {
    let lines: Vec<_> = sources().iter().flat_map(|(path, text)| log_lines::log_lines(path, text)).collect();
    assert!(lines.len() > 30, "only {} lines were found", lines.len());
    assert_none(log_lines::disagreements(&read("docs/logging.md"), &lines));
}

#[test]
fn the_document_lists_every_metric_with_its_kind_and_labels_and_no_other() {
    assert_none(metrics::disagreements(&read("docs/metrics.md"), &measured()));
}

/// The queries of a dashboard's panels and variables.
fn panel_queries(board: &Value, into: &mut Vec<String>) {
    match board {
        Value::Object(fields) => {
            into.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            // label_values(metric, label)
            let variable = fields.get("query").and_then(Value::as_str);
            into.extend(variable.and_then(|query| {
                let (metric, label) = query.strip_prefix("label_values(")?.strip_suffix(')')?.split_once(',')?;
                Some(format!("group by ({label}) ({metric})"))
            }));
            fields.values().for_each(|value| panel_queries(value, into));
        }
        Value::Array(values) => values.iter().for_each(|value| panel_queries(value, into)),
        _ => {}
    }
}

#[test]
fn dashboards_and_alerts_ask_only_for_what_is_measured() {
    let measured = measured();
    let (mut asked, mut recorded) = (vec![], vec![]);
    for (path, text) in files() {
        if path.starts_with("deploy/prometheus/rules/") {
            let (queries, records) = metrics::rules(&text);
            recorded.extend(records);
            asked.extend(queries.into_iter().map(|query| (path.clone(), query)));
        } else if path.starts_with("deploy/prometheus/tests/") {
            let series = text.lines().filter_map(|line| line.split_once("series: '")?.1.split_once('\''));
            asked.extend(series.map(|(series, _)| (path.clone(), series.to_owned())));
        } else if path.starts_with("deploy/grafana/dashboards/") {
            let mut queries = vec![];
            panel_queries(&serde_json::from_str(&text).expect("a dashboard is JSON"), &mut queries);
            asked.extend(queries.into_iter().map(|query| (path.clone(), query)));
        }
    }
    assert!(asked.len() > 100, "only {} queries were found", asked.len());
    assert_none(
        asked.iter().flat_map(|(path, query)| metrics::unanswerable(path, query, &measured, &recorded)).collect(),
    );
}
