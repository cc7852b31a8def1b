//! Callers of every kind against a sandbox (`examples/sandbox`): whatever the contract allows and more, clients that
//! generators have made of it, and a browser.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use flow::event::JobStatus;
use serde_json::{Value, json};
use test_kit::{TestSystem, eventually, http_client, repository, run, tool_path};

use crate::client::send;
use crate::stage::PATIENCE;
use crate::turn::{beside_others, nearly_alone};

/// All roles, and no service: the calls of the flow are simulated.
async fn sandbox() -> TestSystem {
    TestSystem::builder().flows(repository().join("examples/sandbox")).start().await.unwrap()
}

async fn wait_for(policy: Value, system: &TestSystem) -> crate::client::Seen {
    let request = http_client().post(format!("{}/policies", system.api())).header("prefer", "wait=30");
    send(request.json(&policy)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_of_a_sandbox_can_ask_for_each_outcome_and_no_service_is_there() {
    let _turn = beside_others().await;
    let mut system = sandbox().await;
    let of = |holder: &str| json!({ "holder": holder, "cents": 1200 });
    let insured = wait_for(of("ann"), &system).await;
    assert_eq!(insured.status, 200, "{insured:?}");
    assert!(insured.body["bill"].as_str().unwrap().starts_with("bill-"), "{insured:?}");
    for (holder, status, code, undone) in [
        ("refused", 422, "step-failed", json!([])),
        ("broke", 502, "step-failed", json!(["underwrite"])),
        ("lost", 502, "timed-out", json!(["bill", "underwrite"])),
    ] {
        let seen = wait_for(of(holder), &system).await;
        assert_eq!((seen.status, seen.problem()), (status, "step-failed"), "{holder}: {seen:?}");
        assert_eq!((&seen.body["code"], &seen.body["undone"]), (&json!(code), &undone), "{holder}: {seen:?}");
    }
    let unlucky = wait_for(of("unlucky"), &system).await;
    assert_eq!(unlucky.status, 200, "{unlucky:?}");

    // A long latency leaves its partition: others of the same key go on behind it, and its own job ends in time.
    let slow = system.submit("policy", "slow", &of("slow")).await.unwrap();
    let ends = system.wait_until_ended([slow], PATIENCE).await.unwrap();
    assert_eq!(ends[&slow].status, JobStatus::Succeeded);
    assert!(ends[&slow].at_ms >= ends[&slow].accepted_at_ms + 7_000, "{:?}", ends[&slow]);
    let told = system.client().events(&slow.to_string(), None).await.unwrap().events;
    assert!(told.iter().any(|event| event.kind == "step.running"), "{told:?}");

    let status = system.status(slow).await.unwrap();
    assert_eq!(status["sandbox"], true, "{status}");
    let api = send(http_client().get(format!("{}/openapi.json", system.api()))).await.body;
    let operation = &api["paths"]["/policies"]["post"];
    assert_eq!(operation["x-sandbox"], true);
    assert!(operation["description"].as_str().unwrap().contains("It is a sandbox"), "{operation}");
    system.finish(PATIENCE).await.unwrap();
}

fn python() -> (PathBuf, PathBuf) {
    let packages = tool_path("callers-python").unwrap();
    (packages.clone(), packages.join("bin"))
}

/// Runs a command in a folder to its end, and shows all that it says if it fails.
async fn succeeds(mut command: Command, folder: &Path) -> String {
    command.current_dir(folder);
    tokio::task::spawn_blocking(move || {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?} ended with {}:\n{said}\n{error}", output.status);
        said
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_contract_allows_or_forbids_is_answered_as_it_says() {
    let _turn = nearly_alone().await;
    let builder = TestSystem::builder().flows(repository().join("examples/sandbox")).callbacks();
    // It asks for waits of any length, a thousand times.
    let mut system = builder.variable("MEANWHILE__INGEST__WAIT_MAX_S", "1").start().await.unwrap();
    let (packages, programs) = python();
    let settings = repository().join("scripts/tools/callers");
    let folder = tempfile::tempdir().unwrap();
    let mut asked = Command::new("python3");
    asked.arg(programs.join("st")).arg("--config-file").arg(settings.join("schemathesis.toml"));
    asked.args(["run", &format!("{}/openapi.json", system.api()), "--no-color"]);
    asked.env("PYTHONPATH", std::env::join_paths([&packages, &settings]).unwrap());
    asked.env("PYTHONDONTWRITEBYTECODE", "1").env("SCHEMATHESIS_HOOKS", "schemathesis_hooks");
    let said = succeeds(asked, folder.path()).await;
    println!("{}", said.lines().rev().take(12).collect::<Vec<_>>().join("\n"));
    // It has asked for every operation, and nobody has died of it.
    let all = said.lines().find(|line| line.contains("Operations:")).unwrap_or_default().to_owned();
    assert!(all.contains("selected /"), "{said}");
    for process in system.roles() {
        assert!(process.process().is_alive(), "{}: {}", process.role().as_str(), process.process().log_tail());
    }
    // Some wait for a time that is far away.
    for status in ["accepted", "running", "compensating"] {
        let url = format!("{}/v1/jobs?limit=1&status={status}", system.api());
        let none_is = async || (send(http_client().get(&url)).await.body["jobs"] == json!([])).then_some(());
        eventually(PATIENCE, &format!("no job is {status}"), none_is).await;
    }
    system.finish_as_it_is().await.unwrap();
}

/// A folder with the scripts of `callers/` and the contract as it is served.
async fn workshop(system: &TestSystem) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let scripts = repository().join("crates/e2e/callers");
    for script in fs::read_dir(scripts).unwrap() {
        let script = script.unwrap();
        fs::copy(script.path(), folder.path().join(script.file_name())).unwrap();
    }
    let api = http_client().get(format!("{}/openapi.json", system.api())).send().await.unwrap();
    fs::write(folder.path().join("openapi.json"), api.bytes().await.unwrap()).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_that_a_generator_has_made_runs_a_job_to_its_end() {
    let _turn = beside_others().await;
    let system = sandbox().await;
    let folder = workshop(&system).await;
    let (packages, programs) = python();
    let with = |mut command: Command| {
        command.env("PYTHONPATH", &packages).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    };
    let mut generate = Command::new("python3");
    generate.arg(programs.join("openapi-python-client")).args(["generate", "--path", "openapi.json"]);
    generate.args(["--meta", "none", "--output-path", "generated"]);
    succeeds(with(generate), folder.path()).await;
    // Every module of it is Python, also those that the script does not use.
    let mut compile = Command::new("python3");
    compile.args(["-m", "compileall", "-q", "generated"]);
    succeeds(compile, folder.path()).await;
    let mut policy = Command::new("python3");
    policy.args(["policy.py", &system.api()]);
    assert_eq!(succeeds(with(policy), folder.path()).await, "python: ok\n");
    system.finish(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typescript_client_that_a_generator_has_made_runs_a_job_to_its_end() {
    let _turn = beside_others().await;
    let system = sandbox().await;
    let folder = workshop(&system).await;
    let (node, packages) = (tool_path("node").unwrap(), tool_path("callers").unwrap().join("node_modules"));
    std::os::unix::fs::symlink(&packages, folder.path().join("node_modules")).unwrap();
    fs::write(folder.path().join("package.json"), r#"{"type":"module"}"#).unwrap();
    let script = |path: &str, arguments: &[&str]| {
        let mut command = Command::new(&node);
        command.arg(path).args(arguments);
        command
    };
    let generate = "node_modules/openapi-typescript/bin/cli.js";
    succeeds(script(generate, &["openapi.json", "-o", "api.d.ts"]), folder.path()).await;
    succeeds(script("node_modules/typescript/bin/tsc", &["-p", "."]), folder.path()).await;
    assert_eq!(succeeds(script("out/policy.js", &[&system.api()]), folder.path()).await, "typescript: ok\n");
    system.finish(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_runs_an_example_of_docs_and_follows_its_job_to_the_end() {
    let _turn = beside_others().await;
    let mut system = sandbox().await;
    let script = repository().join("crates/e2e/callers/browser.mjs");
    let (api, node, chromium) = (system.api(), tool_path("node").unwrap(), tool_path("chromium").unwrap());
    let mut browse = Command::new(node);
    browse.arg("--experimental-websocket").arg(script).arg(chromium).arg(&api);
    let said = tokio::task::spawn_blocking(move || run(&mut browse).unwrap()).await.unwrap();
    let seen: BTreeMap<String, Value> = serde_json::from_str(&said).unwrap();
    assert!(seen["status"].as_str().unwrap().starts_with("202 Accepted"), "{said}");
    assert_eq!(seen["types"], json!(["job.accepted", "step.succeeded", "step.succeeded", "job.succeeded"]), "{said}");
    let cursors: Vec<i64> = seen["cursors"].as_array().unwrap().iter().map(number).collect();
    assert!(cursors.len() == 4 && cursors.is_sorted_by(|one, next| one < next), "{said}");
    system.note_accepted([seen["job"].as_str().unwrap().parse().unwrap()]);
    system.finish(PATIENCE).await.unwrap();
}

fn number(cursor: &Value) -> i64 {
    cursor.as_str().unwrap().parse().unwrap()
}
