//! The answer to a retry of a job that needs none: what it waits for, and which command helps.

use events::time::rfc3339;
use flow::view::{JobView, StepStatus, WaitingFor};
use web::problem::{Kind, Problem};

/// The problem 409 of a job that goes on by itself.
pub(crate) fn still_running(view: &JobView) -> Problem {
    let status = view.status.as_str();
    let resting = view.steps.iter().find_map(|step| Some((step.id.as_str(), step.waiting_for.as_ref()?)));
    let (detail, remediation) = match resting {
        Some((step, waiting_for)) => waits(view, step, waiting_for),
        None if view.steps.iter().any(|step| step.status == StepStatus::Running) => {
            (format!("The job is {status}: a call is under way."), None)
        }
        // A begin that was put off is told by no step.
        None => (format!("The job is {status}: nothing of it failed that could be done again now."), None),
    };
    let problem = Problem::new(Kind::StillRunning, detail).with_job(view.job);
    match remediation {
        Some(remediation) => problem.with_remediation(remediation),
        None => problem,
    }
}

fn waits(view: &JobView, step: &str, waiting_for: &WaitingFor) -> (String, Option<String>) {
    let (job, status) = (view.job, view.status.as_str());
    let WaitingFor { signal, breaker, limit, poll, until_ms } = waiting_for;
    let until = until_ms.map(|until_ms| format!(", until {} at the latest", rfc3339(until_ms))).unwrap_or_default();
    let told = |what: String| format!("The job is {status}: step `{step}` waits {what}{until}.");
    let cancel = format!("`meanwhile jobs cancel {job}` ends it");
    if let Some(downstream) = breaker {
        let remedy = format!(
            "It goes on once `{downstream}` answers again. `meanwhile breakers close {downstream}` lets calls go now; \
             {cancel}."
        );
        return (told(format!("for the breaker of `{downstream}`")), Some(remedy));
    }
    if let Some(downstream) = limit {
        let remedy = format!("It goes on by itself once there is room; {cancel}.");
        return (told(format!("for room within the limits of `{downstream}`")), Some(remedy));
    }
    if let Some(host) = poll {
        let remedy = format!("It goes on once `{host}` says that the work is done; {cancel}.");
        return (told(format!("for work at `{host}`, which is asked now and again")), Some(remedy));
    }
    match signal.as_deref() {
        Some(name) if name.starts_with("callback:") => {
            let remedy = format!("It goes on once the step's service calls back; {cancel}.");
            (told("for its callback".to_owned()), Some(remedy))
        }
        Some(name) => {
            let remedy = format!("`meanwhile jobs signal {job} {name}` sends the signal; {cancel}.");
            (told(format!("for the signal `{name}`")), Some(remedy))
        }
        None => {
            let remedy = format!("It goes on by itself at that time; {cancel}.");
            (told("for a time".to_owned()), Some(remedy))
        }
    }
}
