//! The report of a run, and the numbers that the environment may change.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

/// Lines for standard output and for the file that `REPORT` names.
pub(crate) struct Report(Option<File>);

impl Report {
    pub(crate) fn open() -> Self {
        Self(std::env::var_os("REPORT").map(|path| File::create(path).unwrap()))
    }

    pub(crate) fn line(&mut self, line: &str) {
        println!("{line}");
        if let Some(file) = &mut self.0 {
            writeln!(file, "{line}").unwrap();
        }
    }
}

/// A number from the environment.
pub(crate) fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// A time from the environment, in seconds.
pub(crate) fn seconds(name: &str, otherwise: u64) -> Duration {
    Duration::from_secs(number(name, otherwise))
}
