//! Workers come and go, die, and stand still, while calls are under way.

use flow::event::JobStatus;
use flow::id::JobId;
use test_kit::eventually;

use crate::called::Call;
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

/// Calls that are under way in each worker, more or less.
const LONG: usize = 40;
/// A lease that no test lives to see the end of.
const FOR_EVER_MS: &str = "3600000";

/// Who holds each call, as the status tells.
async fn workers_of(stage: &Stage, jobs: &[JobId]) -> Vec<String> {
    let mut workers = vec![];
    for job in jobs {
        let status = stage.status(*job).await;
        let worker = &status["steps"][0]["running"]["worker"];
        workers.push(worker.as_str().unwrap_or_else(|| panic!("no worker in {status}")).to_owned());
    }
    workers
}

/// The jobs that this worker process has, of those whose worker is known.
fn held_by(jobs: &[JobId], workers: &[String], instance: &str) -> Vec<JobId> {
    let of = |worker: &&String| worker.split('/').next() == Some(instance);
    jobs.iter().zip(workers).filter(|(_, worker)| of(worker)).map(|(job, _)| *job).collect()
}

/// Calls that are under way in two workers: those of the second one apart.
pub(crate) async fn with_two_workers(stage: &mut Stage, long: usize) -> (usize, Vec<JobId>, Vec<JobId>) {
    let second = stage.add_worker().await;
    until_quick_at(stage, second).await;
    let jobs = stage.call("held", long).await;
    stage.called.until_open(long).await;
    stage.watch.until_running(&jobs).await;
    let workers = workers_of(stage, &jobs).await;
    let (of_first, of_second) = (held_by(&jobs, &workers, "workers-0"), held_by(&jobs, &workers, "workers-1"));
    assert!(!of_first.is_empty() && !of_second.is_empty(), "each worker has some: {workers:?}");
    assert_eq!(of_first.len() + of_second.len(), long, "{workers:?}");
    (second, of_first, of_second)
}

/// Waits until each of these was called a second time, holds that the others were not, ends them all, and holds that
/// each ended once, and was called no more.
async fn end_what_was_repeated(stage: Stage, repeated: &[JobId], kept: &[JobId]) {
    stage.called.until_called(repeated, 2).await;
    stage.called.assert_called_once(kept);
    stage.called.release();
    let (tokens, called) = stage.finish().await;
    called.assert_called_once(kept);
    for job in repeated {
        let calls = called.calls_of(*job);
        let [first, second] = calls[..] else { panic!("{job} was not called twice: {calls:?}") };
        assert!(first.cut && second.ended_at.is_some(), "{job}: {calls:?}");
    }
    let ends = tokens.ends();
    assert!(repeated.iter().chain(kept).all(|job| ends[job].status == JobStatus::Succeeded));
    assert_eq!(called.keys(), repeated.len() + kept.len(), "nobody was called under another key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_join_and_leave_cut_and_repeat_no_call() {
    let _turn = beside_others().await;
    // None of the calls would have left its partition yet, if no worker had come.
    let mut stage =
        Stage::start_with(|builder| builder.variable("MEANWHILE__WORKERS__DETACH_AFTER_MS", FOR_EVER_MS)).await;
    let jobs = stage.call("held", LONG).await;
    stage.called.until_open(LONG).await;
    for _ in 0..3 {
        let joined = stage.add_worker().await;
        // It has partitions of its own now: among jobs of many keys it gets some.
        until_quick_at(&mut stage, joined).await;
        let mut leaver = stage.system.roles().remove(joined);
        let status = leaver.terminate(PATIENCE).await.unwrap();
        assert!(status.success(), "a worker left with {status}");
    }
    stage.called.assert_called_once(&jobs);
    assert_eq!(stage.called.open(), LONG);
    assert!(!stage.watch.seen().running.is_empty(), "calls of partitions that were given away left them");
    stage.called.release();
    let (_, called) = stage.finish().await;
    called.assert_called_once(&jobs);
}

/// Submits quick jobs until this worker has run one.
async fn until_quick_at(stage: &mut Stage, place: usize) {
    eventually(PATIENCE, "the worker that joined runs steps", async || {
        stage.call("quick", 6).await;
        let ran = stage.system.roles()[place].metric("meanwhile_steps_total", "").await.unwrap_or(0.0);
        (ran > 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_a_worker_that_was_killed_are_made_again_and_end_once() {
    let _turn = beside_others().await;
    let mut stage = Stage::start_with(|builder| builder).await;
    let (second, of_first, of_second) = with_two_workers(&mut stage, 2 * LONG).await;
    stage.system.roles()[second].process().kill9();
    stage.system.roles().remove(second);
    end_what_was_repeated(stage, &of_second, &of_first).await;
}

/// Waits until this worker knows that it was given up; returns how often it has been.
pub(crate) async fn until_lease_is_lost(stage: &mut Stage, place: usize) -> f64 {
    eventually(PATIENCE, "the worker knows that it was given up", async || {
        let lost = stage.system.roles()[place].metric("meanwhile_leases_lost_total", "").await.unwrap_or(0.0);
        (lost > 0.0).then_some(lost)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_wakes_after_its_lease_ends_nothing_and_knows_it() {
    let _turn = beside_others().await;
    let mut stage = Stage::start_with(|builder| builder).await;
    let (second, of_first, of_second) = with_two_workers(&mut stage, 2 * LONG).await;
    stage.system.roles()[second].process().pause();
    stage.called.until_called(&of_second, 2).await;
    stage.called.release();
    stage.watch.until_all_ended(of_first.iter().chain(&of_second)).await;
    // Its calls have been answered, too: it has outcomes for all of them, once it is awake.
    stage.system.roles()[second].process().resume();
    until_lease_is_lost(&mut stage, second).await;
    let quick = stage.call("quick", 40).await;
    stage.system.wait_until_ended(quick, PATIENCE).await.unwrap();
    let (tokens, called) = stage.finish().await;
    called.assert_called_once(&of_first);
    for job in &of_second {
        let calls = called.calls_of(*job);
        assert!(matches!(calls[..], [_, Call { ended_at: Some(_), .. }]), "{job}: {calls:?}");
    }
    let ends = tokens.ends();
    assert!(of_first.iter().chain(&of_second).all(|job| ends[job].status == JobStatus::Succeeded));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_starts_again_hands_over_what_its_predecessor_had() {
    let _turn = beside_others().await;
    let mut stage = Stage::start_with(|builder| builder.variable("MEANWHILE__WORKERS__LEASE_MS", FOR_EVER_MS)).await;
    let (second, of_first, of_second) = with_two_workers(&mut stage, 2 * LONG).await;
    stage.system.roles()[second].restart().unwrap();
    stage.system.roles()[second].wait_until_ready().await.unwrap();
    end_what_was_repeated(stage, &of_second, &of_first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_hands_over_what_outlasts_its_drain_time_and_says_how_many() {
    let _turn = beside_others().await;
    let mut stage = Stage::start_with(|builder| {
        builder
            .variable("MEANWHILE__WORKERS__LEASE_MS", FOR_EVER_MS)
            .variable("MEANWHILE__WORKERS__DRAIN_TIMEOUT_MS", "500")
    })
    .await;
    let (second, of_first, of_second) = with_two_workers(&mut stage, 2 * LONG).await;
    let mut leaver = stage.system.roles().remove(second);
    let status = leaver.terminate(PATIENCE).await.unwrap();
    assert!(status.success(), "a worker left with {status}");
    let log = std::fs::read_to_string(leaver.process().log()).unwrap();
    let said = format!("\"calls\":{}", of_second.len());
    assert!(log.contains(&said), "{said} in {}", leaver.process().log_tail());
    end_what_was_repeated(stage, &of_second, &of_first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_lets_calls_end_that_end_in_time() {
    let _turn = beside_others().await;
    let mut stage =
        Stage::start_with(|builder| builder.variable("MEANWHILE__WORKERS__DRAIN_TIMEOUT_MS", FOR_EVER_MS)).await;
    let (second, of_first, of_second) = with_two_workers(&mut stage, 2 * LONG).await;
    let mut leaver = stage.system.roles().remove(second);
    let leaving = tokio::spawn(async move { leaver.terminate(PATIENCE).await });
    // These are in all partitions: the other worker runs those that were the leaver's, while its calls go on.
    let quick = stage.call("quick", 40).await;
    stage.system.wait_until_ended(quick, PATIENCE).await.unwrap();
    assert_eq!(stage.called.open(), 2 * LONG);
    stage.called.release();
    assert!(leaving.await.unwrap().unwrap().success());
    let (_, called) = stage.finish().await;
    called.assert_called_once(&of_first);
    called.assert_called_once(&of_second);
}
