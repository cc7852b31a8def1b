//! The flows of the repository.

use std::fs;
use std::path::{Path, PathBuf};

use prove::{FlowFile, Options, Proof, prove, read_cases, run_cases};

use super::{found, proved};

const SHOP: [&str; 3] = ["order", "preorder", "dropship"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn file(path: &str) -> FlowFile {
    let path = root().join(path);
    let folder = path.parent().unwrap();
    let mut resolve = |name: &str| serde_json::from_str(&read(&folder.join(name))).map_err(|error| error.to_string());
    FlowFile::parse(&path.display().to_string(), &read(&path), &mut resolve).unwrap()
}

fn proof(path: &str) -> Proof {
    prove(&file(path), &Options::default(), &mut |_| {}).unwrap()
}

#[test]
fn the_shops_flows_are_proved() {
    for name in SHOP {
        let proof = proof(&format!("flows/{name}.yaml"));
        let findings: Vec<String> = proof.findings.iter().map(ToString::to_string).collect();
        assert!(proof.is_proved(), "{name}: {}", findings.join("\n\n"));
        assert_eq!(proof.assumed, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_flows_of_the_whole_system_tests_are_proved() {
    for path in ["crates/e2e/flows/saga.yaml", "crates/e2e/flows/patient.yaml"] {
        let proof = proof(path);
        assert!(proof.is_proved(), "{path}: {:?}", found(&proof));
    }
}

#[test]
fn the_cases_of_the_shops_flows_are_as_expected() {
    for name in SHOP {
        let (flow, cases) = (file(&format!("flows/{name}.yaml")), format!("flows/{name}.test.yaml"));
        let cases = read_cases(&cases, &read(&root().join(&cases)), &flow).unwrap();
        for report in run_cases(&flow, &cases) {
            let told: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
            assert!(told.is_empty(), "{name}: {}: {}", report.name, told.join("\n"));
        }
        assert!(cases.cases.len() > 3, "{name}");
    }
}

#[test]
fn a_sandbox_is_proved_as_the_flow_that_it_becomes_and_its_cases_take_its_own_answers() {
    let flow = file("examples/sandbox/policy.yaml");
    assert!(!flow.definition.is_sandbox());
    let proof = proof("examples/sandbox/policy.yaml");
    assert!(proof.is_proved(), "{:?}", found(&proof));
    let name = "examples/sandbox/policy.test.yaml";
    let cases = read_cases(name, &read(&root().join(name)), &flow).unwrap();
    assert_eq!(cases.cases.len(), 5);
    for report in run_cases(&flow, &cases) {
        let told: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
        assert!(told.is_empty(), "{}: {}", report.name, told.join("\n"));
    }
}

#[test]
fn a_flow_of_ten_steps_has_some_thousands_of_states() {
    let proof = proved(&ten_steps());
    println!("{} states", proof.states);
    assert!(proof.is_proved(), "{:?}", found(&proof));
    assert!((1_000..100_000).contains(&proof.states), "{}", proof.states);
}

/// Ten steps with deadline, compensations, retries and three conditions.
fn ten_steps() -> String {
    let mut text = "flow: ten
deadline: 1h
input:
  type: object
  required: [n, gift]
  properties: { n: { type: integer, minimum: 1 }, gift: { type: boolean } }
steps:
"
    .to_owned();
    for step in 1..=10 {
        text.push_str(&format!(
            "  - id: s{step}
    http: {{ method: POST, url: \"http://s{step}/x\", fail_on: [402] }}
    compensate:
      http:
        method: DELETE
        url: \"http://s{step}/{{{{ steps.s{step}.output.id | default(step.idempotency_key) }}}}\"
"
        ));
        match step {
            3 => text.push_str("    when: \"{{ input.n > 1000 }}\"\n"),
            5 => text.push_str("    when: \"{{ input.gift }}\"\n"),
            7 => text.push_str("    when: \"{{ steps.s6.output.risk == 'high' }}\"\n"),
            _ => {}
        }
    }
    text
}
