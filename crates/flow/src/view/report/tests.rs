use serde_json::json;

use super::*;
use crate::decide::{self, Next, Outcome, Rest, StepError};
use crate::definition::Definition;
use crate::event::JobEvent;
use crate::slip::Slip;
use crate::view::tests::new_job;

const NOW_MS: i64 = 1_000;

/// A job of two steps, at its first one.
struct Run {
    definition: Definition,
    events: Vec<JobEvent>,
    slip: Option<Slip>,
}

impl Run {
    fn start() -> Self {
        let text = "flow: t\nsteps:\n  - { id: a, native: f, retry: { attempts: 2, backoff: 1h..2h } }\n\
                    \x20 - { id: b, native: f }\n";
        let definition = Definition::parse_yaml("t.yaml", text, &mut |_| Err(String::new())).unwrap();
        let decision = decide::start(&definition, new_job(), NOW_MS);
        let mut run = Self { definition, events: Vec::new(), slip: None };
        run.take(decision);
        run
    }

    fn take(&mut self, decision: decide::Decision) {
        self.events.extend(decision.events);
        self.slip = match decision.next {
            Next::Step { slip, .. } | Next::RetryNow { slip, .. } => Some(slip),
            Next::Hold(hold) => Some(hold.slip),
            Next::End => None,
        };
    }

    fn slip(&self) -> &Slip {
        self.slip.as_ref().unwrap()
    }

    fn step(&mut self, outcome: Outcome) {
        self.take(decide::advance(&self.definition, &self.slip().clone(), outcome, NOW_MS + 100));
    }

    /// The view with these reports, as far as they are taken.
    fn view(&self, reports: &[Report]) -> (JobView, Vec<bool>) {
        let mut events = self.events.iter().zip(0..);
        let (first, cursor) = events.next().unwrap();
        let mut view = JobView::from_event(cursor, first);
        for (event, cursor) in events {
            assert!(view.apply(cursor, event));
        }
        let taken = reports.iter().map(|report| view.add_report(self.events.iter(), report)).collect();
        (view, taken)
    }

    fn shown(&self, report: Report) -> (JobView, bool) {
        let (view, taken) = self.view(&[report]);
        (view, taken[0])
    }

    /// What the slip's present attempt tells of its begin.
    fn begun(&self) -> Report {
        let slip = self.slip();
        let begun = Begun { hop: slip.hop, attempt: slip.attempt + 1, at_ms: NOW_MS + 50 };
        Report { begun: Some(begun), ..report(&slip.step, slip.visit, None) }
    }
}

fn report(step: &str, visit: u32, percent: Option<u8>) -> Report {
    let message = percent.map(|percent| format!("at {percent}"));
    Report { step: step.to_owned(), visit, branch: String::new(), begun: None, percent, message }
}

fn ok() -> Outcome {
    Outcome::done(json!(1))
}

fn failed() -> Outcome {
    let error = StepError { code: "step-failed".to_owned(), message: "no".to_owned(), status: None };
    Outcome::Failed { error, retryable: true, effect: decide::Effect::Unsent, retry_after_ms: None }
}

#[test]
fn the_part_of_the_step_under_way_counts_towards_the_job() {
    let mut run = Run::start();
    assert_eq!(run.shown(report("a", 1, Some(30))).0.progress().percent, 15);
    run.step(ok());
    let (view, taken) = run.shown(report("b", 1, Some(30)));
    assert!(taken);
    assert_eq!((view.progress().done, view.progress().percent, view.message()), (1, 65, Some("at 30")));
    assert_eq!(view.steps[1].status, StepStatus::Pending, "a report without a begin says nothing of an attempt");
    assert_eq!(run.shown(report("b", 1, Some(255))).0.progress().percent, 100);
}

#[test]
fn a_report_of_a_step_that_is_over_or_of_an_earlier_visit_is_ignored() {
    let mut run = Run::start();
    run.step(failed());
    let (first, late) = (run.shown(report("a", 1, Some(30))), run.shown(report("a", 0, Some(90))));
    assert!(first.1 && !late.1);
    assert_eq!(late.0, run.view(&[]).0);
    run.step(ok());
    assert_eq!(run.shown(report("a", 1, Some(30))), (run.view(&[]).0, false));
    assert!(run.shown(report("a", 2, Some(30))).1, "the job came to it once more, and no event tells of it yet");
    run.step(ok());
    assert_eq!(run.shown(report("b", 2, Some(30))), (run.view(&[]).0, false), "the job has ended");
}

#[test]
fn an_attempt_that_has_begun_is_shown_until_an_event_tells_what_became_of_it() {
    let mut run = Run::start();
    let first = run.begun();
    let (view, taken) = run.shown(first.clone());
    let step = &view.steps[0];
    assert!(taken);
    assert_eq!((step.status, step.attempts, step.started_at_ms), (StepStatus::Running, 1, Some(NOW_MS + 50)));
    assert_eq!(view.status, JobStatus::Accepted, "the job's own status is what the events say");
    run.step(failed());
    let (view, _) = run.shown(first);
    assert_eq!((view.steps[0].status, view.steps[0].attempts), (StepStatus::Retrying, 1));
    let (view, _) = run.shown(run.begun());
    let step = &view.steps[0];
    assert_eq!((step.status, step.attempts, step.next_attempt_at_ms), (StepStatus::Running, 2, None));
    let rest = Outcome::Rests(Rest { release_after_ms: Some(1_000), signal: None });
    let second = run.begun();
    run.step(rest);
    assert_eq!(run.shown(second).0.steps[0].status, StepStatus::Waiting);
}

#[test]
fn within_a_visit_the_percent_never_falls_and_another_visit_begins_anew() {
    let mut kept = report("a", 1, Some(50));
    assert!(kept.merge(Report { message: Some("second try".to_owned()), ..report("a", 1, Some(10)) }));
    assert_eq!((kept.percent, kept.message.as_deref()), (Some(50), Some("second try")));
    assert!(!kept.merge(report("a", 1, None)));
    assert!(!kept.merge(report("a", 0, Some(99))));
    let begun = |hop, attempt| Report { begun: Some(Begun { hop, attempt, at_ms: 1 }), ..report("a", 1, None) };
    assert!(kept.merge(begun(2, 2)) && !kept.merge(begun(1, 1)) && !kept.merge(begun(2, 1)));
    assert!(kept.merge(report("a", 2, Some(5))));
    assert_eq!((kept.percent, kept.begun), (Some(5), None));
}
