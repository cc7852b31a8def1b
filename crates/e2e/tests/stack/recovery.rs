//! Each dependency is killed, stays away for a minute and is started again; the shop is frozen; each role is killed and
//! has to come back by the engine's restart policy.

use std::time::{Duration, Instant};

use test_kit::eventually;

use crate::compose::{BACK_WITHIN, ROLES, Stack};
use crate::load::Load;
use crate::reckoning::{every_job_ends_once, figures, the_books_agree};
use crate::report::{Report, number, seconds};

const DEPENDENCIES: [&str; 4] = ["kafka", "kafka-controller", "postgres", "registry"];
/// A stack that has caught up has no open job older than this, s.
const CAUGHT_UP_S: u64 = 10;
/// The age of the oldest job that is neither at its end nor parked, s.
const OLDEST_OPEN_S: &str = "select coalesce(max(extract(epoch from now() - accepted_at)), 0)::int \
    from orchestrator.jobs where status not in ('succeeded', 'failed', 'cancelled', 'needs_attention')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the ports of the compose stack for twenty minutes: scripts/stack/recovery"]
async fn a_stack_comes_back_from_each_fault_and_every_order_ends_once() {
    let (rate, away) = (number("RATE", 20), seconds("AWAY_S", 60));
    let mut report = Report::open();
    let stack = Stack::start("meanwhile-recovery").await;
    let load = Load::start(rate);
    comes_back(&stack).await;

    report.line(&format!("{rate} orders a second. Seconds until an order goes through again, and until no open job"));
    report.line(&format!("is older than {CAUGHT_UP_S} s, from the restart of a dependency or the end of a role on."));
    report.line("\n| fault | an order goes through | caught up |\n| --- | --- | --- |");
    for dependency in DEPENDENCIES {
        stack.compose(&["kill", "--signal", "KILL", dependency]).await;
        tokio::time::sleep(away).await;
        stack.compose(&["start", dependency]).await;
        row(&mut report, &stack, &format!("{dependency}: killed, away for {} s", away.as_secs())).await;
    }
    stack.compose(&["pause", "shop"]).await;
    tokio::time::sleep(away).await;
    stack.compose(&["unpause", "shop"]).await;
    row(&mut report, &stack, &format!("shop: frozen for {} s", away.as_secs())).await;
    for role in ROLES {
        for container in stack.containers(role).await {
            crash(&stack, &container).await;
        }
        row(&mut report, &stack, &format!("{role}: all its processes killed")).await;
    }

    println!("the load stops; every job has to end");
    let accepted = load.stop().await;
    let tokens = every_job_ends_once(&accepted).await;
    the_books_agree(&tokens).await;
    report.line(&format!("\nAccepted by the load {}, {}; the shop's books agree.", accepted.len(), figures(&tokens)));
    report.line(&format!("Containers restarted by the engine: {}.", restarts(&stack).await));
}

async fn row(report: &mut Report, stack: &Stack, fault: &str) {
    let (first, caught_up) = comes_back(stack).await;
    report.line(&format!("| {fault} | {:.1} | {:.1} |", first.as_secs_f64(), caught_up.as_secs_f64()));
}

/// How long, from now on, until a new order has gone through, and until the old ones have.
async fn comes_back(stack: &Stack) -> (Duration, Duration) {
    let started = Instant::now();
    stack.an_order_goes_through(&uuid::Uuid::now_v7().to_string()).await;
    let first = started.elapsed();
    eventually(BACK_WITHIN, "the jobs of the time before to end", async || {
        let age_s: u64 = stack.sql(OLDEST_OPEN_S).await?.parse().ok()?;
        (age_s <= CAUGHT_UP_S).then_some(())
    })
    .await;
    (first, started.elapsed())
}

/// SIGKILL from outside, as the kernel sends it when memory is short. The engine sees a crash and no wish of ours, so
/// its restart policy holds.
async fn crash(stack: &Stack, container: &str) {
    let pid = stack.docker(&["inspect", "-f", "{{.State.Pid}}", container]).await;
    stack.shell(&["--pid", "host"], &format!("kill -9 {pid}")).await;
}

async fn restarts(stack: &Stack) -> u64 {
    let mut sum = 0;
    for container in stack.compose(&["ps", "--quiet"]).await.lines() {
        let count = stack.docker(&["inspect", "-f", "{{.RestartCount}}", container]).await;
        sum += count.parse::<u64>().unwrap();
    }
    sum
}
