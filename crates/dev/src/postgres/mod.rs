//! A private Postgres in a temporary folder. Both end with the process, however that ends.
//!
//! Postgres runs below a small shell script whose standard input is a pipe from us. When we end, even by `kill -9`, the
//! pipe closes, and the script ends Postgres and removes the folder. The script runs in a process group of its own:
//! Ctrl-C at the terminal reaches us alone, and the roles can still finish their work.

mod programs;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::unistd::{Uid, User};

pub use programs::{NotInstalled, find};

/// The superuser of the private cluster.
const SUPERUSER: &str = "meanwhile";
/// The time limit for starting, which takes 0.2 s on a quiet machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The interval at which Postgres is checked while it starts or ends.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// The time that Postgres has to end at once.
const END_WITHIN: Duration = Duration::from_secs(5);
/// The most starts, each on another port: another process may have taken the port meanwhile.
const PORT_TRIES: u32 = 3;
/// The most bytes of the end of a failing program's output that are shown.
const LOG_BYTES_SHOWN: usize = 4_096;

/// Runs `"$@"`; when standard input ends, ends it; when it has ended, removes the folder `$0`.
const KEEPER: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
{ read -r _ <&3; kill -QUIT "$server" 2>/dev/null; } &
watch=$!
wait "$server"
code=$?
kill "$watch" 2>/dev/null
cd / && rm -rf "$0"
exit "$code"
"#;

/// A running private cluster; dropping it ends it and removes its folder.
#[derive(Debug)]
pub struct Private {
    keeper: Child,
    folder: PathBuf,
    port: u16,
    password: String,
}

impl Private {
    /// Starts a fresh cluster on a free port of 127.0.0.1, with logical decoding and without waiting for the disk.
    ///
    /// # Errors
    /// Postgres is not installed ([`NotInstalled`] says how to get it), or it does not start (with its own words).
    pub async fn start() -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(start).await.context("starting Postgres")?
    }

    /// Its address, with the password that only this process knows.
    pub fn url(&self) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/postgres", self.password, self.port)
    }

    /// The folder of its data.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process id of its keeper, for tests.
    pub fn keeper_id(&self) -> u32 {
        self.keeper.id()
    }

    /// Ends it and removes its folder. Dropping does the same, but blocks.
    pub async fn stop(self) {
        // A panic in a drop would have been printed already; there is nothing left to stop then.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    fn end(&mut self) {
        drop(self.keeper.stdin.take());
        let began = Instant::now();
        while began.elapsed() < END_WITHIN {
            if !matches!(self.keeper.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        // The keeper has removed the folder, unless it was killed.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.end();
    }
}

/// The user that Postgres runs as: ourselves, or another user if we are root, which it refuses.
fn server_user() -> anyhow::Result<Option<User>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(user));
        }
    }
    bail!("Postgres refuses to run as root, and there is neither a user `postgres` nor `nobody`")
}

fn start() -> anyhow::Result<Private> {
    let programs = programs::find()?;
    let user = server_user()?;
    let mut tries = 0;
    loop {
        tries += 1;
        match try_start(&programs, user.as_ref()) {
            Err(error) if tries < PORT_TRIES && format!("{error:#}").contains("could not bind") => {}
            outcome => return outcome,
        }
    }
}

fn try_start(programs: &Path, user: Option<&User>) -> anyhow::Result<Private> {
    let folder = make_folder(user)?;
    let password = random_hex()?;
    let launched = initialise(programs, &folder, user, &password).and_then(|()| {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|taken| taken.local_addr()).context("a free port")?.port();
        Ok((launch(programs, &folder, user, port)?, port))
    });
    match launched {
        Ok((keeper, port)) => {
            let mut private = Private { keeper, folder, port, password };
            wait_until_ready(&mut private)?;
            Ok(private)
        }
        Err(error) => {
            let _ = fs::remove_dir_all(&folder);
            Err(error)
        }
    }
}

fn make_folder(user: Option<&User>) -> anyhow::Result<PathBuf> {
    let folder =
        tempfile::Builder::new().prefix("meanwhile-dev-").tempdir().context("a temporary folder for Postgres")?;
    // From here on the keeper removes it, which outlives us.
    let folder = folder.keep();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    if let Some(user) = user {
        chown(&folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).context("giving Postgres its folder")?;
    }
    Ok(folder)
}

fn command(program: &Path, folder: &Path, user: Option<&User>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).process_group(0);
    if let Some(user) = user {
        // Dropping root's identity so also drops its supplementary groups.
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

fn initialise(programs: &Path, folder: &Path, user: Option<&User>, password: &str) -> anyhow::Result<()> {
    let password_file = folder.join("password");
    fs::write(&password_file, password)?;
    fs::set_permissions(&password_file, fs::Permissions::from_mode(0o600))?;
    if let Some(user) = user {
        chown(&password_file, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    let output = command(&programs.join("initdb"), folder, user)
        .args(["--no-sync", "--no-locale", "--encoding=UTF8", "--auth=scram-sha-256", "--username", SUPERUSER])
        .arg("--pwfile")
        .arg(&password_file)
        .arg("-D")
        .arg(folder.join("data"))
        .stdin(Stdio::null())
        .output()
        .context("running initdb")?;
    fs::remove_file(&password_file)?;
    if !output.status.success() {
        bail!("initdb failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn launch(programs: &Path, folder: &Path, user: Option<&User>, port: u16) -> anyhow::Result<Child> {
    let log = fs::File::create_new(log_file(folder)).context("Postgres' log")?;
    let mut keeper = command(Path::new("/bin/sh"), folder, user);
    keeper.arg("-c").arg(KEEPER).arg(folder).arg(programs.join("postgres")).arg("-D").arg(folder.join("data"));
    keeper.arg("-p").arg(port.to_string());
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "wal_level=logical",
        "fsync=off",
        "full_page_writes=off",
        "max_connections=200",
        "max_wal_size=1GB",
        "log_min_messages=warning",
        "log_checkpoints=off",
    ] {
        keeper.arg("-c").arg(setting);
    }
    keeper.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).spawn().context("running Postgres")
}

fn log_file(folder: &Path) -> PathBuf {
    // Beside the folder, not in it: the folder goes when Postgres ends, and then its words are wanted.
    folder.with_extension("log")
}

/// Ready is what Postgres says of itself on the last line of `postmaster.pid`.
fn wait_until_ready(private: &mut Private) -> anyhow::Result<()> {
    let log = log_file(&private.folder);
    let began = Instant::now();
    let outcome = loop {
        let says = fs::read_to_string(private.folder.join("data/postmaster.pid")).unwrap_or_default();
        if says.lines().nth(7).is_some_and(|state| state.trim() == "ready") {
            break Ok(());
        }
        if let Some(status) = private.keeper.try_wait()? {
            let words = fs::read(&log).unwrap_or_default();
            let words = String::from_utf8_lossy(&words[words.len().saturating_sub(LOG_BYTES_SHOWN)..]).into_owned();
            break Err(anyhow::anyhow!("Postgres did not start ({status}): {}", words.trim()));
        }
        if began.elapsed() > READY_WITHIN {
            break Err(anyhow::anyhow!("Postgres was not ready within {} s", READY_WITHIN.as_secs()));
        }
        std::thread::sleep(LOOK_INTERVAL);
    };
    // The open file stays Postgres' log; only its name goes, so that nothing is left behind.
    let _ = fs::remove_file(&log);
    outcome
}

/// 128 random bits from the system.
fn random_hex() -> anyhow::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).context("random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
