//! API keys on the command line, from the first one, which the database makes, to its end.

use std::fs;

use serde_json::{Value, json};

use crate::client::order;
use crate::command_line::meanwhile;
use crate::dev_mode::Dev;
use crate::turn::beside_others;

const FLOW: &str = "flow: greet\nsteps:\n  - { id: call, when: \"{{ false }}\", native: nothing }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_key_makes_others_and_the_log_tells_who_did_what() {
    let _turn = beside_others().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("greet.yaml"), FLOW).unwrap();
    let database_url = test_kit::postgres_database().await;
    let secret = "the secret of this test, 32 bytes";
    let base = [
        ("DATABASE_URL", database_url.as_str()),
        ("MEANWHILE__AUTH__MODE", "required"),
        ("MEANWHILE__AUTH__KEYS_SECRET", secret),
    ];
    let dev = Dev::start_with(folder.path(), &base).await;
    let run = async |arguments: &[&str], key: &str| {
        let of_dev = [("MEANWHILE_URL", dev.api.as_str()), ("SCHEMA_REGISTRY_URL", dev.registry.as_str())];
        let variables = [&base[..], &of_dev, &[("MEANWHILE_API_KEY", key)]].concat();
        meanwhile(arguments, &variables, "").await
    };
    let key_of = |told: &str| told.lines().find(|line| line.starts_with("mw_")).unwrap().to_owned();

    let (code, _, error) = run(&["submit", "greet", "--input", "{}"], "").await;
    assert!(code == Some(1) && error.contains("MEANWHILE_API_KEY"), "{error}");
    let first = ["keys", "create", "admin", "--bootstrap", "--tenant", "acme", "--scope", "operate"];
    let scopes = ["--scope", "jobs:submit", "--scope", "jobs:read"];
    let (code, told, error) = run(&[&first[..], &scopes].concat(), "").await;
    assert_eq!(code, Some(0), "{told}{error}");
    let admin = key_of(&told);
    // One that is given, as a deployment's first key may be, is stored once.
    let given = format!("mw_{}_{}", "a".repeat(16), "b".repeat(64));
    for said in ["is there", "was there already"] {
        let (code, told, _) = run(&[&first[..], &["--key", &given]].concat(), "").await;
        assert!(code == Some(0) && told.contains(said) && !told.contains(&given), "{told}");
    }

    let (code, told, error) =
        run(&["keys", "create", "shop", "--scope", "jobs:submit", "--scope", "jobs:read"], &admin).await;
    assert_eq!(code, Some(0), "{told}{error}");
    let shop = key_of(&told);
    let input = order("c-1", json!({})).to_string();
    let (code, job, error) = run(&["submit", "greet", "--input", &input], &shop).await;
    assert_eq!(code, Some(0), "{error}");
    let (code, _, error) = run(&["keys", "list"], &shop).await;
    assert!(code == Some(1) && error.contains("operate"), "{error}");
    let (_, listed, _) = run(&["keys", "list"], &admin).await;
    assert!(listed.contains("jobs:submit,jobs:read") && listed.contains("admin"), "{listed}");
    let id = &shop[3..19];
    let (code, told, _) = run(&["keys", "revoke", id], &admin).await;
    assert!(code == Some(0) && told.contains("is revoked"), "{told}");
    let (code, _, _) = run(&["jobs", "show", job.trim()], &shop).await;
    assert_eq!(code, Some(1), "a revoked key opens nothing");

    let (_, told, _) = run(&["audit", "--json"], &admin).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    let rows: Vec<Value> =
        told["entries"].as_array().unwrap().iter().map(|entry| json!([entry["action"], entry["status"]])).collect();
    let [made, taken] = [json!(["key.create", 201]), json!(["key.create", 409])];
    assert_eq!(rows, [json!(["key.revoke", 204]), made.clone(), taken, made.clone(), made]);
    let (_, told, _) = run(&["audit", "--action", "job.submit"], &admin).await;
    assert!(told.contains(&format!("key:{id}")) && told.contains(job.trim()), "{told}");
    dev.stop().await;
}
