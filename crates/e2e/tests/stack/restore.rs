//! The restore of docs/operating.md. The disks of Kafka, its controller and Postgres are copied at one moment. The
//! stack goes on and is lost. A stack from the copies brings every job that it knows to its end. At last Postgres alone
//! is put back, and the relay refuses it.

use std::time::{Duration, Instant};

use client::Client;
use flow::id::JobId;
use serde_json::json;
use test_kit::{eventually, kcat, submit};
use tokio_util::sync::CancellationToken;

use crate::compose::{API, BACK_WITHIN, KAFKA, KEY, Stack};
use crate::load::{ORDER, order};
use crate::reckoning::{every_job_ends_once, figures};
use crate::report::{Report, number, seconds};

const PROJECT: &str = "meanwhile-rehearsal";
/// The named volumes that hold what must not be lost.
const VOLUMES: [&str; 3] = ["controller-data", "kafka-data", "postgres-data"];
const SERVERS: [&str; 3] = ["kafka-controller", "kafka", "postgres"];
/// A part of the relay's message.
const REFUSAL: &str = "restored from a backup";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the ports of the compose stack for ten minutes: scripts/stack/rehearse-restore"]
async fn a_stack_restored_from_copies_of_one_moment_ends_every_job_that_it_knows_once() {
    let rate = number("RATE", 20);
    let mut report = Report::open();
    let stack = Stack::start(PROJECT).await;
    forget_copies(&stack).await;
    let stop = CancellationToken::new();
    let load = tokio::spawn(send(rate, stop.clone()));
    report.line(&format!("{rate} orders a second by Kafka and HTTP.\n"));

    tokio::time::sleep(seconds("BEFORE_S", 30)).await;
    let stood_still = copy_disks(&stack).await;
    report.line(&format!("- The copy: Kafka and Postgres stood still for {:.1} s.", stood_still.as_secs_f64()));
    tokio::time::sleep(seconds("AFTER_S", 30)).await;
    let accepted = stack.sql("select count(*) from ingest.acceptances").await.unwrap();
    report.line(&format!("- Accepted until the stack was lost: {accepted} jobs."));
    stack.compose(&["kill"]).await;
    stack.remove().await;
    stop.cancel();
    load.await.unwrap();

    restore_all(&stack, &mut report).await;
    let known = stack.sql("select job from ingest.acceptances").await.unwrap();
    let known: Vec<JobId> = known.lines().map(|line| line.parse().unwrap()).collect();
    assert!(!known.is_empty(), "the copy holds no jobs");
    let tokens = every_job_ends_once(&known).await;
    report.line(&format!("- At the end: known to the copy {}, {}.", known.len(), figures(&tokens)));
    restore_postgres_alone(&stack).await;
    report.line("- Postgres alone put back: the relay refuses it.");
    forget_copies(&stack).await;
}

/// Sends orders through both doors. Those that are not accepted meanwhile are nobody's promise.
async fn send(rate: u64, stop: CancellationToken) {
    let client = Client::with_key(API, KEY).unwrap();
    let mut first = 0;
    while !stop.is_cancelled() {
        let commands = (first..first + rate - 1).map(|number| {
            json!({ "flow": ORDER, "id": format!("rehearsal-{number}"), "input": order(number) }).to_string() + "\n"
        });
        let commands: String = commands.collect();
        let produce = move || kcat(&["-P", "-b", KAFKA, "-t", "meanwhile.commands"], commands.as_bytes());
        let produced = tokio::task::spawn_blocking(produce).await.unwrap();
        let accepted = submit(&client, ORDER, &format!("rehearsal-http-{first}"), &order(first)).await;
        if let Some(error) = produced.err().or(accepted.err()) {
            eprintln!("not accepted: {error:#}");
        }
        first += rate;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn copy_of(volume: &str) -> String {
    format!("{PROJECT}-copy-{volume}")
}

fn volume_of_stack(volume: &str) -> String {
    format!("{PROJECT}_{volume}")
}

/// Copies one volume's files over another's.
async fn copy_volume(stack: &Stack, from: &str, to: &str) {
    let (from, to) = (format!("{from}:/from:ro"), format!("{to}:/to"));
    let options = ["--network", "none", "--volume", &from, "--volume", &to];
    stack.shell(&options, "find /to -mindepth 1 -delete && cp -a /from/. /to/").await;
}

async fn forget_copies(stack: &Stack) {
    for volume in VOLUMES {
        stack.docker(&["volume", "rm", "--force", &copy_of(volume)]).await;
    }
}

/// All servers stand still while their disks are copied, so each copy holds all that the other servers have heard.
async fn copy_disks(stack: &Stack) -> Duration {
    let started = Instant::now();
    stack.compose(&[&["pause"], &SERVERS[..]].concat()).await;
    for volume in VOLUMES {
        copy_volume(stack, &volume_of_stack(volume), &copy_of(volume)).await;
    }
    stack.compose(&[&["unpause"], &SERVERS[..]].concat()).await;
    started.elapsed()
}

async fn restore_all(stack: &Stack, report: &mut Report) {
    let started = Instant::now();
    stack.compose(&[&["create"], &SERVERS[..]].concat()).await;
    for volume in VOLUMES {
        copy_volume(stack, &copy_of(volume), &volume_of_stack(volume)).await;
    }
    stack.up().await;
    let ready = started.elapsed();
    report.line(&format!("- From the copies to a stack that is ready: {:.1} s.", ready.as_secs_f64()));
    stack.an_order_goes_through("rehearsal-restored").await;
    report.line(&format!("- A new order went through after {:.1} s.", started.elapsed().as_secs_f64()));
}

/// An older Postgres beside a newer Kafka.
async fn restore_postgres_alone(stack: &Stack) {
    stack.compose(&["stop", "--timeout", "20"]).await;
    stack.compose(&["rm", "--force", "relay"]).await;
    copy_volume(stack, &copy_of("postgres-data"), &volume_of_stack("postgres-data")).await;
    stack.compose(&[&["start"], &SERVERS[..]].concat()).await;
    stack.compose(&["up", "--detach", "--no-deps", "relay"]).await;
    eventually(BACK_WITHIN, "the relay to refuse a Postgres that is older than Kafka", async || {
        stack.compose(&["logs", "--no-log-prefix", "relay"]).await.contains(REFUSAL).then_some(())
    })
    .await;
}
