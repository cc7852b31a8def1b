//! `meanwhile flows diff`: the changes, whether they break callers, and why.
//! `flow::diff` decides; this reads and shows.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use flow::definition::Definition;
use flow::diff::{FlowDiff, flows};
use service_kit::config::{Shared, Sources};
use setup::files::read_clean;
use store::{Pool, Role};

use crate::cli::flows::DiffArgs;

/// Reads both sides and shows what is different. The exit code is 1 where a change is breaking.
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(args: &DiffArgs, sources: &Sources) -> anyhow::Result<ExitCode> {
    let diffs = match args.paths.as_slice() {
        [old, new] => flows(&read(old)?, &read(new)?),
        [new, ..] => {
            let new = read(new)?;
            let mut old = active(sources).await.context("reading the active flows from the database")?;
            // Applying takes nothing away.
            old.retain(|old| new.iter().any(|new| new.name() == old.name()));
            flows(&old, &new)
        }
        [] => Vec::new(),
    };
    for diff in &diffs {
        println!("{}", shown(diff));
    }
    println!("{}", summary(&diffs));
    let refused = diffs.iter().any(FlowDiff::is_breaking) && !args.allow_breaking;
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(path: &Path) -> anyhow::Result<Vec<Definition>> {
    read_clean(path, "cannot be compared")
}

async fn active(sources: &Sources) -> anyhow::Result<Vec<Definition>> {
    let shared = Shared::load(sources)?;
    let pool = Pool::open(&store::Settings::new(shared.database_url()?), Role::Ingest)?;
    let mut active = BTreeMap::new();
    // Oldest revision first: the last one of a name is the active one.
    for applied in store::flows::all(&pool).await? {
        active.insert(applied.flow, applied.document);
    }
    pool.close().await;
    active.iter().map(|(name, document)| stored(name, document)).collect()
}

fn stored(name: &str, document: &str) -> anyhow::Result<Definition> {
    let document = serde_json::from_str(document).with_context(|| format!("reading flow `{name}`"))?;
    Definition::from_document(&document).map_err(|problems| {
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("flow `{name}` cannot be read by this version:\n{}", told.join("\n"))
    })
}

fn shown(diff: &FlowDiff) -> String {
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
    let mut text = format!("{}  {} -> {}\n", diff.flow, version(&diff.old), version(&diff.new));
    for change in &diff.changes {
        text.push_str(&format!("  {change}\n"));
    }
    text
}

fn summary(diffs: &[FlowDiff]) -> String {
    let breaking = diffs.iter().flat_map(|diff| &diff.changes).filter(|change| change.is_breaking).count();
    match (diffs.len(), breaking) {
        (0, _) => "no flow changed".to_owned(),
        (flows, 0) => format!("flows that changed: {flows}; no change is breaking"),
        (flows, breaking) => format!("flows that changed: {flows}; breaking changes: {breaking}"),
    }
}
