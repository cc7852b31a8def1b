//! `meanwhile flows prove` and `flows test` as a person or a CI job calls them: no server is there.

#![expect(clippy::unwrap_used, reason = "set-up of a test: a failure is the test's")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The exit code, the answer, and what else was told.
fn meanwhile(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_meanwhile")).arg("flows").args(arguments).env_clear().output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

const MAIL: &str = "flow: mail
steps:
  - id: mail
    http: { method: POST, url: \"http://mail/x\" }
  - id: pay
    http: { method: POST, url: \"http://pay/x\", fail_on: [402] }
    compensate: { http: { method: POST, url: \"http://pay/undo\" } }
";

#[test]
fn the_examples_are_proved_and_their_cases_are_as_expected() {
    let flows = root().join("flows").display().to_string();
    let (code, told, _) = meanwhile(&["prove", &flows]);
    for name in ["dropship", "order", "preorder"] {
        assert!(code == Some(0) && told.contains(&format!("{name}: proved; ")), "{name}: {told}");
    }
    let (code, told, _) = meanwhile(&["test", &flows]);
    assert!(code == Some(0) && told.contains("different: 0; "), "{told}");
    let (code, told, _) = meanwhile(&["lint", &flows]);
    assert!(code == Some(0) && told.contains("ok: order "), "cases are no flow: {told}");
}

#[test]
fn findings_end_with_1_unless_each_is_accepted() {
    let folder = folder(&[("mail.yaml", MAIL)]);
    let file = folder.path().join("mail.yaml").display().to_string();
    let (code, told, _) = meanwhile(&["prove", &file]);
    assert_eq!(code, Some(1), "{told}");
    for part in [
        format!(
            "effect-stands: what `mail` did may stand after the job has ended badly, and nothing undoes it\n  \
             --> {file}:3:5\n"
        ),
        "    1. mail answers 200.\n    2. pay answers 400: the job has failed.\n".to_owned(),
        "mail: 1 finding; ".to_owned(),
    ] {
        assert!(told.contains(&part), "{part}\nis not in\n{told}");
    }
    let (code, told, _) = meanwhile(&["prove", &file, "--accept", "effect-stands:mail"]);
    assert!(code == Some(0) && told.contains("mail: proved, 1 accepted; "), "{told}");
    let (code, told, _) = meanwhile(&["prove", &file, "--json"]);
    assert!(code == Some(1) && told.contains("\"kind\": \"effect-stands\""), "{told}");
    assert_eq!(meanwhile(&["prove", &file, "--accept", "mail"]).0, Some(2));
}

#[test]
fn a_proof_that_stops_at_its_limit_ends_with_3() {
    let file = root().join("flows/order.yaml").display().to_string();
    let (code, told, _) = meanwhile(&["prove", &file, "--states-max", "20"]);
    assert!(code == Some(3) && told.contains("not proved: more than 20 states"), "{told}");
}

#[test]
fn files_that_cannot_be_used_end_with_2_and_tell_why() {
    let cases = "cases:\n  - case: one\n    expect: { status: succeded }\n";
    let bad = "flow: bad\nstep: []\n";
    let folder = folder(&[("bad.yaml", bad), ("mail.yaml", MAIL), ("mail.test.yaml", cases)]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (code, _, told) = meanwhile(&["prove", &path("bad.yaml")]);
    assert!(code == Some(2) && told.contains("bad.yaml:2:1") && told.contains("`steps`"), "{told}");
    let (code, _, told) = meanwhile(&["test", &path("mail.test.yaml")]);
    assert!(code == Some(2) && told.contains("mail.test.yaml:3:23") && told.contains("`succeeded`"), "{told}");
    let (code, _, told) = meanwhile(&["prove", "/nowhere/flow.yaml"]);
    assert!(code == Some(2) && told.contains("there is no /nowhere/flow.yaml"), "{told}");
}

#[test]
fn a_case_that_differs_ends_with_1_and_shows_both_sides() {
    let cases = "cases:
  - case: it is paid
    given: { steps: { mail: 200, pay: 402 } }
    expect: { status: succeeded }
";
    let folder = folder(&[("mail.yaml", MAIL), ("mail.test.yaml", cases)]);
    let file = folder.path().join("mail.test.yaml").display().to_string();
    let (code, told, _) = meanwhile(&["test", &folder.path().display().to_string()]);
    assert_eq!(code, Some(1), "{told}");
    let difference = format!("{file}:4:")
        + " status\n      expected  succeeded\n      got       failed (pay: POST was answered 402)\n";
    assert!(told.starts_with(&format!("different  {file}:2  it is paid\n")) && told.contains(&difference), "{told}");
}

#[test]
fn a_file_of_the_other_kind_is_told_with_the_command_for_it() {
    let folder = folder(&[("mail.yaml", MAIL), ("mail.test.yaml", "cases: []\n")]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (flow, cases) = (path("mail.yaml"), path("mail.test.yaml"));
    for (command, code) in [("lint", 1), ("prove", 2)] {
        let (ended, _, told) = meanwhile(&[command, &cases]);
        let help = format!("`meanwhile flows test {cases}` runs them; their flow is {flow}");
        assert!(ended == Some(code) && told.contains(&help), "{command}: {told}");
    }
    let (ended, _, told) = meanwhile(&["test", &flow]);
    let help = format!("{flow} holds no test cases (*.test.yaml); those of a flow of this name lie in {cases}");
    assert!(ended == Some(2) && told.contains(&help), "{told}");
}

/// The outcomes of the table in docs/flows.md, each with what it says of the undo.
#[test]
fn a_step_is_undone_where_the_page_says_so() {
    let flow = "flow: u
steps:
  - id: pay
    http: { method: POST, url: \"http://pay/x\", body: { to: \"{{ callback.url }}\" }, fail_on: [402] }
    callback: { timeout: 1h }
    retry: { attempts: 2 }
    compensate: { http: { method: POST, url: \"http://pay/undo\" } }
";
    let failed = "202 }, callbacks: [{ step: pay, at: 1m, outcome: failed }]";
    let cases: String = [
        ("400 }", "[]"),
        ("no-connection }", "[]"),
        ("503 }", "[pay]"),
        ("302 }", "[pay]"),
        ("connection-lost }", "[pay]"),
        ("no-answer }", "[pay]"),
        ("[503, 400] }", "[pay]"),
        ("[503, 402] }", "[]"),
        ("202 }", "[pay]"),
        (failed, "[]"),
        (&failed.replace("202", "[connection-lost, 202]"), "[pay]"),
    ]
    .iter()
    .map(|(given, undone)| {
        let expected = format!("expect: {{ status: failed, compensated: {undone} }}");
        format!("  - case: \"{given}\"\n    given: {{ steps: {{ pay: {given} }}\n    {expected}\n")
    })
    .collect();
    let folder = folder(&[("u.yaml", flow), ("u.test.yaml", &format!("cases:\n{cases}"))]);
    let (code, told, beside) = meanwhile(&["test", &folder.path().display().to_string()]);
    assert!(code == Some(0) && told.contains("as expected: 11; "), "{told}{beside}");
}
