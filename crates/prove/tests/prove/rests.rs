//! Steps that sleep or wait: every end of a rest is walked.

use super::{found, proved, told};

#[test]
fn a_wait_that_nothing_ends_is_found() {
    let flow = |more: &str| format!("flow: f\nsteps:\n  - id: ask\n    wait: {{ signal: yes{more} }}\n");
    let proof = proved(&flow(""));
    assert_eq!(found(&proof), ["never-ends:ask"]);
    assert!(told(&proof, "never-ends:ask").contains("ask rests"), "{}", told(&proof, "never-ends:ask"));
    assert!(proved(&flow(", timeout: 1d")).is_proved());
    assert!(proved(&format!("{}deadline: 3d\n", flow(""))).is_proved());
}

#[test]
fn what_was_done_before_a_rejection_or_a_wait_in_vain_must_be_undone() {
    let proof = proved(
        "flow: f
steps:
  - id: mail
    http: { method: POST, url: \"http://mail/x\" }
  - id: ask
    wait: { signal: answer, approve: {}, timeout: 1d }
  - id: thank
    http: { method: GET, url: \"http://thanks/x\" }
",
    );
    assert_eq!(found(&proof), ["effect-stands:mail"]);
}

#[test]
fn an_output_that_a_wait_in_vain_does_not_give_is_found_where_the_lint_cannot_see_it() {
    let text = |on_timeout: &str| {
        format!(
            "flow: f
steps:
  - id: ask
    wait: {{ signal: answer, timeout: 1d, on_timeout: {on_timeout} }}
  - id: tell
    native: tell
    with: {{ n: \"{{{{ steps.ask.output.n | default(0) }}}}\" }}
"
        )
    };
    assert_eq!(found(&proved(&text("continue"))), ["effect-stands:tell"]);
}

#[test]
fn a_loop_of_waits_has_finitely_many_states_and_both_branches() {
    let proof = proved(
        "flow: f
steps:
  - id: remind
    native: remind
    compensate: { native: forget }
  - id: ask
    wait: { signal: answer, timeout: 1h, on_timeout: remind }
  - id: nap
    when: \"{{ steps.ask.output.later }}\"
    sleep: 1d
",
    );
    assert!(proof.is_proved() && proof.states > 20, "{:?} {}", found(&proof), proof.states);
}
