//! Who may use whom, and which crate is the door to which technology.

/// Our crates: name, and what it may use of ours.
const LAYERS: &[(&str, &[&str])] = &[
    ("flow", &[]),
    ("events", &["flow"]),
    ("bus", &["flow", "events"]),
    ("store", &["flow", "events"]),
    ("service-kit", &["flow", "events"]),
    ("inbox", &["flow", "events", "bus", "store", "service-kit"]),
    ("ingest", SHARED),
    ("relay", SHARED),
    ("workers", SHARED),
    ("orchestrator", SHARED),
    ("notifier", SHARED),
    ("dev", SHARED),
    ("meanwhile", ANY),
    ("shop", &[]),
    ("test-kit", SHARED),
    ("e2e", ANY),
    ("bench", ANY),
    ("tidy", &["events"]),
];

/// What every service may use.
const SHARED: &[&str] = &["flow", "events", "bus", "store", "service-kit", "inbox"];
/// The top: it may use every crate.
const ANY: &[&str] = &["*"];

/// Foreign crates that only these crates may use, in tests too.
const DOORS: &[(&str, &[&str])] = &[
    ("apache-avro", &["events"]),
    ("clap", &["meanwhile", "bench", "shop"]),
    ("metrics-exporter-prometheus", &["service-kit"]),
    ("minijinja", &["flow"]),
    ("opentelemetry", &["service-kit"]),
    ("opentelemetry-otlp", &["service-kit"]),
    ("opentelemetry_sdk", &["service-kit"]),
    ("pgwire-replication", &["relay"]),
    ("rdkafka", &["bus"]),
    ("schema_registry_converter", &["bus"]),
    ("sqlx", &["store"]),
    ("tracing-opentelemetry", &["service-kit"]),
    ("tracing-subscriber", &["service-kit"]),
];

/// One line of a Cargo.toml.
#[derive(Debug, Clone)]
pub struct Dependency {
    /// The crate whose Cargo.toml it is.
    pub user: String,
    /// What it uses.
    pub used: String,
    /// Used by its tests only.
    pub dev: bool,
}

/// Dependencies that go against the layers or around the doors, and crates that have no layer.
pub fn wrong_dependencies(crates: &[String], dependencies: &[Dependency]) -> Vec<String> {
    let mut findings = vec![];
    for name in crates {
        if !LAYERS.iter().any(|(layer, _)| layer == name) {
            findings.push(format!("{name} has no layer: give it one in crates/tidy/src/layer.rs"));
        }
    }
    for Dependency { user, used, dev } in dependencies {
        let ours = LAYERS.iter().any(|(name, _)| name == used);
        let allowed = LAYERS.iter().find(|(name, _)| name == user).map_or(&[][..], |(_, allowed)| allowed);
        let by_layer = allowed.contains(&used.as_str()) || allowed == ANY;
        let by_test = *dev && (used == "test-kit" || used == user);
        if ours && !by_layer && !by_test {
            findings.push(format!("{user} must not use {used}: it may use {allowed:?}"));
        }
        if let Some((_, users)) = DOORS.iter().find(|(foreign, _)| foreign == used)
            && !users.contains(&user.as_str())
        {
            findings.push(format!("{user} must not use {used}: the door to it is {}", users.join(", ")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(user: &str, used: &str, dev: bool) -> Vec<String> {
        let dependency = Dependency { user: user.to_owned(), used: used.to_owned(), dev };
        wrong_dependencies(&[user.to_owned()], &[dependency])
    }

    #[test]
    fn a_service_that_uses_a_service_is_found_in_tests_too() {
        assert_eq!(check("ingest", "workers", false).len(), 1);
        assert_eq!(check("ingest", "workers", true).len(), 1);
        assert!(check("meanwhile", "workers", false).is_empty());
    }

    #[test]
    fn a_dependency_upwards_is_found() {
        assert_eq!(check("flow", "events", false).len(), 1);
        assert!(check("events", "flow", false).is_empty());
    }

    #[test]
    fn the_test_kit_outside_of_tests_is_found() {
        assert_eq!(check("store", "test-kit", false).len(), 1);
        assert!(check("store", "test-kit", true).is_empty());
    }

    #[test]
    fn a_way_around_a_door_is_found() {
        assert_eq!(check("ingest", "sqlx", false), ["ingest must not use sqlx: the door to it is store"]);
        assert_eq!(check("ingest", "sqlx", true).len(), 1);
        assert!(check("store", "sqlx", false).is_empty());
    }

    #[test]
    fn a_crate_without_a_layer_is_found() {
        assert_eq!(wrong_dependencies(&["novel".to_owned()], &[]).len(), 1);
    }
}
