//! A disk that takes its time to write through.

use std::time::Duration;

use anyhow::Result;

use crate::process::{Launch, Process};

const ATTACH_WITHIN: Duration = Duration::from_secs(10);

/// Each `fsync` of a process takes longer while this lives.
#[derive(Debug)]
pub struct SlowDisk(Process);

impl SlowDisk {
    /// Slows the process down, and those that it has started or starts. Returns when that has begun.
    pub(crate) async fn of(process: &Process, fsync: Duration) -> Result<Self> {
        let calls = "fsync,fdatasync";
        let mut launch = Launch::new("slow-disk", "strace").args(["--follow-forks", "--output=/dev/null"]);
        launch = launch.arg(format!("--trace={calls}"));
        launch = launch.arg(format!("--inject={calls}:delay_enter={}", fsync.as_micros()));
        let ids = process.family();
        for id in &ids {
            launch = launch.arg(format!("--attach={id}"));
        }
        let mut tracer = Process::start(launch)?;
        let traced = async || ids.iter().all(|id| is_traced(*id));
        tracer.wait_until(ATTACH_WITHIN, "it is attached", traced).await?;
        Ok(Self(tracer))
    }

    /// Lets it be as fast as before.
    pub fn end(mut self) {
        self.0.kill9();
    }
}

/// True for one that has ended, too.
fn is_traced(id: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"));
    !status.is_ok_and(|status| status.lines().any(|line| line == "TracerPid:\t0"))
}
