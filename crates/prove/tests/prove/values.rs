//! The values that a proof walks a flow with.

use prove::{Accepted, Options, prove};
use serde_json::json;

use super::{flow, found, proved, told};

#[test]
fn a_condition_on_an_output_is_taken_both_ways_and_the_story_tells_the_output() {
    let text = "flow: f
input: { type: object, properties: { name: { type: string } } }
steps:
  - id: check
    http: { method: GET, url: \"http://check/x\" }
  - id: hold
    when: \"{{ steps.check.output.risk >= 80 }}\"
    native: hold
    compensate: { native: release }
result: \"{{ steps.hold.output.id | default(input.name) }}\"
";
    let proof = proved(text);
    assert_eq!(found(&proof), ["result-fails:result"]);
    let told = told(&proof, "result-fails:result");
    assert!(told.contains("1. check answers 200 with {\"risk\":79}; hold is skipped"), "{told}");
}

#[test]
fn equal_conditions_have_equal_values_on_one_path() {
    let text = "flow: f
input: { type: object, required: [n], properties: { n: { type: integer }, m: { type: string } } }
steps:
  - id: one
    when: \"{{ input.n > 10 }}\"
    native: one
    compensate: { native: undo_one }
  - id: two
    when: \"{{ input.n > 10 }}\"
    native: two
    with: \"{{ steps.one.output.id }}\"
    compensate: { native: undo_two }
";
    let proof = proved(text);
    assert!(proof.is_proved(), "{:?}", found(&proof));
    let contrary = text.replacen("{{ input.n > 10 }}", "{{ input.n <= 10 }}", 1);
    let contrary = contrary.replace("steps.one.output.id", "steps.one.output.id | default(input.m)");
    assert_eq!(found(&proved(&contrary)), ["call-fails:two"], "never both");
}

#[test]
fn a_condition_that_no_tried_value_decides_is_taken_both_ways() {
    let text = "flow: f
input: { type: object, required: [a], properties: { a: { type: string, minLength: 20 }, b: { type: string } } }
steps:
  - id: one
    when: \"{{ input.a | upper | replace('Q', 'R') | length == 33 }}\"
    native: one
    compensate: { native: undo_one }
result: \"{{ steps.one.output.id | default(input.b) }}\"
";
    let proof = proved(text);
    assert_eq!(
        (found(&proof), proof.assumed.as_slice()),
        (vec!["result-fails:result".to_owned()], &["one".to_owned()][..])
    );
}

#[test]
fn an_input_that_the_schema_refuses_is_never_walked_with() {
    let text = "flow: f
input: { type: object, required: [id], properties: { id: { type: string, pattern: '^[0-9]{9}$' } } }
steps: [{ id: one, http: { method: GET, url: \"http://a/{{ input.id }}\" } }]
";
    let flow = flow(text);
    let problem = prove(&flow, &Options::default(), &mut |_| {}).unwrap_err();
    assert!(problem.to_string().contains("--input FILE"), "{problem}");
    let options = Options { inputs: vec![json!({ "id": "123456789" })], ..Options::default() };
    assert!(prove(&flow, &options, &mut |_| {}).unwrap().is_proved());
}

#[test]
fn a_finding_that_is_accepted_is_told_apart_and_one_that_is_not_there_any_more_is_told() {
    let accepted: Vec<Accepted> =
        ["effect-stands:mail", "runs-twice:mail"].iter().map(|text| text.parse().unwrap()).collect();
    let options = Options { accepted, ..Options::default() };
    let flow = flow("flow: f\nsteps: [{ id: mail, native: mail }]\n");
    let proof = prove(&flow, &options, &mut |_| {}).unwrap();
    assert!(proof.is_proved() && proof.accepted.len() == 1);
    assert_eq!(proof.unused[0].to_string(), "runs-twice:mail");
    assert!("stands:mail".parse::<Accepted>().unwrap_err().contains("effect-stands, compensation-fails"));
}

#[test]
fn a_flow_with_more_states_than_are_visited_is_not_proved() {
    let options = Options { states_max: 5, ..Options::default() };
    let flow = flow("flow: f\nsteps: [{ id: one, native: one, compensate: { native: undo } }]\n");
    let proof = prove(&flow, &options, &mut |_| {}).unwrap();
    assert!(!proof.is_complete && !proof.is_proved());
}
