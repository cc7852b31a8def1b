//! The real binary tells mistakes so that people can mend them, and nothing has changed meanwhile.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "set-up of a test: a failure is the test's")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use test_kit::{kafka, postgres_database, prefix, psql, registry};

/// The exit code for a configuration that cannot be used (sysexits.h).
const EXIT_CONFIG: i32 = 78;
/// Only ends a process that should have refused to start, s.
const PATIENCE_S: &str = "60";
const ROLES: [&str; 5] = ["ingest", "relay", "workers", "orchestrator", "notifier"];
/// Complete, and nobody is there: who gets past it tries to connect.
const COMPLETE: [(&str, &str); 3] = [
    ("DATABASE_URL", "postgres://meanwhile@127.0.0.1:1/meanwhile"),
    ("KAFKA_BROKERS", "127.0.0.1:1"),
    ("SCHEMA_REGISTRY_URL", "http://127.0.0.1:1"),
];

const ANY_PORT: (&str, &str) = ("MEANWHILE_LISTEN", "127.0.0.1:0");

struct Ended {
    code: Option<i32>,
    told: String,
}

/// Runs the binary with these variables and no others, until it ends.
fn meanwhile(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE_S).arg(env!("CARGO_BIN_EXE_meanwhile")).args(arguments);
    let path = std::env::var("PATH").unwrap_or_default();
    let output = command.env_clear().env("PATH", path).envs(variables.iter().copied()).output().unwrap();
    Ended { code: output.status.code(), told: String::from_utf8_lossy(&output.stderr).into_owned() }
}

/// The complete settings and a port of its own, with some on top.
fn complete_and<'text>(more: &[(&'text str, &'text str)]) -> Vec<(&'text str, &'text str)> {
    COMPLETE.iter().chain(&[ANY_PORT]).chain(more).copied().collect()
}

#[test]
fn a_role_without_what_it_needs_names_the_variable_and_shows_an_example() {
    for role in ROLES.iter().chain(&["migrate", "all"]) {
        for (missing, _) in COMPLETE {
            if *role == "workers" && missing == "DATABASE_URL" {
                continue;
            }
            let others: Vec<_> = COMPLETE.into_iter().filter(|(name, _)| *name != missing).collect();
            let mut variables = vec![ANY_PORT];
            variables.extend(others);
            let Ended { code, told } = meanwhile(&[role], &variables);
            assert_eq!(code, Some(EXIT_CONFIG), "{role} without {missing}: {told}");
            assert!(told.starts_with(&format!("error: {missing} is not set: the ")), "{role}: {told}");
            assert!(told.contains(&format!("for example {missing}=")), "{role}: {told}");
        }
    }
}

#[test]
fn a_wrong_value_names_its_variable_and_what_is_accepted() {
    for (variable, value, accepted) in [
        ("DATABASE_URL", "db.example.com", "a URL such as postgres://user:password@host:5432/database"),
        ("KAFKA_BROKERS", "http://kafka:9092", "host:port, several separated by commas"),
        ("SCHEMA_REGISTRY_URL", "registry:8081", "a URL such as http://localhost:8081"),
        ("MEANWHILE_LISTEN", "8080", "host:port, such as 127.0.0.1:8080 or 0.0.0.0:8080"),
        ("MEANWHILE_LOG", "verbose", "error, warn, info, debug, trace or off"),
        ("MEANWHILE__LOG__FORMAT", "xml", "one of `auto`, `pretty`, `json`"),
        ("MEANWHILE__TOPICS__PREFIX", "team a", "letters, digits"),
        ("MEANWHILE__RELAY__TRANSACTION_ROWS_MAX", "many", "an integer"),
        ("MEANWHILE__RELAY__TRANSACTION_ROWS_MAX", "-1", "a whole number from 0"),
        ("MEANWHILE__RELAY__TRANSACTON_ROWS_MAX", "1", "did you mean `transaction_rows_max`?"),
        ("MEANWHILE__RELY__TRANSACTION_ROWS_MAX", "1", "did you mean `relay`?"),
        ("MEANWHILE__KAFKA__SECURITY_PROTOCOL", "tls", "`security.protocol`"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "a URL such as http://localhost:4318"),
        ("HTTP_PROXY", "socks5://127.0.0.1:1080", "a URL such as http://proxy.example.com:3128"),
        ("OTEL_TRACES_SAMPLER", "most", "one of always_on, always_off,"),
        ("MEANWHILE_CONFIG", "/nowhere/meanwhile.toml", "No such file"),
    ] {
        let Ended { code, told } = meanwhile(&["relay"], &complete_and(&[(variable, value)]));
        assert_eq!(code, Some(EXIT_CONFIG), "{variable}={value}: {told}");
        assert!(told.contains(variable) && told.contains(accepted), "{variable}={value}: {told}");
    }
}

#[test]
fn a_port_in_use_is_named_with_the_variable_to_change() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for role in ROLES {
        let Ended { code, told } = meanwhile(&[role], &complete_and(&[("MEANWHILE_LISTEN", &address)]));
        assert_eq!(code, Some(1), "{role}: {told}");
        assert!(told.contains(&format!("cannot listen on {address};")), "{role}: {told}");
        assert!(told.contains("MEANWHILE_LISTEN") && told.contains("in use"), "{role}: {told}");
    }
}

#[test]
fn a_folder_of_flows_that_is_not_there_names_the_variable() {
    let Ended { code, told } = meanwhile(&["migrate"], &complete_and(&[("MEANWHILE_FLOWS", "/nowhere/flows")]));
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("MEANWHILE_FLOWS=/nowhere/flows") && told.contains("there is no /nowhere/flows"), "{told}");
}

/// A folder with these flows; `$ref`s are theirs to avoid.
fn write_flows(folder: &Path, flows: &[(&str, &str)]) {
    for (file, text) in flows {
        fs::write(folder.join(file), text).unwrap();
    }
}

/// A flow of one step that calls this.
fn flow(name: &str, url: &str) -> String {
    format!(
        "flow: {name}\nsummary: Knock\ninput: {{ type: object }}\nsteps:\n  - id: knock\n    http:\n      \
         method: POST\n      url: \"{{{{ env.SERVICE_URL }}}}/{url}\"\n"
    )
}

#[tokio::test]
async fn a_flow_that_does_not_lint_stops_migrate_and_leaves_the_running_version() {
    let (database, brokers, registry) = (postgres_database().await, kafka().await, registry().await);
    let folder = tempfile::tempdir().unwrap();
    let (flows, prefix) = (folder.path().display().to_string(), prefix());
    let variables = [
        ("DATABASE_URL", database.as_str()),
        ("KAFKA_BROKERS", &brokers),
        ("SCHEMA_REGISTRY_URL", &registry),
        ("MEANWHILE__TOPICS__PREFIX", &prefix),
        ("MEANWHILE_FLOWS", &flows),
    ];
    let state = || {
        let sql = "select (select string_agg(concat_ws(' ', flow, version, revision), ', ' order by revision)
                           from ingest.flows), (select count(*) from outbox.messages)";
        psql(&database, sql).unwrap()
    };
    let misspelt = flow("order", "pay").replace("method:", "metod:");

    write_flows(folder.path(), &[("order.yaml", &misspelt)]);
    let Ended { code, told } = meanwhile(&["migrate"], &variables);
    assert_eq!(code, Some(1), "{told}");
    let schemas = psql(&database, "select count(*) from pg_namespace where nspname in ('ingest', 'outbox')").unwrap();
    assert_eq!(schemas, "0", "nothing is created for a flow that cannot run");

    write_flows(folder.path(), &[("order.yaml", &flow("order", "pay"))]);
    let Ended { code, told } = meanwhile(&["migrate"], &variables);
    assert_eq!(code, Some(0), "{told}");
    let running = state();
    assert!(running.starts_with("order "), "{running}");

    // A good change beside a bad one: neither is applied.
    write_flows(folder.path(), &[("another.yaml", &flow("another", "fine")), ("order.yaml", &misspelt)]);
    let Ended { code, told } = meanwhile(&["migrate"], &variables);
    assert_eq!(code, Some(1), "{told}");
    for part in [&format!("--> {flows}/order.yaml:7:"), "metod", "did you mean `method`?", "nothing was changed"] {
        assert!(told.contains(part), "not told: {part}\n{told}");
    }
    assert_eq!(state(), running);

    write_flows(folder.path(), &[("order.yaml", &flow("order", "pay-later"))]);
    let Ended { code, told } = meanwhile(&["migrate"], &variables);
    assert_eq!(code, Some(0), "{told}");
    assert_ne!(state(), running);
}
