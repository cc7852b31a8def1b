//! Flow files: found, read and checked.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use flow::definition::{Clash, Definition, Problem, ResolveRef, clashes};

/// The largest flow file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The flows that could be read, and the problems of the others.
#[derive(Debug)]
pub struct Checked {
    /// Checked and ready to be applied.
    pub definitions: Vec<Definition>,
    /// The problems, each with file, line and remedy.
    pub problems: Vec<Problem>,
}

/// Reads and checks the flows of a file or a folder: all of them, or an error that shows all problems. `were_not`
/// completes its first line: `cannot be compared`.
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
        if is_yaml(&file) && !is_cases(&file) {
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!("there are no flows (*.yaml) in {}", path.display());
    }
    files.sort();
    Ok(files)
}

/// The files with test cases of a folder, in order; a file is itself.
///
/// # Errors
/// There is no such path, or the folder cannot be read.
pub fn find_cases(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.exists() {
        bail!(
            "there is no {}; expected a file with test cases, or a folder with such files (*.test.yaml)",
            path.display()
        );
    }
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("reading the folder {}", path.display()))?;
    let mut files = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| is_cases(file));
    files.sort();
    Ok(files)
}

/// The flow's file that lies beside a file with its test cases: `order.yaml` beside `order.test.yaml`.
pub fn flow_of_cases(cases: &Path) -> PathBuf {
    let name = cases.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    cases.with_file_name(name.replacen(".test.", ".", 1))
}

/// True for a file that flows may be made of: a flow, or a schema that one refers to.
pub fn is_part(file: &Path) -> bool {
    (is_yaml(file) && !is_cases(file)) || file.extension().is_some_and(|extension| extension == "json")
}

fn is_yaml(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Test cases of a flow lie beside it.
fn is_cases(file: &Path) -> bool {
    is_yaml(file) && file.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(".test"))
}

/// Reads and checks these files.
///
/// # Errors
/// A file cannot be read. A flow that is wrong is among the problems.
pub fn check(files: &[PathBuf]) -> anyhow::Result<Checked> {
    let (mut found, mut problems): (Vec<(&Path, Definition)>, _) = (Vec::new(), Vec::new());
    for file in files {
        match read(file)? {
            Ok(definition) => {
                if let Some((other, _)) = found.iter().find(|(_, known)| known.name() == definition.name()) {
                    problems.push(declared_twice(file, definition.name(), other));
                }
                found.push((file, definition));
            }
            Err(more) => problems.extend(more),
        }
    }
    let file_of = |flow: &Definition| {
        let place = found.iter().find(|(_, known)| known.name() == flow.name());
        place.map(|(file, _)| file.display().to_string()).unwrap_or_default()
    };
    problems.extend(clashes(found.iter().map(|(_, flow)| flow)).iter().map(|clash| taken(clash, file_of)));
    Ok(Checked { definitions: found.into_iter().map(|(_, flow)| flow).collect(), problems })
}

fn taken(clash: &Clash, file_of: impl Fn(&Definition) -> String) -> Problem {
    let (line, column) = clash.flow.route_place();
    let hint = clash.owner.as_ref().map(|owner| {
        let (line, column) = owner.route_place();
        format!("the other one stands at {}:{line}:{column}", file_of(owner))
    });
    let (file, message) = (file_of(&clash.flow), clash.to_string());
    Problem { file, line, column, message, expected: Some("an address of its own, or none".to_owned()), hint }
}

fn read(file: &Path) -> anyhow::Result<Result<Definition, Vec<Problem>>> {
    read_as(file, Definition::parse_yaml)
}

/// Reads a flow's file as something else than its definition; the parser gets the file's name, its text, and the files
/// beside it.
///
/// # Errors
/// The file cannot be read.
pub fn read_as<T>(file: &Path, parse: impl FnOnce(&str, &str, &mut ResolveRef<'_>) -> T) -> anyhow::Result<T> {
    let text = read_text(file)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut resolve = |name: &str| {
        let text = read_text(&folder.join(name)).map_err(|error| format!("{error:#}"))?;
        serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))
    };
    Ok(parse(&file.display().to_string(), &text, &mut resolve))
}

fn declared_twice(file: &Path, name: &str, other: &Path) -> Problem {
    Problem {
        file: file.display().to_string(),
        line: 1,
        column: 1,
        message: format!("flow `{name}` is declared in {}, too", other.display()),
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
        let folder = folder(&[("b.yaml", FLOW), ("a.yml", &other), ("notes.txt", "flow:"), ("b.test.yaml", "cases:")]);
        let names: Vec<String> =
            read_to_apply(folder.path()).unwrap().iter().map(|flow| flow.name().to_owned()).collect();
        assert_eq!(names, ["refund", "order"]);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let folder = folder(&[("a.yaml", FLOW), ("b.yaml", FLOW), ("c.yaml", "flow: c\nstep: []\n")]);
        let told = read_to_apply(folder.path()).unwrap_err().to_string();
        assert!(told.contains("nothing was changed"), "{told}");
        assert!(told.contains("b.yaml:1:1") && told.contains("a.yaml, too"), "{told}");
        assert!(told.contains("c.yaml:2:1") && told.contains("did you mean `steps`?"), "{told}");
    }

    #[test]
    fn an_address_that_is_taken_is_told_with_both_places() {
        let flow = |name: &str, route: &str| format!("flow: {name}\nroute: {route}\nsteps: [{{ id: a, native: f }}]\n");
        let (one, two) = (flow("one", "POST /same"), flow("two", "POST /same"));
        let three = flow("three", "POST /healthz");
        let folder = folder(&[("a.yaml", &one), ("b.yaml", &two), ("c.yaml", &three)]);
        let told = read_to_apply(folder.path()).unwrap_err().to_string();
        for words in
            ["`POST /same` is the route of two flows", "b.yaml:2:8", "a.yaml:2:8", "`POST /healthz`", "c.yaml:2:8"]
        {
            assert!(told.contains(words), "{words}: {told}");
        }
    }

    #[test]
    fn an_empty_folder_and_a_missing_one_are_told_apart() {
        let empty = folder(&[]);
        assert!(find(empty.path()).unwrap_err().to_string().starts_with("there are no flows (*.yaml) in"));
        let missing = empty.path().join("flows");
        assert!(find(&missing).unwrap_err().to_string().starts_with("there is no "));
    }
}
