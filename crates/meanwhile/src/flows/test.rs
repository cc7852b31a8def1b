//! `meanwhile flows test`: `prove` runs the cases; this reads and shows.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use prove::{CaseReport, FlowFile, read_cases, run_cases};
use setup::files;

use super::EXIT_BAD_INPUT;
use super::prove::told;
use crate::cli::flows::TestArgs;

/// Runs the cases of each file, and shows what differs.
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let reports = match reports(args) {
        Ok(reports) => reports,
        Err(error) => return super::bad_input(&error, EXIT_BAD_INPUT),
    };
    for report in &reports {
        print!("{}", shown(report));
    }
    let wrong = reports.iter().filter(|report| !report.differences.is_empty()).count();
    let (all, took) = (reports.len(), begun.elapsed());
    println!("cases: {all}; as expected: {}; different: {wrong}; {} ms", all - wrong, took.as_millis());
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn reports(args: &TestArgs) -> anyhow::Result<Vec<CaseReport>> {
    let mut reports = Vec::new();
    for path in &args.paths {
        super::expect_cases(path)?;
        for file in files::find_cases(path)? {
            reports.extend(reports_of(&file, args.only.as_deref())?);
        }
    }
    anyhow::ensure!(!reports.is_empty(), "no test case was found (*.test.yaml beside a flow)");
    Ok(reports)
}

fn reports_of(file: &Path, only: Option<&str>) -> anyhow::Result<Vec<CaseReport>> {
    let flow = files::read_as(&files::flow_of_cases(file), FlowFile::parse)?.map_err(|problems| told(&problems))?;
    let cases = files::read_as(file, |name, text, _| read_cases(name, text, &flow))?;
    let mut cases = cases.map_err(|problems| told(&problems))?;
    cases.cases.retain(|case| only.is_none_or(|only| case.name.contains(only)));
    Ok(run_cases(&flow, &cases))
}

fn shown(report: &CaseReport) -> String {
    let verdict = if report.differences.is_empty() { "ok       " } else { "different" };
    let mut text = format!("{verdict}  {}:{}  {}\n", report.file, report.line, report.name);
    for difference in &report.differences {
        let place = match difference.line {
            0 => String::new(),
            line => format!("{}:{line}: ", report.file),
        };
        let lines = format!("{place}{difference}").replace('\n', "\n    ");
        text.push_str(&format!("    {lines}\n"));
    }
    text
}
