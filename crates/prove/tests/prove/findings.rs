//! Every kind of finding, with its shortest story.

use super::{flow, found, proved, told};

const BOTH_UNDOABLE: &str = "flow: f
steps:
  - id: one
    http: { method: POST, url: \"http://one/x\" }
    compensate: { http: { method: POST, url: \"http://one/undo\" } }
  - id: two
    native: two
    compensate: { native: undo_two }
";

#[test]
fn a_flow_whose_steps_can_be_undone_is_proved() {
    let proof = proved(BOTH_UNDOABLE);
    assert!(proof.is_proved() && proof.states > 50, "{:?} {}", found(&proof), proof.states);
}

#[test]
fn a_step_without_a_compensation_may_stand() {
    let proof = proved(
        "flow: f
steps:
  - id: mail
    http: { method: POST, url: \"http://mail/x\" }
  - id: pay
    http: { method: POST, url: \"http://pay/x\", fail_on: [402] }
    compensate: { http: { method: POST, url: \"http://pay/undo\" } }
",
    );
    assert_eq!(found(&proof), ["effect-stands:mail"]);
    assert_eq!(
        told(&proof, "effect-stands:mail"),
        "effect-stands: what `mail` did may stand after the job has ended badly, and nothing undoes it
  --> flow.yaml:3:5
    1. mail answers 200.
    2. pay answers 400: the job has failed.
   = help: a `compensate` for `mail`; if it needs none: --accept effect-stands:mail"
    );
}

#[test]
fn a_step_that_only_reads_leaves_nothing_behind() {
    let proof = proved("flow: f\nsteps: [{ id: look, http: { method: GET, url: \"http://a/x\" } }]\n");
    assert!(proof.is_proved(), "{:?}", found(&proof));
}

#[test]
fn a_conflict_that_is_taken_for_nothing_was_done_leaves_the_effect_behind() {
    let flow = |fail_on: &str| {
        format!(
            "flow: f
steps:
  - id: pay
    http: {{ method: POST, url: \"http://pay/x\", fail_on: [{fail_on}] }}
    compensate: {{ http: {{ method: POST, url: \"http://pay/undo\" }} }}
"
        )
    };
    assert!(proved(&flow("402")).is_proved());
    let proof = proved(&flow("409"));
    assert_eq!(found(&proof), ["effect-stands:pay"]);
    let told = told(&proof, "effect-stands:pay");
    assert!(told.contains("1. pay gives no answer; it was done.\n"), "{told}");
    assert!(told.contains("2. pay answers 409, which `fail_on` takes for \"nothing was done\": the job has failed."));
}

#[test]
fn a_compensation_that_reads_a_skipped_step_cannot_be_called() {
    // The linter does not ask whether the fallback is there.
    let flow = |url: &str| {
        format!(
            "flow: f
input: {{ type: object, required: [first], properties: {{ first: {{ type: boolean }}, name: {{ type: string }} }} }}
steps:
  - id: first
    when: \"{{{{ input.first }}}}\"
    http: {{ method: POST, url: \"http://first/x\" }}
    compensate: {{ http: {{ method: POST, url: \"http://first/undo\" }} }}
  - id: second
    http: {{ method: POST, url: \"http://second/x\" }}
    compensate: {{ http: {{ method: DELETE, url: \"http://second/{url}\" }} }}
"
        )
    };
    let proof = proved(&flow("{{ steps.first.output.id | default(input.name) }}"));
    // Somebody can undo it by hand.
    assert_eq!(found(&proof), ["compensation-fails:second"]);
    let told = told(&proof, "compensation-fails:second");
    assert!(told.contains("--> flow.yaml:10:5") && told.contains("The input is {\"first\":false}"), "{told}");
    assert!(told.contains("`input.name` is missing"), "{told}");
    let proof = proved(&flow("{{ steps.first.output.id | default('none') }}"));
    assert!(proof.is_proved(), "{:?}", found(&proof));
}

#[test]
fn a_result_that_reads_a_skipped_step_undoes_a_job_that_was_done() {
    let flow = |result: &str| {
        format!(
            "flow: f
input: {{ type: object, required: [n], properties: {{ n: {{ type: integer }}, name: {{ type: string }} }} }}
steps:
  - id: one
    when: \"{{{{ input.n > 1000 }}}}\"
    native: one
    compensate: {{ native: undo_one }}
result: {{ one: \"{{{{ {result} }}}}\" }}
"
        )
    };
    let proof = proved(&flow("steps.one.output.id | default(input.name)"));
    assert_eq!(found(&proof), ["result-fails:result"]);
    let told = told(&proof, "result-fails:result");
    assert!(told.contains("--> flow.yaml:8:1") && told.contains("`input.name` is missing"), "{told}");
    assert!(proved(&flow("steps.one.output.id | default(none)")).is_proved());
}

#[test]
fn a_call_that_reads_what_the_schema_does_not_require_fails_without_a_service() {
    let flow = |required: &str| {
        format!(
            "flow: f
input: {{ type: object, required: [{required}], properties: {{ sku: {{ type: string }} }} }}
steps:
  - id: look
    http: {{ method: GET, url: \"http://a/{{{{ input.sku }}}}\" }}
"
        )
    };
    let proof = proved(&flow(""));
    assert_eq!(found(&proof), ["call-fails:look"]);
    let told = told(&proof, "call-fails:look");
    assert!(told.contains("`input.sku` is missing") && told.contains("The input is {}"), "{told}");
    assert!(proved(&flow("sku")).is_proved());
}

#[test]
fn a_condition_that_reads_what_may_be_absent_cannot_be_evaluated() {
    let flow = |condition: &str| {
        format!(
            "flow: f
input: {{ type: object, properties: {{ gift: {{ type: boolean }} }} }}
steps:
  - id: wrap
    when: \"{{{{ {condition} }}}}\"
    native: wrap
    compensate: {{ native: unwrap }}
"
        )
    };
    let proof = proved(&flow("input.gift"));
    assert_eq!(found(&proof), ["when-fails:wrap"]);
    assert!(told(&proof, "when-fails:wrap").contains("--> flow.yaml:5:5"));
    assert!(proved(&flow("input.gift | default(false)")).is_proved());
}

#[test]
fn a_step_that_is_not_idempotent_runs_twice_where_it_is_asked_about_while_its_call_is_under_way() {
    let flow = |settle: &str| {
        format!(
            "flow: f
steps:
  - id: pay
    native: pay
    idempotent: false
    verify:
      http: {{ url: \"http://a/{{{{ step.idempotency_key }}}}\" }}
      done_when: \"{{{{ response.status == 200 }}}}\"
    timeout: 10s
    settle: {settle}
    compensate: {{ native: refund }}
"
        )
    };
    let proof = proved(&flow("5s"));
    assert_eq!(found(&proof), ["effect-stands:pay", "runs-twice:pay"]);
    let told = told(&proof, "runs-twice:pay");
    assert!(
        told.contains("`verify` says that pay was not done, while its call is under way; then it is done"),
        "{told}"
    );
    assert!(proved(&flow("10s")).is_proved());
}

#[test]
fn a_step_that_is_not_idempotent_never_runs_twice_by_itself() {
    let proof =
        proved("flow: f\nsteps:\n  - { id: pay, native: pay, idempotent: false, compensate: { native: refund } }\n");
    assert!(proof.is_proved(), "{:?}", found(&proof));
}

#[test]
fn a_branch_that_no_input_takes_is_found_in_both_directions() {
    let flow = |condition: &str| {
        format!(
            "flow: f
input:
  type: object
  required: [kind, n]
  properties: {{ kind: {{ enum: [a, b] }}, n: {{ type: integer, minimum: 1 }} }}
steps:
  - id: one
    when: \"{{{{ {condition} }}}}\"
    http: {{ method: GET, url: \"http://a/x\" }}
"
        )
    };
    for (condition, message) in [
        ("input.kind == 'c'", "`one` never runs"),
        ("input.n > 0", "`one` is never skipped"),
        ("input.kind in ['a', 'b']", "`one` is never skipped"),
        ("input.n < 1", "`one` never runs"),
        ("input.kind == 'a' and input.kind == 'b'", "`one` never runs"),
    ] {
        let proof = proved(&flow(condition));
        assert_eq!(found(&proof), ["branch-never-taken:one"], "{condition}");
        assert!(told(&proof, "branch-never-taken:one").contains(message), "{condition}");
    }
    for condition in ["input.kind == 'a'", "input.n > 1", "input.n >= 5 and input.n < 7", "not input.n == 12"] {
        assert!(proved(&flow(condition)).is_proved(), "{condition}");
    }
}

#[test]
fn a_deadline_leaves_a_step_behind_that_no_failure_of_a_service_would() {
    let flow = |deadline: &str| {
        format!(
            "flow: f
{deadline}
on_failure: park
steps:
  - id: one
    native: one
  - id: two
    native: two
    compensate: {{ native: undo_two }}
"
        )
    };
    // Only a cancel ends such a job badly.
    for deadline in ["", "deadline: 5s"] {
        let proof = proved(&flow(deadline));
        assert_eq!(found(&proof), ["effect-stands:one"], "{deadline}");
        let told = told(&proof, "effect-stands:one");
        assert!(told.contains("somebody cancels the job before two is called: the job is cancelled."), "{told}");
    }
}

#[test]
fn the_linter_names_what_one_look_at_a_step_tells() {
    let text = "flow: f
input: { type: object, required: [n], properties: { n: { type: integer, minimum: 1 } } }
steps:
  - id: one
    when: \"{{ input.n > WHEN }}\"
    http: { method: POST, url: \"http://a/x\", fail_on: [FAIL_ON] }
";
    let told = |when: &str, fail_on: &str| {
        let flow = flow(&text.replace("WHEN", when).replace("FAIL_ON", fail_on));
        prove::hints(&flow).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told("1", "402"), Vec::<String>::new());
    let hints = told("0", "402, 409");
    assert!(hints[0].contains("takes 409 for \"nothing was done\"") && hints[0].contains("flow.yaml:4:5"), "{hints:?}");
    assert!(hints[1].contains("holds for every input") && hints[1].contains("flow.yaml:5:5"), "{hints:?}");
}
