//! Flow files: found, read and checked.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use flow::definition::{Definition, Problem};

/// A flow file over this is not read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The flows that could be read, and everything that is wrong with the others.
#[derive(Debug)]
pub struct Checked {
    /// Checked and ready to be applied.
    pub definitions: Vec<Definition>,
    /// With file, line and remedy.
    pub problems: Vec<Problem>,
}

/// Reads and checks the flows of a file or a folder: all of them, or an error that shows everything that is wrong.
/// `were_not` completes its first line: `cannot be compared`.
///
/// # Errors
/// A file cannot be read, or a flow does not lint.
pub fn read_clean(path: &Path, were_not: &str) -> anyhow::Result<Vec<Definition>> {
    let Checked { definitions, problems } = check(&find(path)?)?;
    if problems.is_empty() {
        return Ok(definitions);
    }
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    bail!("the flows of {} {were_not}\n\n{}", path.display(), told.join("\n\n"))
}

/// As [`read_clean`], for flows that are to be applied.
///
/// # Errors
/// A file cannot be read, or a flow does not lint.
pub fn read_to_apply(path: &Path) -> anyhow::Result<Vec<Definition>> {
    read_clean(path, "were not applied; nothing was changed")
}

/// The flow files of a folder, in order; a file is itself.
///
/// # Errors
/// There is no such path, or no flow in it.
pub fn find(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.exists() {
        bail!("there is no {}; expected a flow, or a folder with flows (*.yaml)", path.display());
    }
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("reading the folder {}", path.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.with_context(|| format!("reading the folder {}", path.display()))?.path();
        if file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!("there are no flows (*.yaml) in {}", path.display());
    }
    files.sort();
    Ok(files)
}

/// Reads and checks these files.
///
/// # Errors
/// A file cannot be read. A flow that is wrong is among the problems.
pub fn check(files: &[PathBuf]) -> anyhow::Result<Checked> {
    let mut checked = Checked { definitions: Vec::new(), problems: Vec::new() };
    for file in files {
        match read(file)? {
            Ok(definition) => {
                if checked.definitions.iter().any(|known| known.name() == definition.name()) {
                    checked.problems.push(declared_twice(file, definition.name()));
                }
                checked.definitions.push(definition);
            }
            Err(problems) => checked.problems.extend(problems),
        }
    }
    Ok(checked)
}

fn read(file: &Path) -> anyhow::Result<Result<Definition, Vec<Problem>>> {
    let text = read_text(file)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut resolve = |name: &str| {
        let text = read_text(&folder.join(name)).map_err(|error| format!("{error:#}"))?;
        serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))
    };
    Ok(Definition::parse_yaml(&file.display().to_string(), &text, &mut resolve))
}

fn declared_twice(file: &Path, name: &str) -> Problem {
    Problem {
        file: file.display().to_string(),
        line: 1,
        column: 1,
        message: format!("flow `{name}` is declared in another file, too"),
        expected: Some("one file per flow".to_owned()),
        hint: None,
    }
}

fn read_text(file: &Path) -> anyhow::Result<String> {
    let size = std::fs::metadata(file).with_context(|| format!("reading {}", file.display()))?.len();
    if size > FILE_BYTES_MAX {
        bail!("{} has {size} bytes, {FILE_BYTES_MAX} at most", file.display());
    }
    std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FLOW: &str = "flow: order\nsteps: [{ id: one, native: one }]\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn the_flows_of_a_folder_are_read_in_order_and_other_files_are_left_alone() {
        let other = FLOW.replace("order", "refund");
        let folder = folder(&[("b.yaml", FLOW), ("a.yml", &other), ("notes.txt", "flow:")]);
        let names: Vec<String> =
            read_to_apply(folder.path()).unwrap().iter().map(|flow| flow.name().to_owned()).collect();
        assert_eq!(names, ["refund", "order"]);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let folder = folder(&[("a.yaml", FLOW), ("b.yaml", FLOW), ("c.yaml", "flow: c\nstep: []\n")]);
        let told = read_to_apply(folder.path()).unwrap_err().to_string();
        assert!(told.contains("nothing was changed"), "{told}");
        assert!(told.contains("b.yaml:1:1") && told.contains("declared in another file"), "{told}");
        assert!(told.contains("c.yaml:2:1") && told.contains("did you mean `steps`?"), "{told}");
    }

    #[test]
    fn an_empty_folder_and_a_missing_one_are_told_apart() {
        let empty = folder(&[]);
        assert!(find(empty.path()).unwrap_err().to_string().starts_with("there are no flows (*.yaml) in"));
        let missing = empty.path().join("flows");
        assert!(find(&missing).unwrap_err().to_string().starts_with("there is no "));
    }
}
