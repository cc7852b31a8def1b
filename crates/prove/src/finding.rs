//! Findings of a proof: each names its kind, its place, and the shortest story that leads there.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A job has ended, what a step did may stand, and nothing undoes it.
    EffectStands,
    /// A compensation cannot be evaluated.
    CompensationFails,
    /// The result cannot be evaluated.
    ResultFails,
    /// A step's own call cannot be evaluated.
    CallFails,
    /// A condition cannot be evaluated.
    WhenFails,
    /// A step that is not idempotent runs a second time after it was done.
    RunsTwice,
    /// A job rests, and nothing can end it.
    NeverEnds,
    /// A condition always holds, or never does.
    BranchNeverTaken,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::EffectStands,
        Self::CompensationFails,
        Self::ResultFails,
        Self::CallFails,
        Self::WhenFails,
        Self::RunsTwice,
        Self::NeverEnds,
        Self::BranchNeverTaken,
    ];

    /// The word on the command line and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EffectStands => "effect-stands",
            Self::CompensationFails => "compensation-fails",
            Self::ResultFails => "result-fails",
            Self::CallFails => "call-fails",
            Self::WhenFails => "when-fails",
            Self::RunsTwice => "runs-twice",
            Self::NeverEnds => "never-ends",
            Self::BranchNeverTaken => "branch-never-taken",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Its kind.
    pub kind: Kind,
    /// The step; none for the result.
    pub step: Option<String>,
    /// The flow's file.
    pub file: String,
    /// The line, from 1; 0 when it is not known.
    pub line: u32,
    /// The column, from 1; 0 when it is not known.
    pub column: u32,
    /// The finding, in a sentence.
    pub message: String,
    /// The input that the story begins with, where it matters.
    pub input: Option<Value>,
    /// The shortest story that leads there, one sentence each.
    pub story: Vec<String>,
    /// The remedy.
    pub help: String,
}

impl Finding {
    /// The finding for programs.
    pub fn to_json(&self) -> Value {
        json!({
            "kind": self.kind.as_str(),
            "step": self.step,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "message": self.message,
            "input": self.input,
            "story": self.story,
            "help": self.help,
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n  --> {}", self.kind.as_str(), self.message, self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if let Some(input) = &self.input {
            write!(f, "\n   The input is {input}")?;
        }
        for (number, sentence) in (1..).zip(&self.story) {
            write!(f, "\n   {number:>2}. {sentence}")?;
        }
        write!(f, "\n   = help: {}", self.help)
    }
}

/// A finding that a person has decided to live with: `effect-stands:notify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    kind: Kind,
    /// The step; `result` stands for the result.
    place: String,
}

impl Accepted {
    /// True if it speaks of this finding.
    pub fn covers(&self, finding: &Finding) -> bool {
        self.kind == finding.kind && self.place == finding.step.as_deref().unwrap_or("result")
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.place)
    }
}

impl FromStr for Accepted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kinds = Kind::ALL.map(Kind::as_str).join(", ");
        let expected = || format!("expected KIND:STEP, such as effect-stands:notify; kinds: {kinds}");
        let (word, place) = text.split_once(':').ok_or_else(expected)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(expected)?;
        Ok(Self { kind, place: place.to_owned() })
    }
}
