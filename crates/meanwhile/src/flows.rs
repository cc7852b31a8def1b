//! `meanwhile flows lint`, `diff` and `apply`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use bus::Registry;
use bus::admin::Admin;
use events::flow_document::FlowDocument;
use events::schema::subjects;
use events::trace::{Trace, TraceContext};
use flow::definition::Definition;
use flow::definition::Problem;
use service_kit::config::Sources;
use service_kit::identity::Ids;
use store::flows::Applied;
use store::{Pool, Role};

use crate::roles::Base;

pub(crate) mod diff;

/// A flow file over this is not read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The compatibility that the registry demands of new schema versions (docs/contract.md, Kafka).
pub(crate) const COMPATIBILITY: &str = "BACKWARD_TRANSITIVE";

/// `meanwhile flows lint`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) fn lint(paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(flow_files(path)?);
    }
    let (definitions, problems) = read_all(&files)?;
    for problem in &problems {
        println!("{problem}\n");
    }
    for definition in &definitions {
        println!("ok: {} ({}), {} steps", definition.name(), definition.version(), definition.steps().len());
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `meanwhile flows apply`
pub(crate) async fn apply(folder: &Path, sources: &Sources) -> anyhow::Result<ExitCode> {
    let base = Base::load(sources)?;
    let definitions = read_folder(folder)?;
    apply_all(&base, &definitions).await?;
    Ok(ExitCode::SUCCESS)
}

/// Reads and checks every flow of a folder: all of them, or an error that shows everything that is wrong.
pub(crate) fn read_folder(folder: &Path) -> anyhow::Result<Vec<Definition>> {
    read_clean(folder, "were not applied; nothing was changed")
}

/// Reads and checks the flows of a file or folder: all of them, or an error that shows everything that is wrong, and
/// says what they `were not`.
fn read_clean(path: &Path, were_not: &str) -> anyhow::Result<Vec<Definition>> {
    let (definitions, problems) = read_all(&flow_files(path)?)?;
    if problems.is_empty() {
        return Ok(definitions);
    }
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    bail!("the flows of {} {were_not}\n\n{}", path.display(), told.join("\n\n"))
}

fn flow_files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
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

fn read_all(files: &[PathBuf]) -> anyhow::Result<(Vec<Definition>, Vec<Problem>)> {
    let (mut definitions, mut problems): (Vec<Definition>, Vec<Problem>) = (Vec::new(), Vec::new());
    for file in files {
        let text = read_text(file)?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let mut resolve = |name: &str| {
            let text = read_text(&folder.join(name)).map_err(|error| format!("{error:#}"))?;
            serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))
        };
        match Definition::parse_yaml(&file.display().to_string(), &text, &mut resolve) {
            Ok(definition) => {
                if let Some(twin) = definitions.iter().find(|known| known.name() == definition.name()) {
                    problems.push(twice(file, twin.name()));
                }
                definitions.push(definition);
            }
            Err(found) => problems.extend(found),
        }
    }
    Ok((definitions, problems))
}

fn twice(file: &Path, name: &str) -> Problem {
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

/// Makes these the active versions. Queues come first, so that no slip is ever sent to a topic that is not there; a
/// flow and its record for Kafka commit together.
#[expect(clippy::print_stdout, reason = "progress of a command")]
pub(crate) async fn apply_all(base: &Base, definitions: &[Definition]) -> anyhow::Result<()> {
    let queues: BTreeSet<&str> = definitions.iter().flat_map(Definition::queues).collect();
    let admin = Admin::new(&base.bus)?;
    let group = format!("{}-workers", base.topics.prefix());
    let registry = Registry::new(&base.bus.registry_url, None)?;
    for queue in &queues {
        if admin.ensure_queue(&base.topics, queue, &group, None).await? {
            println!("created  {}", base.topics.steps(queue));
        }
    }
    for subject in subjects(&base.topics, queues) {
        registry.register(&subject.name, subject.avsc).await?;
        registry.set_compatibility(&subject.name, COMPATIBILITY).await?;
    }
    let pool = Pool::open(&store::Settings::new(&base.database_url()?), Role::Ingest)?;
    for definition in definitions {
        let (name, version) = (definition.name(), definition.version());
        let mut tx = pool.begin().await?;
        let document = definition.document().to_string();
        match store::flows::apply(&mut tx, name, version, &document).await? {
            Applied::Changed { revision } => {
                let document = FlowDocument {
                    flow: name.to_owned(),
                    version: version.to_owned(),
                    revision,
                    document: definition.document().clone(),
                };
                let record = events::flow_record(&base.topics, &document, &new_trace());
                store::outbox::append(&mut tx, &[record]).await?;
                tx.commit().await?;
                println!("applied  {name} {version} (revision {revision})");
            }
            Applied::Unchanged { revision } => {
                tx.rollback().await?;
                println!("as it was  {name} {version} (revision {revision})");
            }
        }
    }
    pool.close().await;
    Ok(())
}

fn new_trace() -> Trace {
    let ids = Ids::system();
    Trace::new(TraceContext {
        trace_id: u128::from_be_bytes(ids.trace_id()),
        span_id: u64::from_be_bytes(ids.span_id()),
        flags: 1,
    })
}
