//! Three-step native jobs a second, from HTTP to the final event on Kafka, everything on one machine at saturation.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use test_kit::Role;

use crate::figures::{Report, Section};
use crate::load::{Asked, Until, closed_loop};
use crate::system::{Servers, System};
use crate::usage::{Memory, Window};
use crate::watch::Watch;

/// `bench throughput`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Jobs that are measured
    #[arg(long, default_value_t = 20_000)]
    jobs: u64,
    /// Jobs before them
    #[arg(long, default_value_t = 5_000)]
    warm_up_jobs: u64,
    /// Connections that submit at once
    #[arg(long, default_value_t = 64)]
    connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { jobs: 20_000, warm_up_jobs: 5_000, connections: 64 }
    }
}

pub(crate) async fn run(servers: &Servers, options: &Options, report: &mut Report) -> Result<()> {
    let mut system = System::prepare(servers).await?;
    system.start(&Role::ALL).await?;
    let mut watch = Watch::start(servers, &system).await?;
    let address = system.address()?;
    let warm = closed_loop(address, Asked::Job, options.connections, Until::Requests(options.warm_up_jobs));
    let (warm, ended) = tokio::join!(warm, watch.ends(options.warm_up_jobs));
    warm?;
    ended?;

    let window = Window::begin([system.counted(), servers.counted()].concat())?;
    let began = Instant::now();
    let submit = closed_loop(address, Asked::Job, options.connections, Until::Requests(options.jobs));
    let (submitted, ended) = tokio::join!(submit, watch.ends(options.jobs));
    let (submitted, took) = (submitted?, ended?.duration_since(began));
    let used = window.end()?;

    let jobs = options.jobs as f64;
    let mut section = Section::new(format!(
        "throughput: {} three-step native jobs, {} connections, one process per role",
        options.jobs, options.connections
    ));
    section.figure("jobs end to end", jobs / took.as_secs_f64(), "jobs/s");
    section.figure("accepted meanwhile", submitted.per_s(), "requests/s");
    section.latencies("request to 202", &submitted.latencies);
    section.figure("cpu per job, all processes", 1e3 * used.total_cpu_s() / jobs, "ms");
    for (process, cpu_s) in &used.cpu_s {
        section.figure(format!("cpu per job, {process}"), 1e3 * cpu_s / jobs, "ms");
    }
    show_memory(&mut section, &system.memory()?);
    section.usage(&used);
    report.add(section);
    system.stop().await
}

fn show_memory(section: &mut Section, memory: &[(String, Memory)]) {
    for (role, held) in memory {
        section.figure(format!("memory of {role}, resident (peak)"), held.peak_mib, "MiB");
    }
    let sum = |of: fn(&Memory) -> f64| memory.iter().map(|(_, held)| of(held)).sum();
    section.figure("memory of all roles, resident (peaks)", sum(|held| held.peak_mib), "MiB");
    section.figure("memory of all roles, resident (at the end)", sum(|held| held.rss_mib), "MiB");
    section.figure("memory of all roles, shared pages once", sum(|held| held.pss_mib), "MiB");
}
