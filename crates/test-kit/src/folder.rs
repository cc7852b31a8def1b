//! Folders for data that goes with the process, and for logs that stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::sys::signal::kill;
use nix::unistd::{Pid, Uid};

use crate::tool::target_folder;

static FOLDERS_MADE: AtomicU32 = AtomicU32::new(0);

/// Where servers keep their data: `MEANWHILE_TEST_DATA`, else a folder of this user's in the temporary folder. Not the
/// target folder: Postgres runs as another user when we are root, and may not be able to reach it.
pub(crate) fn data_root() -> Result<PathBuf> {
    let root = std::env::var_os("MEANWHILE_TEST_DATA")
        .map_or_else(|| std::env::temp_dir().join(format!("meanwhile-test-{}", Uid::effective())), PathBuf::from);
    fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    Ok(root)
}

/// A data folder named `<pid>-<number>-<name>`, removed when dropped, or by the next process if this one is killed.
#[derive(Debug)]
pub(crate) struct DataFolder(PathBuf);

impl DataFolder {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let root = data_root()?;
        sweep(&root);
        let number = FOLDERS_MADE.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{}-{number}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path); // a process with our id may have lived before
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the data folders of processes that are gone.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.split('-').next()).and_then(|pid| pid.parse().ok());
        if let Some(pid) = owner
            && kill(Pid::from_raw(pid), None) == Err(nix::errno::Errno::ESRCH)
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A fresh file for the log of `name`: `target/test-logs/<test binary>/<name>-<number>.log`.
pub(crate) fn log_file(name: &str) -> Result<PathBuf> {
    let binary = std::env::current_exe().ok().and_then(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    let binary = binary.unwrap_or_else(|| "unknown".to_owned());
    // Cargo appends `-<hash>`; without it the next run writes over this one's logs.
    let binary = binary.rsplit_once('-').map_or(binary.as_str(), |(name, _)| name).to_owned();
    let folder = target_folder().join("test-logs").join(binary);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let number = FOLDERS_MADE.fetch_add(1, Ordering::Relaxed);
    Ok(folder.join(format!("{name}-{number}.log")))
}
