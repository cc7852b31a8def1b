//! Flows are read again when a flow changes, or a schema beside it. Other files are nobody's business: its own log may
//! lie there.
//!
//! Always holds: a flow that does not lint changes nothing; the versions before it stay active.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flow::definition::Definition;
use setup::{Target, files};
use tokio::time::MissedTickBehavior;

/// The interval at which the folder is read. A change counts once two looks are equal: no half-written file is read.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The files of a folder that flows are made of, with the time of their last change and their length.
type Snapshot = BTreeMap<PathBuf, (SystemTime, u64)>;

/// Watches a folder of flows, or one flow's file with what lies beside it.
pub(super) struct Reload {
    path: PathBuf,
    target: Target,
    /// The flows that are active.
    names: BTreeSet<String>,
    /// The folder as it was when it was read last.
    read: Snapshot,
}

impl Reload {
    pub(super) fn new(path: &Path, definitions: &[Definition], target: Target) -> Self {
        Self { path: path.to_owned(), target, names: names(definitions), read: snapshot(path) }
    }

    pub(super) async fn watch(mut self) -> Infallible {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = self.read.clone();
        loop {
            looks.tick().await;
            let now = snapshot(&self.path);
            if now != self.read && now == before {
                self.read_again().await;
                self.read.clone_from(&now);
            }
            before = now;
        }
    }

    #[expect(clippy::print_stdout, reason = "tells the person at the terminal")]
    async fn read_again(&mut self) {
        match self.apply().await {
            Ok(lines) => println!("\n{lines}"),
            Err(error) => println!("\nerror: {error:#}"),
        }
    }

    async fn apply(&mut self) -> anyhow::Result<String> {
        let definitions = files::read_clean(&self.path, "were not applied; the versions before stay active")?;
        let applied = self.target.apply_flows(&definitions).await?;
        let mut lines: Vec<String> = vec![];
        for flow in applied.flows.iter().filter(|flow| flow.is_new) {
            lines.push(format!("reloaded  {} {} (jobs under way stay on their version)", flow.flow, flow.version));
        }
        let now = names(&definitions);
        for gone in self.names.difference(&now) {
            lines.push(format!("flow {gone} has no file any more; it can be called until `meanwhile dev` ends"));
        }
        if lines.is_empty() {
            lines.push("reloaded  no flow has changed".to_owned());
        }
        self.names = now;
        Ok(lines.join("\n"))
    }
}

fn names(definitions: &[Definition]) -> BTreeSet<String> {
    definitions.iter().map(|flow| flow.name().to_owned()).collect()
}

/// A folder that cannot be read is empty: reading the flows then tells why.
fn snapshot(path: &Path) -> Snapshot {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| files::is_part(&entry.path()))
        .filter_map(|entry| {
            // Through links: a flow may be one.
            let metadata = fs::metadata(entry.path()).ok()?;
            metadata.is_file().then(|| Some((entry.path(), (metadata.modified().ok()?, metadata.len()))))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flows_and_their_schemas_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("order.yaml", "flow: order");
        let before = snapshot(folder.path());
        for other in ["dev.log", "order.test.yaml", "README.md", "order.yaml~"] {
            write(other, "more and more");
            assert_eq!(snapshot(folder.path()), before, "{other}");
        }
        for part in ["order.yaml", "other.yml", "order.schema.json"] {
            let before = snapshot(folder.path());
            write(part, "flow: another");
            assert_ne!(snapshot(folder.path()), before, "{part}");
            assert_ne!(snapshot(&folder.path().join("order.yaml")), before, "{part}");
        }
    }
}
