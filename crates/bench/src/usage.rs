//! The use of processors and memory, from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

/// The unit of processor time in /proc: USER_HZ, 100 on every Linux that we know.
const TICKS_PER_S: f64 = 100.0;
const KIB_PER_MIB: f64 = 1024.0;

/// A named process whose use is counted, with all processes below it.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    pub(crate) name: String,
    pub(crate) id: u32,
}

impl Counted {
    pub(crate) fn new(name: impl Into<String>, id: u32) -> Self {
        Self { name: name.into(), id }
    }
}

/// The use between two moments.
#[derive(Debug, Clone)]
pub(crate) struct Use {
    /// Processor seconds by process.
    pub(crate) cpu_s: BTreeMap<String, f64>,
    /// Processor seconds of everything on this machine that is not in `cpu_s`: other people's load, and the kernel's.
    pub(crate) others_cpu_s: f64,
    /// Processor seconds that there were.
    pub(crate) cpu_s_max: f64,
}

impl Use {
    pub(crate) fn total_cpu_s(&self) -> f64 {
        self.cpu_s.values().sum()
    }
}

/// A running count.
#[derive(Debug)]
pub(crate) struct Window {
    counted: Vec<Counted>,
    began: Instant,
    before: Vec<f64>,
    busy_before_s: f64,
}

impl Window {
    /// Begins to count these processes, and us as `load`.
    pub(crate) fn begin(mut counted: Vec<Counted>) -> Result<Self> {
        counted.push(Counted::new("load", std::process::id()));
        let before = cpu_s(&counted)?;
        Ok(Self { before, busy_before_s: busy_s()?, began: Instant::now(), counted })
    }

    /// Ends the count.
    pub(crate) fn end(self) -> Result<Use> {
        let wall_s = self.began.elapsed().as_secs_f64();
        let busy_s = busy_s()? - self.busy_before_s;
        let mut used = BTreeMap::new();
        for ((counted, before), after) in self.counted.iter().zip(&self.before).zip(cpu_s(&self.counted)?) {
            // Two processes of one role count as one.
            *used.entry(counted.name.clone()).or_insert(0.0) += (after - before).max(0.0);
        }
        let ours_s: f64 = used.values().sum();
        let others_cpu_s = (busy_s - ours_s).max(0.0);
        Ok(Use { cpu_s: used, others_cpu_s, cpu_s_max: wall_s * cpus() as f64 })
    }
}

/// The number of processors.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Memory of one process in MiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) rss_mib: f64,
    /// Resident at most, so far.
    pub(crate) peak_mib: f64,
    /// Resident now, with what is shared counted in equal parts.
    pub(crate) pss_mib: f64,
}

/// The memory of a process.
pub(crate) fn memory(id: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).context("a process's status")?;
    // Only root may read every process's; without it the figure is left out.
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    Ok(Memory {
        rss_mib: field_mib(&status, "VmRSS:"),
        peak_mib: field_mib(&status, "VmHWM:"),
        pss_mib: field_mib(&rollup, "Pss:"),
    })
}

fn field_mib(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / KIB_PER_MIB
}

/// The machine, in one line.
pub(crate) fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, model)| model));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let gib = field_mib(&memory, "MemTotal:") / 1024.0;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} x {}, {gib:.0} GiB, Linux {}", cpus(), model.unwrap_or("?"), kernel.trim())
}

/// The load average over the last minute.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// Processor seconds of each so far, with everything below it.
fn cpu_s(counted: &[Counted]) -> Result<Vec<f64>> {
    let all = processes()?;
    Ok(counted.iter().map(|process| tree_cpu_s(&all, process.id)).collect())
}

struct Stat {
    id: u32,
    parent: u32,
    cpu_s: f64,
}

/// The use of `root` and its descendants. We are everybody's parent and are counted alone.
fn tree_cpu_s(all: &[Stat], root: u32) -> f64 {
    let mut ids = vec![root];
    let mut next = 0;
    while root != std::process::id() && next < ids.len() {
        let parent = ids[next];
        ids.extend(all.iter().filter(|stat| stat.parent == parent).map(|stat| stat.id));
        next += 1;
    }
    all.iter().filter(|stat| ids.contains(&stat.id)).map(|stat| stat.cpu_s).sum()
}

fn processes() -> Result<Vec<Stat>> {
    let entries = fs::read_dir("/proc").context("/proc")?.flatten();
    Ok(entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            // It may have ended meanwhile.
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            stat_of(id, &stat)
        })
        .collect())
}

/// Own time; for others than us also that of children which have ended (a Postgres backend that left).
fn stat_of(id: u32, stat: &str) -> Option<Stat> {
    // pid (name) state parent ...: the name may hold anything, so count from its last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |range: std::ops::Range<usize>| -> Option<f64> {
        fields.get(range)?.iter().map(|field| field.parse::<f64>().ok()).sum()
    };
    let counted = if id == std::process::id() { 11..13 } else { 11..15 };
    Some(Stat { id, parent: fields.get(1)?.parse().ok()?, cpu_s: ticks(counted)? / TICKS_PER_S })
}

/// Processor seconds that this machine has been busy since it started.
fn busy_s() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let first = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let busy: f64 = ticks.iter().take(8).enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, t)| t).sum();
    Ok(busy / TICKS_PER_S)
}
