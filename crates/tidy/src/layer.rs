//! Which of our crates use which: ARCHITECTURE.md has the table, `deny.toml` the doors to foreign crates.

use std::collections::{BTreeMap, BTreeSet};

/// The processes. They talk over Kafka, directly or through the outbox, and never call each other.
const SERVICES: [&str; 5] = ["ingest", "relay", "workers", "orchestrator", "notifier"];
/// Crates with servers and clients for tests, and the only ones that may use them outside of tests.
const FOR_TESTS: [(&str, &[&str]); 2] = [("test-kit", &["bench"]), ("fuzz", &[])];
/// Uses that no table may allow, with the reason.
const NEVER: [(&str, &str, &str); 2] = [
    ("workers", "store", "a worker has one way out, its Kafka transactions"),
    ("relay", "flow", "the relay moves records and does not read them"),
];

/// Each crate and the crates of ours that it may use.
pub type Layers = BTreeMap<String, BTreeSet<String>>;

/// A crate of ours that uses a crate of ours.
#[derive(Debug, Clone)]
pub struct Dependency {
    pub user: String,
    pub used: String,
    /// Used by its tests only.
    pub dev: bool,
}

/// The layers as a document's table `| crate | responsibility | may use |` has them.
pub fn layers(document: &str) -> Layers {
    let rows = document.lines().skip_while(|line| !line.starts_with("| crate |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let row = |cells: Vec<&str>| {
        let used = cells.last()?.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "-");
        Some((cells.first()?.to_string(), used.map(str::to_owned).collect()))
    };
    cells.filter_map(row).collect()
}

/// Differences between the table and the crates, in both directions, and uses that no table may allow.
pub fn wrong_dependencies(layers: &Layers, crates: &[String], dependencies: &[Dependency]) -> Vec<String> {
    let mut findings = vec![];
    for name in crates {
        let Some(allowed) = layers.get(name) else {
            findings.push(format!("{name} has no row in the table of ARCHITECTURE.md"));
            continue;
        };
        let mine = || dependencies.iter().filter(|dependency| dependency.user == *name);
        for Dependency { used, dev, .. } in mine() {
            let for_tests = *dev && FOR_TESTS.iter().any(|(kit, _)| kit == used);
            if used != name && !for_tests && !allowed.contains(used) {
                findings.push(format!("{name} uses {used}, which its row in ARCHITECTURE.md does not allow"));
            }
        }
        let unused = allowed.iter().filter(|allowed| !mine().any(|dependency| dependency.used == **allowed));
        findings.extend(unused.map(|unused| format!("{name} does not use {unused}, which its row allows")));
    }
    findings.extend(dependencies.iter().filter_map(forbidden));
    findings
}

fn forbidden(Dependency { user, used, dev }: &Dependency) -> Option<String> {
    let is_service = |name: &String| SERVICES.contains(&name.as_str());
    if is_service(user) && is_service(used) && user != used {
        return Some(format!("{user} must not use {used}: services never use services"));
    }
    let for_tests = FOR_TESTS.iter().find(|(kit, users)| kit == used && !users.contains(&user.as_str()));
    if !dev && for_tests.is_some() {
        return Some(format!("{user} must not use {used} outside of tests"));
    }
    let never = NEVER.iter().find(|(never, of, _)| never == user && of == used);
    never.map(|(_, _, reason)| format!("{user} must not use {used}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Text.\n| crate | for | may use |\n| --- | --- | --- |\n| flow | x | - |\n\
                         | bus | x | flow |\n| ingest | x | bus, workers |\n\
                         | workers | x | bus, store |\n| store | x | - |\n\n| other | x |";

    fn check(user: &str, dependencies: &[(&str, bool)]) -> Vec<String> {
        let dependency =
            |(used, dev): &(&str, bool)| Dependency { user: user.to_owned(), used: (*used).to_owned(), dev: *dev };
        let dependencies: Vec<_> = dependencies.iter().map(dependency).collect();
        wrong_dependencies(&layers(TABLE), &[user.to_owned()], &dependencies)
    }

    #[test]
    fn the_table_ends_where_it_ends() {
        let layers = layers(TABLE);
        assert_eq!(layers.len(), 5, "{layers:?}");
        assert_eq!(layers["ingest"], ["bus", "workers"].map(str::to_owned).into());
    }

    #[test]
    fn a_use_that_the_table_does_not_have_is_found_in_tests_too() {
        assert!(check("bus", &[("flow", false)]).is_empty());
        assert_eq!(check("bus", &[("flow", false), ("store", false)]).len(), 1);
        assert_eq!(check("bus", &[("flow", false), ("store", true)]).len(), 1);
    }

    #[test]
    fn a_row_that_allows_more_than_is_used_is_found() {
        assert_eq!(check("bus", &[]), ["bus does not use flow, which its row allows"]);
    }

    #[test]
    fn a_service_that_uses_a_service_is_found_whatever_the_table_says() {
        let findings = check("ingest", &[("bus", false), ("workers", true)]);
        assert_eq!(findings, ["ingest must not use workers: services never use services"]);
    }

    #[test]
    fn a_worker_that_knows_postgres_is_found_whatever_the_table_says() {
        assert_eq!(check("workers", &[("bus", false), ("store", false)]).len(), 1);
    }

    #[test]
    fn the_test_kit_outside_of_tests_is_found() {
        assert_eq!(check("store", &[("test-kit", false)]).len(), 2);
        assert!(check("store", &[("test-kit", true)]).is_empty());
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(check("novel", &[]).len(), 1);
    }
}
