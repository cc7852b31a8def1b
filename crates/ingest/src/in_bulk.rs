//! What orders for many have in common: how they went, and the parked jobs that they leave to a person, since no order
//! says of each that it was looked at.

use flow::decide::awaits_verdict;
use flow::definition::Definition;
use flow::event::{EventKind, JobEvent};
use serde_json::{Value, json};
use web::problem::{Kind, Problem};

use crate::dead_letters::REDRIVES_MAX;
use crate::job_lookup::JobState;
use crate::resume;
use crate::state::Api;

/// How an order for many went. One that was left is named, and stops no other.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) done: usize,
    /// `{"id": ..., "reason": ...}` of each.
    pub(crate) left: Vec<Value>,
}

impl Tally {
    /// Counts one. Returns the problem that says to come again: the rest would fare no better.
    pub(crate) fn note(&mut self, id: &str, result: Result<(), Problem>) -> Result<(), Problem> {
        match result {
            Ok(()) => self.done += 1,
            Err(problem) if problem.kind() == Kind::NotReady => return Err(problem),
            Err(problem) => self.left.push(json!({ "id": id, "reason": problem.detail() })),
        }
        Ok(())
    }
}

/// Refuses a parked job that comes back each time, or whose step could be done twice.
pub(crate) async fn check(api: &Api, job: &JobState) -> Result<(), Problem> {
    refuse_loop(job)?;
    refuse_doubt(api, job).await
}

/// Refuses a job that was parked again each time that it was sent on: at one visit of one step, its events tell.
fn refuse_loop(job: &JobState) -> Result<(), Problem> {
    let mut parkings = job.events.iter().map(|(_, event)| event).filter(|event| event.kind == EventKind::JobParked);
    let Some(last) = parkings.next_back() else { return Ok(()) };
    let is_same = |event: &&JobEvent| {
        (&event.step, event.phase, event.visit, &event.branch) == (&last.step, last.phase, last.visit, &last.branch)
    };
    let times = parkings.filter(is_same).count();
    if times < REDRIVES_MAX as usize {
        return Ok(());
    }
    let step = last.step.as_deref().unwrap_or_default();
    let detail = format!("The job was sent on {times} times, and was parked at `{step}` each time.");
    Err(Problem::new(Kind::RedriveLimit, detail).with_job(job.view.job))
}

/// Refuses a job whose step may have been done and would be called once more, with nobody to ask whether it was.
async fn refuse_doubt(api: &Api, job: &JobState) -> Result<(), Problem> {
    let definition = api.catalog.version(&job.view.flow, &job.view.version);
    let Some(slips) = resume::parked_slips(api, &job.view).await? else {
        let detail = "The job goes on already, or has not come to rest yet.";
        return Err(Problem::new(Kind::StillRunning, detail).with_job(job.view.job));
    };
    for (_, slip) in slips {
        let doubtful = match &slip {
            Ok(slip) => awaits_verdict(slip) && !may_be_repeated(definition.as_ref(), &slip.step),
            Err(_) => true,
        };
        if doubtful {
            let job_id = job.view.job;
            let step = slip.map_or_else(|_| "its step".to_owned(), |slip| format!("`{}`", slip.step));
            let detail = format!(
                "Nobody knows whether {step} was done. Find out, and say so: `meanwhile jobs retry {job_id} \
                 --succeeded OUTPUT` or `--failed`; without either it is called once more."
            );
            return Err(Problem::new(Kind::StillRunning, detail).with_job(job_id));
        }
    }
    Ok(())
}

/// True if another call has no further effect, or is made only once `verify` has told that there was none.
fn may_be_repeated(definition: Option<&Definition>, step: &str) -> bool {
    let step = definition.and_then(|definition| definition.step(step));
    step.is_some_and(|step| step.is_idempotent() || step.verify().is_some())
}
