//! A private Postgres cluster.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{Uid, User};

use crate::folder::{DataFolder, data_root};
use crate::port::Port;
use crate::process::{Launch, Process};
use crate::slow_disk::SlowDisk;
use crate::tool::{run, tool_path};

mod copies;
mod tls;

pub use copies::Backup;
pub use tls::PostgresTls;

/// Postgres logs this when processes of its earlier life are still there. It is then started again, at most so often.
const STILL_IN_USE: &str = "pre-existing shared memory block";
const STARTS_MAX: u32 = 20;
const BETWEEN_STARTS: Duration = Duration::from_millis(100);
/// Ready in 0.2 s on a quiet machine; recovery after `kill -9` takes longer.
const READY_WITHIN: Duration = Duration::from_secs(300);

/// Options of a private cluster.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Wait for the disk at each commit, as in production. For benchmarks; a killed process loses nothing without it.
    pub fsync: bool,
    /// More settings; a later one wins.
    pub settings: Vec<(String, String)>,
    /// Let in nobody over TCP without TLS.
    pub tls: Option<PostgresTls>,
}

/// A private cluster with `wal_level=logical`; it goes, with its data, when dropped. The superuser is `postgres`, and
/// nobody is asked for a password.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: Port,
    programs: PathBuf,
    folder: DataFolder,
    tls: Option<PostgresTls>,
}

impl Postgres {
    /// Starts a cluster and waits until it serves.
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        let programs = tool_path("postgres")?;
        let port = Port::take()?;
        let folder = DataFolder::new("postgres")?;
        let data = folder.path().join("data");
        run(Command::new("cp").arg("-a").arg(template(&programs)?).arg(&data))?;
        let mut settings = settings(&options);
        if let Some(tls) = &options.tls {
            settings.extend(tls.install(&data)?);
        }
        Ok(Self { tls: options.tls, ..Self::serve(programs, port, folder, settings).await? })
    }

    /// Starts a server on the data in the folder.
    async fn serve(programs: PathBuf, port: Port, folder: DataFolder, settings: Vec<(String, String)>) -> Result<Self> {
        let data = folder.path().join("data");
        let socket_folder = folder.path().join("s");
        fs::create_dir(&socket_folder).context("the socket's folder")?;
        fs::set_permissions(&socket_folder, Permissions::from_mode(0o700)).context("the socket's folder")?;
        give_to_server_user(&socket_folder)?;
        let mut launch = Launch::new("postgres", programs.join("postgres")).user(server_user()).folder(&data);
        launch = launch.arg("-D").arg(&data).arg("-k").arg(&socket_folder).arg("-p").arg(port.number().to_string());
        for (name, value) in settings {
            launch = launch.arg("-c").arg(format!("{name}={value}"));
        }
        let process = Process::start(launch)?;
        let mut postgres = Self { process, port, programs, folder, tls: None };
        postgres.wait_until_ready().await?;
        Ok(postgres)
    }

    /// The URL of a database, over TCP.
    pub fn url(&self, database: &str) -> String {
        let port = self.port.number();
        match &self.tls {
            None => format!("postgres://postgres@127.0.0.1:{port}/{database}"),
            Some(tls) => format!("postgres://postgres@localhost:{port}/{database}?{}", tls.query),
        }
    }

    /// The folder of the unix socket (the server's user and root can reach it).
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// The port, which names the unix socket too.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Makes a database and returns its URL.
    pub fn create_database(&self, name: &str) -> Result<String> {
        psql(&self.url("postgres"), &format!("create database {name}"))?;
        Ok(self.url(name))
    }

    /// The postmaster's process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// `kill -9` of the postmaster and all backends.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again with the same port and data, and waits until it has recovered. Backends of a killed postmaster
    /// may live for a moment longer; beside them it ends at once, and is started again.
    pub async fn restart(&mut self) -> Result<()> {
        let mut starts = 1;
        loop {
            self.process.restart()?;
            match self.wait_until_ready().await {
                Err(error) if starts < STARTS_MAX && format!("{error:#}").contains(STILL_IN_USE) => starts += 1,
                ended => return ended,
            }
            tokio::time::sleep(BETWEEN_STARTS).await;
        }
    }

    /// Lets its files grow no more, as a full disk does, until [`Postgres::restart`]. It may end by that.
    pub fn fill_disk(&mut self) -> Result<()> {
        self.process.limit_files(1)
    }

    /// Makes each `fsync` of it take longer, until [`SlowDisk::end`].
    pub async fn slow_disk(&self, fsync: Duration) -> Result<SlowDisk> {
        SlowDisk::of(&self.process, fsync).await
    }

    /// SIGSTOP of the postmaster and all backends.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.resume();
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let (programs, port) = (self.programs.clone(), self.port.number().to_string());
        let ready = async || {
            let mut look = Command::new(programs.join("pg_isready"));
            look.args(["-q", "-h", "127.0.0.1", "-d", "postgres", "-U", "postgres", "-p", &port]);
            look.status().is_ok_and(|status| status.success())
        };
        self.process.wait_until(READY_WITHIN, "Postgres serves", ready).await
    }
}

fn settings(options: &PostgresOptions) -> Vec<(String, String)> {
    let sync = if options.fsync { "on" } else { "off" };
    let ours = [
        ("listen_addresses", "127.0.0.1"),
        ("wal_level", "logical"),
        // Tests leave their slots behind; the cluster goes soon.
        ("max_replication_slots", "200"),
        ("max_wal_senders", "200"),
        ("max_connections", "400"),
        ("fsync", sync),
        ("full_page_writes", sync),
        ("max_wal_size", "4GB"),
        ("log_min_messages", "warning"),
        ("log_checkpoints", "off"),
    ];
    let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    ours.chain(options.settings.iter().cloned()).collect()
}

/// Runs SQL through psql and returns what it prints: unaligned, without headings.
pub fn psql(url: &str, sql: &str) -> Result<String> {
    let program = tool_path("postgres")?.join("psql");
    let mut psql = Command::new(program);
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]);
    Ok(run(&mut psql)?.trim_end().to_owned())
}

/// Postgres refuses to run as root: then it runs as `postgres`, or `nobody` where that user is missing.
fn server_user() -> Option<String> {
    if !Uid::effective().is_root() {
        return None;
    }
    let exists = |name: &&str| User::from_name(name).is_ok_and(|user| user.is_some());
    Some(["postgres"].into_iter().find(|name| exists(name)).unwrap_or("nobody").to_owned())
}

fn give_to_server_user(folder: &Path) -> Result<()> {
    let Some(user) = server_user() else { return Ok(()) };
    run(Command::new("chown").arg(user).arg(folder)).map(drop)
}

/// A command that writes into this folder as the server's user.
fn as_server_user(program: &Path, folder: &Path) -> Result<Command> {
    give_to_server_user(folder)?;
    let mut command = Command::new("setpriv");
    if let Some(user) = server_user() {
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
    }
    command.current_dir(folder).arg("--").arg(program);
    Ok(command)
}

/// An initialised data folder to copy, made once per machine and version.
fn template(programs: &Path) -> Result<PathBuf> {
    let version = run(Command::new(programs.join("postgres")).arg("--version"))?;
    let version = version.split_whitespace().nth(2).context("postgres --version says no version")?.to_owned();
    let root = data_root()?;
    let template = root.join(format!("template-postgres-{version}"));
    let lock = File::create(root.join("template-postgres.lock")).context("the template's lock")?;
    lock.lock().context("the template's lock")?;
    if template.exists() {
        return Ok(template);
    }
    let work = DataFolder::new("initdb")?;
    let data = work.path().join("data");
    let mut initdb = as_server_user(&programs.join("initdb"), work.path())?;
    initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "-D"]);
    run(initdb.arg(&data))?;
    fs::rename(&data, &template).context("keeping the template")?;
    Ok(template)
}
