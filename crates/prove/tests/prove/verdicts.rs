//! Operators who say how a step of unknown outcome has ended: both ends are walked, and what they say is true.

use super::{found, proved};

fn text(once_only: &str, on_failure: &str) -> String {
    format!(
        "flow: f
on_failure: {on_failure}
steps:
  - id: reserve
    native: reserve
    compensate: {{ native: release }}
  - id: pay
    http: {{ method: POST, url: \"http://pay/x\", fail_on: [402] }}
    compensate: {{ http: {{ method: DELETE, url: \"http://pay/x\" }} }}
{once_only}"
    )
}

const ONCE_ONLY: &str = "    idempotent: false\n";

#[test]
fn both_verdicts_on_a_step_that_nobody_can_ask_about_are_walked_and_fold_into_the_other_ends() {
    // As many as without verdicts.
    for (once_only, on_failure, states) in
        [("", "compensate", 165), (ONCE_ONLY, "compensate", 171), ("", "park", 319), (ONCE_ONLY, "park", 311)]
    {
        let proof = proved(&text(once_only, on_failure));
        assert!(proof.is_proved(), "{once_only}{on_failure}: {:?}", found(&proof));
        assert_eq!(proof.states, states, "{once_only}{on_failure}");
    }
}
