//! Proofs and test cases of flows: each kind of finding has a flow that has it, and one that has not.

#![expect(clippy::unwrap_used, reason = "a test that meets an error fails")]

mod answers;
mod cases;
mod completions;
mod examples;
mod findings;
mod rests;
mod values;
mod verdicts;

use prove::{FlowFile, Options, Proof, prove};

/// The flow of this text; `$ref`s are theirs to avoid.
fn flow(text: &str) -> FlowFile {
    FlowFile::parse("flow.yaml", text, &mut |name| Err(format!("no {name} here"))).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

/// The proof of the flow of this text.
fn proved(text: &str) -> Proof {
    prove(&flow(text), &Options::default(), &mut |_| {}).unwrap()
}

/// The findings as `kind:step`, in the order of the file.
fn found(proof: &Proof) -> Vec<String> {
    let word =
        |finding: &prove::Finding| format!("{}:{}", finding.kind.as_str(), finding.step.as_deref().unwrap_or("result"));
    proof.findings.iter().map(word).collect()
}

/// The one finding of this kind and step, as it is told.
fn told(proof: &Proof, kind_and_step: &str) -> String {
    let at = found(proof).iter().position(|found| found == kind_and_step);
    proof.findings[at.unwrap_or_else(|| panic!("no {kind_and_step} in {:?}", found(proof)))].to_string()
}
