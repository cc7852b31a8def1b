//! The figures: shown as they come, and written as JSON at the end.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::usage::{self, Use};

/// Latencies in microseconds up to a minute, three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order and three digits are allowed")
}

/// Counts one latency; what is beyond the bounds counts as the bound.
pub(crate) fn count(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
}

/// Tells the person at the terminal.
#[expect(clippy::print_stdout, reason = "figures are this program's output")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// One number.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
}

/// Processor time of one process during a measurement.
#[derive(Debug, Clone, Serialize)]
struct Share {
    process: String,
    cpu_s: f64,
    /// Of all processors.
    percent: f64,
}

/// One measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Section {
    title: String,
    figures: Vec<Figure>,
    cpu: Vec<Share>,
}

impl Section {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), figures: vec![], cpu: vec![] }
    }

    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit });
    }

    /// The middle and the tail of some latencies, in milliseconds.
    pub(crate) fn latencies(&mut self, name: &str, histogram: &Histogram<u64>) {
        for (word, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            self.figure(format!("{name} {word}"), histogram.value_at_quantile(quantile) as f64 / 1e3, "ms");
        }
    }

    /// The use of the processors.
    pub(crate) fn usage(&mut self, used: &Use) {
        let share = |process: &str, cpu_s: f64| Share {
            process: process.to_owned(),
            cpu_s,
            percent: 100.0 * cpu_s / used.cpu_s_max.max(f64::MIN_POSITIVE),
        };
        self.cpu.extend(used.cpu_s.iter().map(|(process, cpu_s)| share(process, *cpu_s)));
        self.cpu.sort_by(|a, b| b.cpu_s.total_cmp(&a.cpu_s));
        self.cpu.push(share("(not ours)", used.others_cpu_s));
    }

    fn show(&self) {
        say(&format!("\n{}", self.title));
        for Figure { name, value, unit } in &self.figures {
            say(&format!("  {name:<44} {:>12} {unit}", shown(*value)));
        }
        for Share { process, cpu_s, percent } in &self.cpu {
            say(&format!("    cpu {process:<40} {cpu_s:>10.2} s {percent:>9.1} % of all processors"));
        }
    }
}

fn shown(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        small if small < 1.0 => format!("{value:.3}"),
        _ => format!("{value:.1}"),
    }
}

/// Everything that was measured in one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: String,
    load_average_before: f64,
    load_average_after: f64,
    sections: Vec<Section>,
}

impl Report {
    pub(crate) fn begin() -> Result<Self> {
        let machine = usage::machine();
        let load_average_before = usage::load_average();
        say(&format!("{machine}; load average {load_average_before}"));
        Ok(Self { machine, load_average_before, load_average_after: 0.0, sections: vec![] })
    }

    /// Shows a section and keeps it.
    pub(crate) fn add(&mut self, section: Section) {
        section.show();
        self.sections.push(section);
    }

    /// Writes what there is.
    pub(crate) fn end(mut self, json: Option<&Path>) -> Result<()> {
        self.load_average_after = usage::load_average();
        let Some(path) = json else { return Ok(()) };
        let text = serde_json::to_string_pretty(&self).context("the figures as JSON")?;
        fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        say(&format!("\nwritten to {}", path.display()));
        Ok(())
    }
}
