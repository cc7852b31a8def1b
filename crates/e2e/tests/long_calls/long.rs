//! The same in the length that it has in life, with figures: `make test-long-calls`.

use std::time::{Duration, Instant};

use flow::id::JobId;
use test_kit::{KafkaOptions, PostgresOptions, Role, eventually};

use crate::comings::{until_lease_is_lost, with_two_workers};
use crate::figures::{Table, per_second, quantiles, rss_mib};
use crate::load::{at_rate, saturate};
use crate::stage::Stage;
use crate::turn::nearly_alone;

/// Only ends a run that hangs.
const PATIENCE: Duration = Duration::from_secs(900);
/// What is open in most of these.
const LONG: usize = 200;
/// Of quick jobs beside ten thousand long calls.
const RATE: u32 = 300;

async fn until_none_is_open(stage: &Stage) {
    eventually(PATIENCE, "no call is open", async || (stage.called.open() == 0).then_some(())).await;
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn worker_rss_mib(stage: &mut Stage) -> f64 {
    rss_mib(stage.system.role(Role::Workers).process().id())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-long-calls"]
async fn quick_jobs_never_stand_still_beside_thirty_calls_of_200_s() {
    let _turn = nearly_alone().await;
    let mut stage = Stage::start_as_it_is(|builder| builder).await;
    let long = stage.call("takes-200000", 30).await;
    stage.called.until_open(30).await;
    let began = Instant::now();
    let quick = saturate(&stage, &long, || stage.called.open() > 0).await;
    let ended = stage.watch.seen().ends.iter().filter(|(job, _)| !long.contains(job)).map(|(_, end)| end.0).collect();
    let ended: Vec<Instant> = ended;
    let until = ended.iter().copied().max().unwrap();
    let counts = per_second(ended.into_iter(), began, until);
    let mut table = Table::new("30 calls of 200 s, and quick one-step jobs through the same queue");
    let mean = counts.iter().sum::<usize>() / counts.len();
    table.row("quick jobs that ended, on the average", format!("{mean}/s, for {} s", counts.len()));
    table.row("in the slowest second", format!("{}", counts.iter().min().unwrap()));
    table.row("seconds without any", format!("{}", counts.iter().filter(|count| **count == 0).count()));
    table.row("per second", format!("{counts:?}"));
    table.show();
    let (tokens, called) = stage.finish_within(PATIENCE).await;
    called.assert_called_once(&long);
    assert_eq!(tokens.ends().len(), quick + long.len());
    assert!(counts.iter().all(|count| *count > 0), "a second without an end: {counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-long-calls"]
async fn ten_thousand_calls_of_five_minutes_leave_quick_jobs_their_latency() {
    let _turn = nearly_alone().await;
    let mut stage = Stage::start_as_it_is(|builder| builder).await;
    let mut table = Table::new("10,000 calls of five minutes on one worker, and 300 quick jobs a second");
    at_rate(&mut stage, RATE, Duration::from_secs(20)).await;
    let before = worker_rss_mib(&mut stage);
    let alone = at_rate(&mut stage, RATE, Duration::from_secs(60)).await;
    table.row("quick jobs without long calls, submit to final event", quantiles(alone));
    let began = Instant::now();
    let mut long = Vec::new();
    // In parts: a kernel cuts some of ten thousand connections to one service that are made at once.
    for _ in 0..10 {
        long.extend(stage.call("takes-300000", 1_000).await);
        stage.called.until_open(long.len()).await;
    }
    stage.watch.until_running(&long).await;
    table.row("10,000 calls open and known to take long after", seconds(began.elapsed()));
    let beside = at_rate(&mut stage, RATE, Duration::from_secs(60)).await;
    assert_eq!(stage.called.open(), long.len(), "all of them are still under way");
    table.row("quick jobs beside 10,000 long calls", quantiles(beside));
    let with = worker_rss_mib(&mut stage);
    table.row("the worker's resident memory, before and with them", format!("{before:.0} MiB, {with:.0} MiB"));
    until_none_is_open(&stage).await;
    let answered = Instant::now();
    stage.watch.until_all_ended(&long).await;
    table.row("the last one has ended, after the last answer", seconds(answered.elapsed()));
    table.row("the worker's resident memory afterwards", format!("{:.0} MiB", worker_rss_mib(&mut stage)));
    table.show();
    let (_, called) = stage.finish_within(PATIENCE).await;
    called.assert_called_once(&long);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-long-calls"]
async fn workers_that_come_and_go_for_five_minutes_cut_and_repeat_no_call() {
    let _turn = nearly_alone().await;
    let mut stage = Stage::start_as_it_is(|builder| builder).await;
    let mut long = stage.call("takes-320000", LONG).await;
    stage.called.until_open(LONG).await;
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(10));
    let (mut comings, mut joined) = (0, None);
    while began.elapsed() < Duration::from_secs(300) {
        ticks.tick().await;
        // These end within the leaver's drain time, wherever they are.
        long.extend(stage.call("takes-7000", 20).await);
        joined = match joined.take() {
            None => Some(stage.add_worker().await),
            Some(place) => {
                let mut leaver = stage.system.roles().remove(place);
                let status = leaver.terminate(PATIENCE).await.unwrap();
                assert!(status.success(), "a worker left with {status}");
                None
            }
        };
        comings += 1;
    }
    until_none_is_open(&stage).await;
    let mut table = Table::new("A worker joins or leaves every ten seconds for five minutes");
    table.row("comings and goings", format!("{comings}"));
    table.row("calls of 320 s and of 7 s meanwhile", format!("{}", long.len()));
    let repeated = long.iter().filter(|job| stage.called.calls_of(**job).len() > 1).count();
    let cut = long.iter().filter(|job| stage.called.calls_of(**job).iter().any(|call| call.cut)).count();
    table.row("cut, repeated", format!("{cut}, {repeated}"));
    table.show();
    let (_, called) = stage.finish_within(PATIENCE).await;
    called.assert_called_once(&long);
}

/// Waits until all of these were called again, and returns how long that took.
async fn until_called_again(stage: &Stage, jobs: &[JobId]) -> Duration {
    let began = Instant::now();
    stage.called.until_called(jobs, 2).await;
    began.elapsed()
}

/// Holds that the calls of a lost worker were made twice and ended once, and the others were made once.
async fn assert_lost_once(stage: Stage, mut table: Table, kept: &[JobId], lost: &[JobId]) {
    let (tokens, called) = stage.finish_within(PATIENCE).await;
    called.assert_called_once(kept);
    let twice = lost.iter().filter(|job| called.calls_of(**job).len() == 2).count();
    let ends = tokens.ends();
    let ended = lost.iter().filter(|job| ends.contains_key(job)).count();
    table.row("called twice, ended once", format!("{twice}, {ended}"));
    table.show();
    assert_eq!((twice, ended), (lost.len(), lost.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-long-calls"]
async fn a_thousand_calls_of_a_worker_that_was_killed_are_made_again_within_the_lease() {
    let _turn = nearly_alone().await;
    let mut stage = Stage::start_as_it_is(|builder| builder).await;
    let (second, kept, lost) = with_two_workers(&mut stage, 2_000).await;
    stage.system.roles()[second].process().kill9();
    stage.system.roles().remove(second);
    let after = until_called_again(&stage, &lost).await;
    let mut table = Table::new("`kill -9` of a worker with long calls, lease 20 s");
    table.row("calls of it that were made again", format!("{} of {}", lost.len(), kept.len() + lost.len()));
    table.row("all of them again after", seconds(after));
    stage.called.release();
    assert_lost_once(stage, table, &kept, &lost).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-long-calls"]
async fn a_worker_with_a_thousand_calls_that_wakes_after_its_lease_ends_none_of_them() {
    let _turn = nearly_alone().await;
    let mut stage = Stage::start_as_it_is(|builder| builder).await;
    let (second, kept, lost) = with_two_workers(&mut stage, 2_000).await;
    stage.system.roles()[second].process().pause();
    let after = until_called_again(&stage, &lost).await;
    stage.called.release();
    stage.watch.until_all_ended(kept.iter().chain(&lost)).await;
    stage.system.roles()[second].process().resume();
    let counted = until_lease_is_lost(&mut stage, second).await;
    let mut table = Table::new("A worker with long calls stands still for longer than its lease of 20 s, and wakes");
    table.row("calls of it that were made again", format!("{} of {}", lost.len(), kept.len() + lost.len()));
    table.row("all of them again after", seconds(after));
    table.row("`meanwhile_leases_lost_total` of the worker that woke", format!("{counted}"));
    assert_lost_once(stage, table, &kept, &lost).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-long-calls"]
async fn kafka_and_postgres_stopped_for_a_minute_each_repeat_no_call() {
    const OUTAGE: Duration = Duration::from_secs(60);
    let _turn = nearly_alone().await;
    let options = PostgresOptions { fsync: true, ..PostgresOptions::default() };
    let mut stage =
        Stage::start_as_it_is(|builder| builder.private_kafka(KafkaOptions::to_be_killed()).private_postgres(options))
            .await;
    let mut long = stage.call("held", LONG).await;
    stage.watch.until_running(&long).await;
    stage.system.postgres().kill9();
    tokio::time::sleep(OUTAGE).await;
    stage.system.postgres().restart().await.unwrap();
    long.extend(stage.call("held", LONG).await);
    stage.watch.until_running(&long).await;
    stage.system.kafka().kill9();
    tokio::time::sleep(OUTAGE).await;
    stage.system.kafka().restart().await.unwrap();
    long.extend(stage.call("held", LONG).await);
    stage.called.until_open(long.len()).await;
    // Whatever took an outage for silence would release calls within the next lease.
    tokio::time::sleep(OUTAGE).await;
    let repeated = long.iter().filter(|job| stage.called.calls_of(**job).len() > 1).count();
    let mut table = Table::new("Postgres, and then Kafka, stopped for a minute with long calls under way");
    table.row("long calls", format!("{}", long.len()));
    table.row("repeated", format!("{repeated}"));
    table.show();
    stage.called.release();
    let (_, called) = stage.finish_within(PATIENCE).await;
    called.assert_called_once(&long);
}
