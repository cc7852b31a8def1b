//! A seeded simulation of the whole system around the pure core: it repeats, reorders, delays, fails, kills and
//! reassigns, and after every commit asks the [`ledger`] whether all promises still hold.
//!
//! `SIM_SEED=7 cargo test -p flow --test simulation` replays one seed; `SIM_SEEDS=100000` runs more of them.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]

mod apart;
mod breaker;
mod cancel;
mod chance;
mod clock;
mod completions;
mod generate;
mod late;
mod ledger;
mod losses;
mod once;
mod operator;
mod sandbox;
mod service;
mod signals;
mod tally;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// Runs without a request for more.
const SEEDS_DEFAULT: u64 = 12_000;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64) -> tally::Tally {
    match catch_unwind(AssertUnwindSafe(|| world::World::new(seed).run())) {
        Ok(tally) => tally,
        Err(cause) => {
            let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
            panic!("SIM_SEED={seed}: {}", text.unwrap_or("it panicked"));
        }
    }
}

#[test]
fn every_job_ends_exactly_once_whatever_is_killed_repeated_or_late() {
    if let Some(seed) = setting("SIM_SEED") {
        println!("{:#?}", run(seed));
        return;
    }
    let seeds = setting("SIM_SEEDS").unwrap_or(SEEDS_DEFAULT);
    let threads = 2;
    let runs: Vec<_> = (0..threads)
        .map(|thread| thread::spawn(move || (0..seeds).filter(|seed| seed % threads == thread).map(run).sum()))
        .collect();
    let tallies = runs.into_iter().map(|run| run.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause)));
    let tally: tally::Tally = tallies.sum();
    println!("{seeds} seeds: {tally:?}");
    // Check the checker: whatever the simulation promises to do, it has done often.
    for (what, count) in tally.named() {
        assert!(seeds < 1_000 || count > seeds / 100, "the simulation has hardly tried `{what}`: {count}");
    }
}
