//! `meanwhile flows stats`: how a flow's jobs ended lately, and how long they took, over HTTP only.

use std::process::ExitCode;

use client::{Durations, FlowStats, StepCounts};

use crate::cli::flows::StatsArgs;
use crate::jobs::explained;
use crate::table::table;

/// `meanwhile flows stats`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(args: StatsArgs) -> anyhow::Result<ExitCode> {
    let (client, window) = (args.api.client()?, Some(args.window.as_str()));
    if args.json {
        let document = client.flow_stats_document(&args.flow, window).await.map_err(explained)?;
        println!("{document:#}");
    } else {
        print!("{}", shown(&client.flow_stats(&args.flow, window).await.map_err(explained)?));
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(stats: &FlowStats) -> String {
    let FlowStats { flow, since, until, jobs, steps } = stats;
    let head = format!(
        "{flow}, {since} to {until}\n{} accepted ({} a second), {} ended ({} a second): \
         {} succeeded, {} failed, {} cancelled\n\n",
        jobs.accepted, jobs.accepted_per_s, jobs.ended, jobs.ended_per_s, jobs.succeeded, jobs.failed, jobs.cancelled
    );
    let whole = StepCounts {
        id: "(job)".to_owned(),
        succeeded: jobs.succeeded,
        skipped: 0,
        failed: jobs.failed,
        duration_ms: jobs.duration_ms,
    };
    let rows = steps.iter().chain([&whole]).map(row).collect();
    head + &table(["STEP", "SUCCEEDED", "SKIPPED", "FAILED", "MEAN", "P50", "P95", "P99"], rows)
}

fn row(step: &StepCounts) -> [String; 8] {
    let of =
        |pick: fn(&Durations) -> u64| step.duration_ms.as_ref().map_or_else(|| "-".to_owned(), |it| length(pick(it)));
    [
        step.id.clone(),
        step.succeeded.to_string(),
        step.skipped.to_string(),
        step.failed.to_string(),
        of(|durations| durations.mean),
        of(|durations| durations.p50),
        of(|durations| durations.p95),
        of(|durations| durations.p99),
    ]
}

/// With the three digits that are known of it.
fn length(ms: u64) -> String {
    let s = ms as f64 / 1_000.0;
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..10_000 => format!("{s:.2}s"),
        10_000..120_000 => format!("{s:.1}s"),
        120_000..7_200_000 => format!("{:.1}m", s / 60.0),
        _ => format!("{:.1}h", s / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use client::JobCounts;

    use super::*;

    #[test]
    fn a_length_is_told_in_the_unit_that_fits() {
        let told = [0, 999, 1_234, 12_345, 150_000, 9_000_000].map(length);
        assert_eq!(told, ["0ms", "999ms", "1.23s", "12.3s", "2.5m", "2.5h"]);
    }

    #[test]
    fn each_step_is_a_line_and_the_job_is_the_last() {
        let step =
            |id: &str, duration_ms| StepCounts { id: id.to_owned(), succeeded: 3, skipped: 1, failed: 0, duration_ms };
        let durations = Durations { mean: 80, p50: 75, p95: 1_400, p99: 2_000 };
        let stats = FlowStats {
            flow: "order".to_owned(),
            since: "2026-01-05T08:30:00.000Z".to_owned(),
            until: "2026-01-05T09:30:00.000Z".to_owned(),
            jobs: JobCounts {
                accepted: 4,
                accepted_per_s: 0.001,
                ended: 3,
                ended_per_s: 0.001,
                succeeded: 3,
                failed: 0,
                cancelled: 0,
                duration_ms: Some(durations),
            },
            steps: vec![step("reserve", Some(durations)), step("pack", None)],
        };
        let text = shown(&stats);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("4 accepted (0.001 a second), 3 ended"), "{text}");
        assert_eq!(
            lines[4].split_whitespace().collect::<Vec<_>>(),
            ["reserve", "3", "1", "0", "80ms", "75ms", "1.40s", "2.00s"]
        );
        assert!(lines[5].starts_with("pack") && lines[5].ends_with('-') && lines[6].starts_with("(job)"), "{text}");
    }
}
