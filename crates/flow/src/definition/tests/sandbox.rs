//! Sandboxes: flows whose calls are answered by the flow itself.

use super::*;

fn sandbox(step: &str) -> String {
    format!(
        "flow: test\nsandbox: true\nsteps:\n  - id: a\n    http: {{ method: POST, url: \"{{{{ env.A }}}}/a\" }}\n{step}"
    )
}

#[test]
fn a_sandbox_says_so_and_is_another_flow_without_that_line() {
    let flow = parse(&sandbox("    simulate: { latency: 200ms..2s, output: { id: 1 } }\n")).unwrap();
    assert!(flow.is_sandbox());
    let hints: Vec<String> = flow.hints().iter().map(ToString::to_string).collect();
    assert!(hints.len() == 1 && hints[0].contains("this flow is a sandbox: none of its calls is made"), "{hints:?}");
    assert!(hints[0].contains("test.yaml:2:1"), "{hints:?}");
    let real = flow.for_real();
    assert!(!real.is_sandbox() && real.version() != flow.version());
    assert_eq!(real.hints(), []);
    assert_eq!(real.for_real().version(), real.version());
    let read_again = Definition::from_document(flow.document()).unwrap();
    assert!(read_again.is_sandbox() && read_again.version() == flow.version());
}

#[test]
fn each_call_of_a_sandbox_needs_an_answer() {
    refused(
        &sandbox("  - { id: b, sleep: 1s }\n"),
        &["`a` has no `simulate`: a sandbox calls nothing", "test.yaml:4:5", "or the flow without `sandbox: true`"],
    );
    parse(&with_step("    simulate: {}\n")).unwrap();
}

#[test]
fn an_answer_that_cannot_be_given_is_refused_with_its_place() {
    for (simulate, expected) in [
        ("{ latency: 20m }", "`latency` cannot be `20m`"),
        ("{ latency: 2s..1s }", "`latency` cannot be `2s..1s`"),
        ("{ latency: soon }", "a duration or a range of at most 15m"),
        ("{ output: \"{{ env.A }}\" }", "`env` is not known here"),
        ("{ output: \"{{ steps.b.output }}\" }", "`steps.b` is not an earlier step"),
        ("{ fail: [{ percent: 10 }] }", "an entry of `fail` has no `status`"),
        ("{ fail: [{ status: 200 }] }", "a whole number from 300 to 599"),
        ("{ fail: [{ status: 500, error: no-answer }] }", "a failure is either a `status` or an `error`"),
        ("{ fail: [{ error: no-anser }] }", "did you mean `no-answer`?"),
        ("{ fail: [{ status: 500, percent: 0 }] }", "a whole number from 1 to 100"),
        ("{ fail: [{ status: 500, when: sometimes }] }", "`when` is not an expression"),
        ("{ ouput: 1 }", "did you mean `output`?"),
    ] {
        refused(&sandbox(&format!("    simulate: {simulate}\n")), &[expected, "test.yaml:6:"]);
    }
    let many = "{ status: 500 }, ".repeat(21);
    refused(&sandbox(&format!("    simulate: {{ fail: [{many}] }}\n")), &["`fail` has 21 entries", "at most 20"]);
    refused(
        "flow: t\nsteps:\n  - { id: a, sleep: 1s, simulate: {} }\n",
        &["a `sleep` has no `simulate`: nothing is called"],
    );
}

#[test]
fn the_example_is_a_sandbox_and_valid_by_the_published_schema() {
    const POLICY: &str = include_str!("../../../../../examples/sandbox/policy.yaml");
    const SCHEMA: &str = include_str!("../../../../../examples/sandbox/policy.schema.json");
    let policy =
        Definition::parse_yaml("policy.yaml", POLICY, &mut |_| Ok(serde_json::from_str(SCHEMA).unwrap())).unwrap();
    assert!(policy.is_sandbox());
    let language: Value = serde_json::from_str(LANGUAGE).unwrap();
    let validator = jsonschema::options().build(&language).unwrap();
    let errors: Vec<_> = validator.iter_errors(policy.document()).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
}
