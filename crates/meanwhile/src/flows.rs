//! `meanwhile flows lint`, `diff`, `prove`, `test`, `apply` and `stats`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::prove::{FlowFile, hints};
use process::Base;
use service_kit::config::Sources;
use setup::files;

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

/// `meanwhile flows lint`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) fn lint(paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut found = Vec::new();
    for path in paths {
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
