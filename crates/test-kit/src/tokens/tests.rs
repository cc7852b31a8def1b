//! The checker of tokens can fail, in each way.

use uuid::Uuid;

use super::*;
use crate::{sample_event, sample_slip};

const JOB: JobId = JobId::new(Uuid::from_u128(7));

fn slip(hop: u32) -> Slip {
    sample_slip(JOB, hop)
}

fn hold(hop: u32) -> Hold {
    Hold {
        slip: slip(hop),
        queue: "default".to_owned(),
        reason: HoldReason::Backoff,
        release_after_ms: Some(1),
        signal: None,
        limit: None,
    }
}

fn event(kind: EventKind, status: JobStatus, hop: u32, index: u32) -> JobEvent {
    JobEvent { index, ..sample_event(JOB, kind, status, hop) }
}

/// Two steps, the second after a hold.
fn sound() -> Tokens {
    Tokens {
        slips: vec![slip(1), slip(2)],
        holds: vec![hold(2)],
        unread: Vec::new(),
        events: vec![
            event(EventKind::JobAccepted, JobStatus::Accepted, 0, 0),
            event(EventKind::StepSucceeded, JobStatus::Running, 1, 0),
            event(EventKind::StepSucceeded, JobStatus::Running, 2, 0),
            event(EventKind::JobSucceeded, JobStatus::Succeeded, 2, 1),
        ],
        dead_letters: 0,
        dead_commands: 0,
        unreadable: BTreeMap::new(),
    }
}

fn problem_of(change: impl FnOnce(&mut Tokens)) -> String {
    let mut tokens = sound();
    change(&mut tokens);
    tokens.problems([JOB]).join("; ")
}

#[test]
fn a_sound_job_has_no_problem() {
    assert_eq!(problem_of(|_| {}), "");
}

#[test]
fn a_split_token_is_found() {
    assert!(problem_of(|tokens| tokens.slips.push(slip(2))).contains("split: 2 slips"));
    assert!(problem_of(|tokens| tokens.holds.push(hold(2))).contains("split: 2 holds"));
}

#[test]
fn a_slip_that_rests_on_its_way_from_the_outbox_is_not_missed() {
    let rested = |reason: HoldReason| {
        problem_of(|tokens| {
            tokens.slips.remove(0);
            tokens.holds[0].reason = reason;
        })
    };
    assert_eq!(rested(HoldReason::MissingStep), "");
    assert!(rested(HoldReason::Backoff).contains("lost between"));
}

#[test]
fn a_slip_that_rested_unread_stands_once_more_for_each_time() {
    let once = |tokens: &mut Tokens| {
        tokens.unread.push(slip(2).token());
        tokens.slips.push(slip(2));
    };
    assert_eq!(problem_of(once), "");
    assert!(problem_of(|tokens| tokens.slips.push(slip(1))).contains("split: 2 slips"));
    let never_sent_again = |tokens: &mut Tokens| tokens.unread.push(slip(1).token());
    assert!(problem_of(never_sent_again).contains("lost between"));
}

#[test]
fn a_lost_token_is_found() {
    assert!(problem_of(|tokens| drop(tokens.slips.remove(0))).contains("lost between"));
    let nothing = Tokens::default().problems([JOB]);
    assert!(nothing.len() == 1 && nothing[0].contains("lost: accepted"), "{nothing:?}");
}

#[test]
fn a_job_that_does_not_end_once_is_found() {
    assert!(problem_of(|tokens| drop(tokens.events.pop())).contains("not ended"));
    let again = event(EventKind::JobFailed, JobStatus::Failed, 2, 2);
    assert!(problem_of(|tokens| tokens.events.push(again)).contains("ended 2 times"));
}

#[test]
fn a_token_that_goes_on_after_the_end_is_found() {
    assert!(problem_of(|tokens| tokens.slips.push(slip(3))).contains("the token went on to 3"));
}

#[test]
fn an_event_that_stands_twice_is_found() {
    let again = event(EventKind::StepSucceeded, JobStatus::Running, 1, 0);
    assert!(problem_of(|tokens| tokens.events.insert(2, again)).contains("stands twice"));
}

#[test]
fn a_parked_job_need_not_have_ended() {
    let parked = problem_of(|tokens| {
        tokens.events.truncate(2);
        tokens.events.push(event(EventKind::JobParked, JobStatus::NeedsAttention, 2, 0));
    });
    assert_eq!(parked, "");
}
