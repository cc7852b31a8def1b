//! What a long run measures: a table for docs/performance.md.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// Rows of a table, told as they come.
#[derive(Debug)]
pub(crate) struct Table {
    title: &'static str,
    rows: Vec<(String, String)>,
}

impl Table {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, rows: vec![] }
    }

    pub(crate) fn row(&mut self, what: impl Into<String>, figure: impl Into<String>) {
        self.rows.push((what.into(), figure.into()));
    }

    pub(crate) fn show(&self) {
        let rows = self.rows.iter().map(|(what, figure)| format!("| {what} | {figure} |\n")).collect::<String>();
        eprintln!("\n### {}\n\n| what | figure |\n|---|---|\n{rows}", self.title);
    }
}

/// The middle and the tail.
pub(crate) fn quantiles(mut latencies: Vec<Duration>) -> String {
    latencies.sort_unstable();
    let at = |quantile: f64| {
        let index = (latencies.len() as f64 * quantile) as usize;
        latencies.get(index.min(latencies.len().saturating_sub(1))).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    format!("p50 {:.1} ms, p99 {:.1} ms, of {}", at(0.5), at(0.99), latencies.len())
}

/// How many of these moments lie in each second from `from` to `until`; the last second only where it is whole.
pub(crate) fn per_second(moments: impl Iterator<Item = Instant>, from: Instant, until: Instant) -> Vec<usize> {
    let mut counts = vec![0; (until - from).as_secs() as usize];
    for moment in moments {
        let second = moment.checked_duration_since(from).map(|since| since.as_secs() as usize);
        if let Some(count) = second.and_then(|second| counts.get_mut(second)) {
            *count += 1;
        }
    }
    counts
}

/// Resident memory of a process, MiB.
pub(crate) fn rss_mib(id: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let fields: BTreeMap<&str, &str> = status.lines().filter_map(|line| line.split_once(':')).collect();
    let kib: f64 = fields["VmRSS"].trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1024.0
}
