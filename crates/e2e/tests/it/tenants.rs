//! All that belongs to a tenant, on the command line: it is told, and it goes, though jobs of it run.

use std::fs;

use serde_json::{Value, json};
use test_kit::{eventually, psql};

use crate::command_line::meanwhile;
use crate::dev_mode::Dev;
use crate::stage::PATIENCE;
use crate::turn::beside_others;

const FLOWS: [(&str, &str); 2] = [
    ("greet", "flow: greet\nsteps:\n  - { id: call, when: \"{{ false }}\", native: nothing }\n"),
    ("rest", "flow: rest\nsteps:\n  - { id: rest, sleep: 300d }\n"),
];

async fn until_resting(database_url: &str, jobs: &str) {
    eventually(PATIENCE, "they rest", async || {
        let resting = psql(database_url, "select count(*) from orchestrator.holds").unwrap();
        (resting.trim() == jobs).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_is_exported_and_deleted_with_the_jobs_that_run() {
    let _turn = beside_others().await;
    let folder = tempfile::tempdir().unwrap();
    FLOWS.iter().for_each(|(name, flow)| fs::write(folder.path().join(format!("{name}.yaml")), flow).unwrap());
    let database_url = test_kit::postgres_database().await;
    let prefix = test_kit::prefix();
    let base = [
        ("DATABASE_URL", database_url.as_str()),
        ("MEANWHILE__AUTH__MODE", "required"),
        // A slot of its own in the shared Postgres.
        ("MEANWHILE__TOPICS__PREFIX", prefix.as_str()),
    ];
    let dev = Dev::start_with(folder.path(), &base).await;
    let of_dev = [("MEANWHILE_URL", dev.api.as_str()), ("SCHEMA_REGISTRY_URL", dev.registry.as_str())];
    let run = async |arguments: &[&str], key: &str| {
        let variables = [&base[..], &of_dev, &[("MEANWHILE_API_KEY", key)]].concat();
        meanwhile(arguments, &variables, "").await
    };
    let key = async |tenant: &str| {
        let scopes = ["--scope", "jobs:submit", "--scope", "jobs:read", "--scope", "operate"];
        let make = ["keys", "create", "k", "--bootstrap", "--tenant", tenant];
        let (code, told, error) = run(&[&make[..], &scopes].concat(), "").await;
        assert_eq!(code, Some(0), "{told}{error}");
        told.lines().find(|line| line.starts_with("mw_")).unwrap().to_owned()
    };
    let [acme, other] = [key("acme").await, key("other").await];
    let mut jobs = Vec::new();
    for (key, flow) in [(&acme, "greet"), (&acme, "rest"), (&acme, "rest"), (&other, "rest")] {
        let (code, told, error) = run(&["submit", flow, "--input", "{\"of\":\"me\"}"], key).await;
        assert_eq!(code, Some(0), "{error}");
        jobs.push(told.trim().to_owned());
    }
    until_resting(&database_url, "3").await;

    let (code, told, error) = run(&["tenants", "export", "acme"], "").await;
    assert_eq!(code, Some(0), "{error}");
    let rows: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let inputs: Vec<&Value> = rows.iter().filter(|row| row["table"] == "ingest.acceptances").collect();
    assert_eq!(inputs.len(), 3, "{told}");
    assert!(inputs.iter().all(|row| row["row"]["input"] == json!("{\"of\":\"me\"}")), "{told}");
    assert!(jobs[..3].iter().all(|job| told.contains(job)) && !told.contains(&jobs[3]), "{told}");

    let (code, _, error) = run(&["tenants", "delete", "acme"], "").await;
    assert!(code == Some(1) && error.contains("--yes"), "{error}");
    let (code, _, error) = run(&["tenants", "delete", "default", "--yes"], "").await;
    assert!(code == Some(1) && error.contains("the deployment's own"), "{error}");
    let (code, told, error) = run(&["tenants", "delete", "acme", "--yes", "--wait", "5m"], "").await;
    assert_eq!(code, Some(0), "{told}{error}");
    assert!(told.contains("all data of acme is deleted"), "{told}");
    assert!(error.contains("2 jobs are to be cancelled") && error.contains("ingest.acceptances: 3 rows"), "{error}");

    let (_, told, _) = run(&["tenants", "export", "acme"], "").await;
    let left: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stays = ["ingest.audit", "ingest.audit_results", "ingest.tenants"];
    assert!(left.iter().all(|row| stays.contains(&row["table"].as_str().unwrap())), "{told}");
    assert!(left.iter().any(|row| row["row"]["action"] == "tenant.delete"), "{told}");
    let (code, _, error) = run(&["jobs", "show", &jobs[0]], &acme).await;
    assert!(code == Some(1) && error.contains("401"), "{error}");
    let again = key("acme").await;
    eventually(PATIENCE, "a new key opens nothing either", async || {
        let (_, _, error) = run(&["jobs", "show", &jobs[0]], &again).await;
        error.contains("403").then_some(())
    })
    .await;
    let (code, told, error) = run(&["jobs", "show", &jobs[3]], &other).await;
    assert!(code == Some(0) && told.contains("waiting"), "{told}{error}");
    let (_, told, _) = run(&["tenants", "list"], "").await;
    assert!(told.lines().any(|line| line.starts_with("acme") && line.matches("20").count() >= 2), "{told}");
    dev.stop().await;
}
