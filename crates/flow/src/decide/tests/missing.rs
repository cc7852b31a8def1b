//! What is not at a worker is never the job's fault.

use super::*;
use crate::slip::Search;
use crate::view::{JobView, StepStatus};

fn missing(what: &str) -> Missing {
    Missing { kind: MissingKind::Setting, what: what.to_owned() }
}

#[track_caller]
fn hold(decision: &Decision) -> &Hold {
    let Next::Hold(hold) = &decision.next else { panic!("{decision:?}") };
    hold
}

#[test]
fn what_is_not_configured_at_this_worker_is_missing_and_no_failure() {
    let text = |expression: &str| {
        let url = "url: \"https://host/a\"";
        format!("flow: t\nsteps:\n  - id: a\n    http: {{ method: POST, {url}, headers: {{ x: \"{expression}\" }} }}\n")
    };
    let of = |expression: &str| {
        let flow = flow(&text(expression));
        prepare(&flow, &slip_at(&flow, "a"), &env(), NOW_MS)
    };
    for (expression, name) in [
        ("{{ env.B }}", "`env.B`"),
        ("Bearer {{ secrets.TOKEN }}", "`secrets.TOKEN`"),
        ("{{ secrets.TOKEN | upper }}", "`secrets.TOKEN`"),
        ("{{ env['B'] }}", "`env`"),
    ] {
        match of(expression) {
            Prepared::Missing(Missing { kind: MissingKind::Setting, what }) => {
                assert!(what.starts_with(name), "{expression}: {what}");
            }
            other => panic!("{expression}: {other:?}"),
        }
    }
    assert!(matches!(of("{{ env.B | default('b') }}"), Prepared::Http(_)), "the flow says what then");
    assert!(matches!(of("{{ env.A }}"), Prepared::Http(_)));
    let of_job = of("{{ input.m }}");
    assert!(matches!(of_job, Prepared::Outcome(Outcome::Failed { retryable: false, .. })), "{of_job:?}");
}

#[test]
fn an_undo_waits_for_what_is_not_configured_too() {
    let flow = flow(THREE);
    let back = slip(&advance(&flow, &slip_at(&flow, "c"), Outcome::Cancelled, NOW_MS));
    assert!(matches!(prepare(&flow, &back, &Env::default(), NOW_MS), Prepared::Missing(_)));
    let decision = rest_until_there(&back, "default", 3, &missing("x"), NOW_MS);
    assert_eq!((decision.events[0].status, decision.events[0].phase), (JobStatus::Compensating, Phase::Undo));
}

#[test]
fn a_slip_that_misses_something_rests_for_longer_and_longer_and_tells_of_it_ever_more_rarely() {
    let flow = flow(THREE);
    let mut at = slip_at(&flow, "b");
    let (began, mut told, mut rests) = (at.clone(), Vec::new(), Vec::new());
    for look in 1..=40 {
        let decision = rest_until_there(&at, "other", 3, &missing("`env.B`"), NOW_MS);
        let hold = hold(&decision);
        assert_eq!((hold.reason, hold.queue.as_str(), hold.slip.hop), (HoldReason::MissingStep, "other", at.hop + 1));
        let search = Some(Search { looks: look, missing: "`env.B`".to_owned() });
        assert_eq!(hold.slip, Slip { search, hop: at.hop + 1, ..began.clone() }, "nothing else changes");
        rests.push(hold.release_after_ms.unwrap());
        told.extend(decision.events.iter().map(|event| (look, event.kind, event.next_attempt_after_ms)));
        at = hold.slip.clone();
    }
    assert!(rests[0] <= 2_000 && rests[39] >= 150_000 && rests.iter().all(|rest| *rest <= 300_000), "{rests:?}");
    let expected =
        [1, 2, 4, 8, 16, 32].map(|look: u32| (look, EventKind::StepRetrying, Some(rests[look as usize - 1])));
    assert_eq!(told, expected);
    let other = rest_until_there(&at, "other", 3, &missing("`secrets.C`"), NOW_MS);
    assert_eq!(kinds(&other), [EventKind::StepRetrying], "something else is missing by now");
    let found = advance(&flow, &at, ok(Value::Null), NOW_MS);
    assert_eq!(slip(&found).search, None, "the next step begins a search of its own");
}

#[test]
fn a_look_comes_at_the_end_of_the_jobs_time_and_no_sooner_after_it() {
    let flow = flow(THREE);
    let rest_ms = |slip: &Slip, left_ms: i64| {
        let slip = Slip { deadline_ms: Some(NOW_MS + left_ms), ..slip.clone() };
        hold(&rest_until_there(&slip, "default", 3, &missing("x"), NOW_MS)).release_after_ms.unwrap()
    };
    let search = Some(Search { looks: 20, missing: "x".to_owned() });
    let at = Slip { search, ..slip_at(&flow, "b") };
    assert_eq!((rest_ms(&at, 1), rest_ms(&at, 70_000)), (1, 70_000));
    for left_ms in [400_000, 0, -1] {
        assert!(rest_ms(&at, left_ms) >= 150_000, "{left_ms}");
    }
    let back = Slip { phase: Phase::Undo, ..at.clone() };
    assert!(rest_ms(&back, 1) >= 150_000, "what is undone has no deadline");
    let over =
        |slip: &Slip, left_ms: i64| is_expired(&Slip { deadline_ms: Some(NOW_MS + left_ms), ..slip.clone() }, NOW_MS);
    assert_eq!([over(&at, 1), over(&at, 0), over(&back, 0), is_expired(&at, NOW_MS)], [false, true, false, false]);
}

#[test]
fn the_status_of_a_job_shows_what_it_waits_for() {
    let flow = flow(THREE);
    let start = start(&flow, new_job(), NOW_MS);
    let mut view = JobView::from_event(0, &start.events[0]);
    let decision = rest_until_there(&slip(&start), "default", 0, &missing("no flow test@1"), NOW_MS + 5);
    assert!(view.apply(1, &decision.events[0]));
    assert_eq!((view.status, view.steps_total), (JobStatus::Waiting, 3));
    let step = &view.steps[0];
    assert_eq!((step.id.as_str(), step.status, step.attempts), ("a", StepStatus::Retrying, 0));
    let error = step.error.as_ref().unwrap();
    assert_eq!((&error["code"], &error["message"]), (&json!("missing-step"), &json!("no flow test@1")));
    assert!(step.next_attempt_at_ms.unwrap() > NOW_MS + 5);
}

#[test]
fn a_step_that_the_flow_does_not_have_waits_for_somebody_who_knows() {
    let flow = flow(THREE);
    let at = Slip { step: "b[3]".to_owned(), ..slip_at(&flow, "b") };
    let Prepared::Missing(missing) = prepare(&flow, &at, &env(), NOW_MS) else { panic!("a step that is not there") };
    assert_eq!(missing.kind, MissingKind::Step);
}
