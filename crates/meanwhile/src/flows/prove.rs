//! `meanwhile flows prove`: `prove` decides; this reads and shows.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use flow::definition::Problem;
use prove::{FlowFile, Options, Proof, prove};
use serde_json::{Value, json};
use setup::files;

use super::EXIT_BAD_INPUT;
use crate::cli::flows::ProveArgs;

/// The exit code for a flow that has more states than were to be visited, and in which nothing was found so far.
const EXIT_INCOMPLETE: u8 = 3;
/// A proof that takes longer says how far it is.
const SILENT_FOR: Duration = Duration::from_secs(2);

/// Proves each flow, and shows what was found.
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) fn run(args: &ProveArgs) -> anyhow::Result<ExitCode> {
    match proofs(args) {
        Ok(proofs) => {
            if args.json {
                println!("{:#}", Value::Array(proofs.iter().map(|(proof, took)| with_time(proof, *took)).collect()));
            } else {
                proofs.iter().for_each(|(proof, took)| print!("{}", shown(proof, *took, args.states_max)));
            }
            let proofs: Vec<&Proof> = proofs.iter().map(|(proof, _)| proof).collect();
            Ok(match () {
                () if proofs.iter().any(|proof| !proof.findings.is_empty()) => ExitCode::FAILURE,
                () if proofs.iter().any(|proof| !proof.is_complete) => ExitCode::from(EXIT_INCOMPLETE),
                () => ExitCode::SUCCESS,
            })
        }
        Err(error) => super::bad_input(&error, EXIT_BAD_INPUT),
    }
}

fn proofs(args: &ProveArgs) -> anyhow::Result<Vec<(Proof, Duration)>> {
    let mut options = Options { states_max: args.states_max, accepted: args.accept.clone(), ..Options::default() };
    for file in &args.input {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        options.inputs.push(serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?);
    }
    let mut proofs = Vec::new();
    for path in &args.paths {
        super::expect_flow(path)?;
        for file in files::find(path)? {
            proofs.push(proof(&file, &options)?);
        }
    }
    Ok(proofs)
}

#[expect(clippy::print_stderr, reason = "progress of a command")]
fn proof(file: &Path, options: &Options) -> anyhow::Result<(Proof, Duration)> {
    let flow = files::read_as(file, FlowFile::parse)?.map_err(|problems| told(&problems))?;
    let begun = Instant::now();
    let mut told_after = SILENT_FOR;
    let mut progress = |states: usize| {
        if begun.elapsed() > told_after {
            eprintln!("{}: {states} states so far", flow.definition.name());
            told_after = begun.elapsed() + SILENT_FOR;
        }
    };
    let proof = prove(&flow, options, &mut progress).map_err(|problem| told(&[problem]))?;
    Ok((proof, begun.elapsed()))
}

/// Problems as an error.
pub(super) fn told(problems: &[Problem]) -> anyhow::Error {
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    anyhow::anyhow!("{}", told.join("\n\n"))
}

fn with_time(proof: &Proof, took: Duration) -> Value {
    let mut json = proof.to_json();
    json["took_ms"] = json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    json
}

fn shown(proof: &Proof, took: Duration, states_max: usize) -> String {
    let mut text = String::new();
    for finding in &proof.findings {
        text.push_str(&format!("{finding}\n\n"));
    }
    for unused in &proof.unused {
        text.push_str(&format!("{}: nothing was found that `--accept {unused}` speaks of\n", proof.flow));
    }
    for step in &proof.assumed {
        text.push_str(&format!(
            "{}: the `when` of `{step}` was taken both ways: no values were found that give it both\n",
            proof.flow
        ));
    }
    let verdict = match (proof.findings.len(), proof.is_complete) {
        (0, true) => "proved".to_owned(),
        (0, false) => format!("not proved: more than {states_max} states (--states-max)"),
        (1, _) => "1 finding".to_owned(),
        (count, _) => format!("{count} findings"),
    };
    let accepted = match proof.accepted.len() {
        0 => String::new(),
        count => format!(", {count} accepted"),
    };
    let (flow, states) = (&proof.flow, proof.states);
    text.push_str(&format!("{flow}: {verdict}{accepted}; {states} states in {:.2} s\n", took.as_secs_f64()));
    text
}
