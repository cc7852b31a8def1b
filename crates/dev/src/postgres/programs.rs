//! The folder in which Postgres is installed.

use std::path::{Path, PathBuf};

/// Postgres is not installed on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotInstalled;

impl std::fmt::Display for NotInstalled {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(
            "Postgres is not installed (neither `initdb` on PATH nor /usr/lib/postgresql): \
             install it with `sudo apt-get install postgresql`, or name one that runs with DATABASE_URL",
        )
    }
}

impl std::error::Error for NotInstalled {}

/// The folder that holds `initdb` and `postgres`: on PATH, else the newest in the places of Debian and Homebrew.
///
/// # Errors
/// There is none.
#[expect(clippy::disallowed_methods, reason = "PATH is the shell's, no setting of ours")]
pub fn find() -> Result<PathBuf, NotInstalled> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    search(&std::env::split_paths(&path).collect::<Vec<_>>(), Path::new("/usr/lib/postgresql"))
        .or_else(|| ["/opt/homebrew", "/usr/local"].iter().find_map(|root| search(&[], &Path::new(root).join("opt"))))
        .ok_or(NotInstalled)
}

/// Looks in `path`, then in `versions/*/bin`, the highest version first (`15`, or `postgresql@15`).
fn search(path: &[PathBuf], versions: &Path) -> Option<PathBuf> {
    if let Some(folder) = path.iter().find(|folder| has_programs(folder)) {
        // Some machines have links there: beside the real programs are the others of the same version.
        let real = folder.join("initdb").canonicalize().ok().and_then(|program| program.parent().map(Path::to_owned));
        return real.filter(|real| has_programs(real)).or_else(|| Some(folder.clone()));
    }
    let folders = std::fs::read_dir(versions).into_iter().flatten().flatten();
    let numbered = folders.filter_map(|folder| {
        let name = folder.file_name().into_string().ok()?;
        let version: u32 = name.rsplit('@').next()?.parse().ok()?;
        Some((version, folder.path().join("bin")))
    });
    let mut numbered: Vec<(u32, PathBuf)> = numbered.filter(|(_, folder)| has_programs(folder)).collect();
    numbered.sort_unstable();
    numbered.pop().map(|(_, folder)| folder)
}

fn has_programs(folder: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(folder: &Path) -> PathBuf {
        std::fs::create_dir_all(folder).unwrap();
        for program in ["initdb", "postgres"] {
            std::fs::write(folder.join(program), "").unwrap();
        }
        folder.to_owned()
    }

    #[test]
    fn the_path_comes_first_then_the_newest_version() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let versions = root.join("postgresql");
        install(&versions.join("9/bin"));
        let newest = install(&versions.join("15/bin"));
        std::fs::create_dir_all(versions.join("16/bin")).unwrap();
        assert_eq!(search(&[], &versions), Some(newest));
        let on_path = install(&root.join("bin"));
        assert_eq!(search(&[root.join("none"), on_path.clone()], &versions), Some(on_path.clone()));
        let links = root.join("links");
        std::os::unix::fs::symlink(&on_path, &links).unwrap();
        assert_eq!(search(&[links], &versions), Some(on_path));
        assert_eq!(search(&[], &root), None);
    }

    #[test]
    fn what_is_missing_says_how_to_get_it() {
        assert!(NotInstalled.to_string().contains("apt-get install postgresql"));
    }
}
