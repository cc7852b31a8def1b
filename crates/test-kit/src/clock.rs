//! A wall clock that a test moves: the real one, by any number of seconds. Waits are not affected, since they do not go
//! by the wall clock.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::folder::DataFolder;
use crate::tool::tool_path;

/// The wall clock of one process.
#[derive(Debug)]
pub struct WallClock {
    folder: DataFolder,
    library: PathBuf,
}

impl WallClock {
    /// One that is right.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let clock = Self { folder: DataFolder::new(&format!("clock-{name}"))?, library: tool_path("faketime")? };
        clock.set(0)?;
        Ok(clock)
    }

    /// The environment of a process that goes by it.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        [
            ("LD_PRELOAD", text(self.library.clone())),
            ("FAKETIME_TIMESTAMP_FILE", text(self.file())),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// Moves it to so many seconds after the real one; negative: before.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // Renamed, so that nobody reads half a file.
        let (file, new) = (self.file(), self.folder.path().join("new"));
        fs::write(&new, format!("{seconds:+}")).context("writing the clock's offset")?;
        fs::rename(&new, &file).context("moving the clock")
    }
}
