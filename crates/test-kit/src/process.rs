//! A child process that never outlives us, with its log in a file.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::folder::log_file;

/// Between two looks of a waiting loop.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// An error shows so much of a log's end.
const LOG_TAIL_BYTES: usize = 3_000;

/// A program to start.
#[derive(Debug, Clone)]
pub struct Launch {
    name: String,
    user: Option<String>,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    folder: Option<PathBuf>,
}

impl Launch {
    /// The program, and the name that its log and errors carry.
    pub fn new(name: &str, program: impl Into<PathBuf>) -> Self {
        let (name, program) = (name.to_owned(), program.into());
        Self { name, user: None, program, arguments: vec![], environment: vec![], folder: None }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// An environment variable, on top of our own environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Run as this user (we must be root).
    #[must_use]
    pub(crate) fn user(mut self, user: Option<String>) -> Self {
        self.user = user;
        self
    }

    /// The folder to run in.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// The kernel kills the child when the thread that started it ends; `setpriv` asks for that, without unsafe code.
    fn command(&self, log: &Path) -> Result<Command> {
        let log = File::options().create(true).append(true).open(log).with_context(|| format!("{}", log.display()))?;
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL");
        if let Some(user) = &self.user {
            command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        }
        command.arg("--").arg(&self.program).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().context("the log")?).stderr(log).process_group(0);
        Ok(command)
    }
}

type Order = (Command, Sender<std::io::Result<Child>>);

/// Children are started by one thread that lives as long as we do, because they die with the thread that starts them.
static STARTER: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
    let (orders, received) = channel::<Order>();
    std::thread::spawn(move || {
        for (mut command, reply) in received {
            let _ = reply.send(command.spawn());
        }
    });
    Mutex::new(orders)
});

fn spawn(command: Command) -> Result<Child> {
    let (reply, answer) = channel();
    let sent = STARTER.lock().map_err(|_| anyhow!("the starting thread panicked"))?.send((command, reply));
    sent.map_err(|_| anyhow!("the starting thread is gone"))?;
    answer.recv().context("the starting thread is gone")?.context("starting a child")
}

/// A running child, and how to start it again. Dropping it kills it and all its descendants.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts it.
    pub fn start(launch: Launch) -> Result<Self> {
        let log = log_file(&launch.name)?;
        let _ = fs::remove_file(&log);
        let child = spawn(launch.command(&log)?).with_context(|| launch.name.clone())?;
        Ok(Self { launch, log, child })
    }

    /// Starts it again, once it is dead; kills it first if it is not. The log goes on in the same file.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9();
        self.child = spawn(self.launch.command(&self.log)?).with_context(|| self.launch.name.clone())?;
        Ok(())
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has had at once since it was started, in bytes.
    pub fn memory_peak_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("a child's status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        Ok(kib.context("no VmHWM")? * 1024)
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sets a variable for the next [`Process::restart`].
    pub fn set_env(&mut self, name: &str, value: impl Into<OsString>) {
        self.launch.environment.push((name.to_owned(), value.into()));
    }

    /// `kill -9`, of its descendants too; returns when they are gone.
    pub fn kill9(&mut self) {
        let descendants = descendants(self.child.id());
        let _ = self.child.kill();
        for pid in descendants {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }

    /// Stops it where it stands, descendants too (SIGSTOP).
    pub fn pause(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    /// Lets it, and its descendants, write nothing beyond so many bytes of a file, as on a full disk, until it is
    /// started again.
    pub fn limit_files(&self, bytes: u64) -> Result<()> {
        for pid in self.family() {
            let mut prlimit = Command::new("prlimit");
            prlimit.arg(format!("--pid={pid}")).arg(format!("--fsize={bytes}:unlimited"));
            // A backend may have ended meanwhile.
            let _ = prlimit.output().context("prlimit")?;
        }
        Ok(())
    }

    /// The ids of the process and of its descendants.
    pub(crate) fn family(&self) -> Vec<i32> {
        let descendants = descendants(self.child.id()).into_iter().map(Pid::as_raw);
        std::iter::once(self.child.id() as i32).chain(descendants).collect()
    }

    fn signal_all(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
        for pid in descendants(self.child.id()) {
            let _ = kill(pid, signal);
        }
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_for_exit(within).await
    }

    /// Sends one signal to the process itself.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), signal).with_context(|| format!("{signal} to {}", self.launch.name))
    }

    /// Waits until it has ended by itself.
    pub async fn wait_for_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().context("looking at a child")? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} has not ended within {within:?}; its log ends:\n{}", self.launch.name, self.log_tail());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// True while it runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Calls `look` until it is true. Fails, with the end of the log, when the process ends or `within` passes.
    pub async fn wait_until(
        &mut self,
        within: Duration,
        what: &str,
        mut look: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        while !look().await {
            let name = &self.launch.name;
            if let Some(status) = self.child.try_wait().context("looking at a child")? {
                let how = status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
                bail!("{name} ended ({how}) before {what}; its log ends:\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{name}: not within {within:?}: {what}; its log ends:\n{}", self.log_tail());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// The last lines that it wrote.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let start = text.len().saturating_sub(LOG_TAIL_BYTES);
        format!("[{}]\n{}", self.log.display(), String::from_utf8_lossy(&text[start..]))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// All processes below `root`, from /proc. Needed because Postgres' backends leave the process group.
fn descendants(root: u32) -> Vec<Pid> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // pid (name) state parent ...: the name may hold anything, so count from its last parenthesis.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.into_iter().skip(1).map(|pid| Pid::from_raw(pid as i32)).collect()
}
