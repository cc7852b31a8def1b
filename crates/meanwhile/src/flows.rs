//! `meanwhile flows lint`, `diff`, `prove`, `test`, `apply` and `stats`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::prove::{FlowFile, hints};
use anyhow::bail;
use process::Base;
use service_kit::config::Sources;
use setup::files;

use crate::cli::ApiArgs;
use crate::jobs::explained;
use crate::roles::target;

pub(crate) mod diff;
pub(crate) mod prove;
pub(crate) mod stats;
pub(crate) mod test;

/// The exit code of `prove` and `test` for files that cannot be used, so that it is told from what they found.
const EXIT_BAD_INPUT: u8 = 2;

/// Says why files cannot be used.
#[expect(clippy::print_stderr, reason = "the last word of a command")]
fn bad_input(error: &anyhow::Error, code: u8) -> anyhow::Result<ExitCode> {
    eprintln!("{error:#}");
    Ok(ExitCode::from(code))
}

/// True for the name of a file with test cases.
fn holds_cases(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".test.yaml") || name.ends_with(".test.yml")
}

/// Refuses a file with test cases where a flow is expected.
fn expect_flow(path: &Path) -> anyhow::Result<()> {
    if holds_cases(path) && path.is_file() {
        let (cases, flow) = (path.display(), files::flow_of_cases(path));
        bail!("{cases} holds test cases: `meanwhile flows test {cases}` runs them; their flow is {}", flow.display());
    }
    Ok(())
}

/// Refuses a flow where a file with test cases is expected.
fn expect_cases(path: &Path) -> anyhow::Result<()> {
    if holds_cases(path) || !path.is_file() {
        return Ok(());
    }
    let cases = path.with_extension("test.yaml");
    let there = if cases.is_file() { "lie in" } else { "would lie in" };
    bail!(
        "{} holds no test cases (*.test.yaml); those of a flow of this name {there} {}",
        path.display(),
        cases.display()
    )
}

/// `meanwhile flows list`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn list(as_json: bool, api: &ApiArgs) -> anyhow::Result<ExitCode> {
    let client = api.client()?;
    if as_json {
        println!("{:#}", client.flows_document().await.map_err(explained)?);
    } else {
        client.flows().await.map_err(explained)?.iter().for_each(|flow| println!("{flow}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// `meanwhile flows lint`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) fn lint(paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut found = Vec::new();
    for path in paths {
        expect_flow(path)?;
        found.extend(files::find(path)?);
    }
    let checked = files::check(&found)?;
    for problem in &checked.problems {
        println!("{problem}\n");
    }
    for hint in checked.definitions.iter().flat_map(|definition| definition.hints()) {
        println!("{hint}\n");
    }
    for file in found.iter().filter(|_| checked.problems.is_empty()) {
        if let Ok(flow) = files::read_as(file, FlowFile::parse)? {
            hints(&flow).iter().for_each(|hint| println!("{hint}\n"));
        }
    }
    for definition in &checked.definitions {
        println!("ok: {} ({}), {} steps", definition.name(), definition.version(), definition.steps().len());
    }
    Ok(if checked.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `meanwhile flows apply`
#[expect(clippy::print_stdout, reason = "progress of a command")]
pub(crate) async fn apply(folder: &Path, sources: &Sources) -> anyhow::Result<ExitCode> {
    let base = Base::load(sources)?;
    let definitions = files::read_to_apply(folder)?;
    print!("{}", target(&base)?.apply_flows(&definitions).await?);
    Ok(ExitCode::SUCCESS)
}
