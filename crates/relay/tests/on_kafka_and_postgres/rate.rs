//! Not a test: how fast the relay drains, and what it adds at low load. Run with --release --ignored --nocapture.

use std::time::{Duration, Instant};

use test_kit::{Kafka, KafkaOptions, Postgres, PostgresOptions};

use crate::stage::{Stage, WITHIN};

const ROWS: u64 = 200_000;
const ROWS_PER_COMMIT: u64 = 100;
const VALUE_BYTES: usize = 300;

/// Whether to count a process, by its id and title.
type Fits = Box<dyn Fn(u32, &str) -> bool>;

/// CPU seconds of a process, or of all with this word in their title.
fn cpu_seconds(fits: impl Fn(u32, &str) -> bool) -> f64 {
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let title = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(')') else { continue };
        if fits(pid, &title) {
            ticks += fields.split_whitespace().skip(11).take(2).map(|t| t.parse::<u64>().unwrap()).sum::<u64>();
        }
    }
    ticks as f64 / 100.0
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn drain_rate_and_added_latency() {
    let kafka = Kafka::start(KafkaOptions { full_jit: true, ..KafkaOptions::default() }).await.unwrap();
    let postgres = Postgres::start(PostgresOptions { fsync: true, ..PostgresOptions::default() }).await.unwrap();
    let stage = Stage::on(&kafka.brokers(), postgres.create_database("outbox").unwrap()).await;
    let record = |number: u64| {
        let mut record = stage.record(number, 1_000);
        let text = format!("{:0>1$}", number, VALUE_BYTES);
        record.value = Some(text.into_bytes());
        record
    };
    for round in 0..2 {
        for first in (round * ROWS..(round + 1) * ROWS).step_by(ROWS_PER_COMMIT as usize) {
            let records: Vec<_> = (first..first + ROWS_PER_COMMIT).map(record).collect();
            stage.commit_records(&records).await;
        }
        let (ours, theirs) = (std::process::id(), kafka.id());
        let looks: [(&str, Fits); 3] = [
            ("relay", Box::new(move |pid, _| pid == ours)),
            ("kafka", Box::new(move |pid, _| pid == theirs)),
            ("postgres walsender", Box::new(|_, title| title.contains("walsender"))),
        ];
        let before: Vec<f64> = looks.iter().map(|(_, fits)| cpu_seconds(fits)).collect();
        let started = Instant::now();
        let mut relay = stage.start();
        while relay.delivered.borrow().is_none() {
            relay.delivered.changed().await.unwrap();
        }
        let first = started.elapsed();
        relay.relayed((round + 1) * ROWS).await;
        let took = started.elapsed() - first;
        println!("round {round}: first transaction after {first:?}; {ROWS} rows in {took:?}");
        println!("  {:.0} rows/s", ROWS as f64 / took.as_secs_f64());
        for ((name, fits), before) in looks.iter().zip(before) {
            println!("  {name}: {:.2} s CPU", cpu_seconds(fits) - before);
        }
        relay.stop().await;
    }

    let mut relay = stage.start();
    let mut delays = Vec::new();
    let mut next = 2 * ROWS;
    stage.commit_records(&[record(next)]).await;
    relay.relayed(next + 1).await;
    for per_s in [20, 200, 1_000] {
        let mut ticks = tokio::time::interval(Duration::from_millis(1_000 / per_s));
        for _ in 0..(per_s * 5).min(2_000) {
            ticks.tick().await;
            next += 1;
            let mut tx = stage.pool.begin().await.unwrap();
            store::outbox::append(&mut tx, &[record(next)]).await.unwrap();
            tx.commit().await.unwrap();
            let (committed, wanted, mut delivered) = (Instant::now(), next + 1, relay.delivered.clone());
            delays.push(tokio::spawn(async move {
                let there =
                    |position: &Option<events::position::Position>| position.is_some_and(|p| p.relayed >= wanted);
                tokio::time::timeout(WITHIN, delivered.wait_for(there)).await.unwrap().unwrap();
                committed.elapsed()
            }));
        }
        let mut sorted = Vec::new();
        for delay in delays.drain(..) {
            sorted.push(delay.await.unwrap());
        }
        sorted.sort();
        let at = |share: f64| sorted[(sorted.len() as f64 * share) as usize];
        println!("{per_s}/s: commit to Kafka commit p50 {:?} p99 {:?}", at(0.5), at(0.99));
    }
    relay.stop().await;
}
