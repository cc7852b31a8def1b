//! A private Postgres starts, keeps strangers out, and leaves nothing behind, however its process ends.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dev::postgres::{Private, find};

/// A folder goes within moments; a busy machine may take longer.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// Tells the process that is to be killed that it is the one.
const CHILD: &str = "MEANWHILE_TEST_KILLED_CHILD";

fn psql(url: &str, sql: &str) -> Result<String, String> {
    let output = Command::new(find().unwrap().join("psql")).args(["-XAtq", "-d", url, "-c", sql]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn wait_until_gone(folder: &Path) {
    let began = Instant::now();
    while folder.exists() {
        assert!(began.elapsed() < GONE_WITHIN, "{} is still there", folder.display());
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn it_serves_logical_decoding_to_who_knows_the_password_and_is_removed() {
    let postgres = Private::start().await.unwrap();
    let (url, folder) = (postgres.url(), postgres.folder().to_owned());
    assert_eq!(psql(&url, "show wal_level").unwrap(), "logical");
    assert_eq!(psql(&url, "select rolsuper from pg_roles where rolname = current_user").unwrap(), "t");
    let (user, host) = url.split_once('@').unwrap();
    let stranger = format!("{}:wrong@{host}", user.rsplit_once(':').unwrap().0);
    assert!(psql(&stranger, "select 1").unwrap_err().contains("password authentication failed"));
    postgres.stop().await;
    assert!(!folder.exists() && !folder.with_extension("log").exists());
    assert!(psql(&url, "select 1").is_err());
}

#[tokio::test]
async fn two_of_them_do_not_meet() {
    let (one, two) = tokio::try_join!(Private::start(), Private::start()).unwrap();
    assert_ne!(one.url(), two.url());
    psql(&one.url(), "create table here ()").unwrap();
    assert!(psql(&two.url(), "table here").is_err());
    let folder = one.folder().to_owned();
    drop(one);
    assert!(!folder.exists());
}

/// Not a test of its own: what the next test runs as the process to kill.
#[tokio::test]
async fn child_that_is_killed() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let postgres = Private::start().await.unwrap();
    println!("\nfolder={}\nurl={}", postgres.folder().display(), postgres.url());
    std::future::pending::<()>().await;
}

/// Kills the process however the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait().map(drop)).unwrap();
    }
}

#[test]
fn it_goes_when_its_process_is_killed_with_9() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_killed", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let folder = lines.find_map(|line| line.strip_prefix("folder=").map(PathBuf::from)).unwrap();
    let url = lines.find_map(|line| line.strip_prefix("url=").map(ToOwned::to_owned)).unwrap();
    assert_eq!(psql(&url, "select 1").unwrap(), "1");
    drop(child);
    wait_until_gone(&folder);
    assert!(psql(&url, "select 1").is_err());
}
