//! Faults of a flow file, told so that a person can mend them.

use std::fmt;

/// One thing that is wrong with a flow file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, as it was given.
    pub file: String,
    /// The line, from 1; 0 when it is not known (a document that is not a file).
    pub line: u32,
    /// The column, from 1; 0 when it is not known.
    pub column: u32,
    /// The fault.
    pub message: String,
    /// The expected value.
    pub expected: Option<String>,
    /// The remedy: most often the nearest known name.
    pub hint: Option<String>,
}

/// Something that works as it stands, but may not be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint(pub Problem);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.tell("hint", f)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tell("error", f)
    }
}

impl Problem {
    fn tell(&self, level: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{level}: {}\n  --> {}", self.message, self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if let Some(expected) = &self.expected {
            write!(f, "\n   = expected: {expected}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n   = help: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
