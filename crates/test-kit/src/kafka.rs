//! A private Apache Kafka broker.
//!
//! A broker that is also its own controller must not be killed while transactions run: after the restart Kafka 4.3.1
//! acts for some seconds on what was true before, then finds its partitions without a leader, takes them for deleted
//! and leaves out their transaction markers (`KRaftMetadataCache.getPartitionLeaderEndpoint`). Such a transaction hangs
//! for good, and with it every `read_committed` reader. [`KafkaOptions::to_be_killed`] has a controller that stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::folder::DataFolder;
use crate::port::Port;
use crate::process::{Launch, Process};
use crate::slow_disk::SlowDisk;
use crate::tool::{run, tool_path};

mod bearer;
mod guarded;
mod properties;
mod rights;
mod spoil;

pub use bearer::bearer_token;
pub use guarded::{GuardedKafka, Login};

use properties::{broker_alone, controller_alone, more_listeners, of_many, server_properties};

/// A broker is ready in 2 to 4 s on a quiet machine; recovery after `kill -9` takes longer.
const READY_WITHIN: Duration = Duration::from_secs(300);
/// The broker logs this when it serves.
const READY_LINE: &str = "Kafka Server started";
/// The controller logs this when a broker has been silent for too long.
const FENCED_LINE: &str = "Fencing broker";
/// The node id of a controller apart; that of the first broker is 1, those of more brokers follow.
const CONTROLLER_ID: u32 = 2;
/// Its data folder's id: any other than the template's.
const CONTROLLER_FOLDER_ID: &str = "Y29udHJvbGxlci1hcGFydA";
/// It keeps a few hundred partitions.
const CONTROLLER_HEAP_MIB: u32 = 256;
/// Any 22 characters of base64 that are 16 bytes.
const CLUSTER_ID: &str = "bWVhbndoaWxlLXRlc3RzIQ";

/// Options of a private broker.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// Use the optimising compiler too: slower to start, faster later. For benchmarks.
    pub full_jit: bool,
    /// The heap's size, MiB.
    pub heap_mib: u32,
    /// More lines of server.properties; a later line wins.
    pub properties: Vec<(String, String)>,
    /// More listeners, each with an address of its own that it tells its clients.
    pub listeners: Vec<Listener>,
    /// A controller in a process of its own, which lives on when a broker is killed.
    pub controller_apart: bool,
    /// Users of the cluster and their passwords, known to SCRAM from the beginning.
    pub users: Vec<(String, String)>,
    /// The number of brokers; with more than one the controller is apart. Three of them keep Kafka's own topics thrice.
    pub brokers: u32,
}

/// A listener whose clients reach it at another port, by way of a [`Line`](crate::Line).
#[derive(Debug, Clone)]
pub struct Listener {
    /// In capital letters.
    pub name: String,
    /// Kafka's word: `PLAINTEXT`, `SSL`, `SASL_SSL`.
    pub protocol: &'static str,
    /// The port that the broker opens.
    pub port: u16,
    /// The port that it tells clients.
    pub advertised: u16,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            full_jit: false,
            heap_mib: 512,
            properties: vec![],
            listeners: vec![],
            controller_apart: false,
            users: vec![],
            brokers: 1,
        }
    }
}

impl KafkaOptions {
    /// For a broker that is killed while transactions run.
    pub fn to_be_killed() -> Self {
        Self { controller_apart: true, ..Self::default() }
    }

    /// Three brokers, each of which may be killed.
    pub fn three_brokers() -> Self {
        Self { controller_apart: true, brokers: 3, ..Self::default() }
    }
}

/// A private broker, or several; they go, with their data, when dropped.
#[derive(Debug)]
pub struct Kafka {
    brokers: Vec<Broker>,
    controller: Option<Controller>,
    _controller_port: Port,
    _folder: DataFolder,
}

#[derive(Debug)]
struct Broker {
    node: u32,
    process: Process,
    port: Port,
    /// Bytes of the log that belong to earlier lives.
    log_seen_bytes: usize,
    /// Bytes of the controller's log as of its last death.
    controller_seen_bytes: usize,
}

/// The process that keeps the cluster's metadata, where that is not the broker itself.
#[derive(Debug)]
struct Controller {
    process: Process,
}

impl Kafka {
    /// Starts the brokers and waits until they serve.
    pub async fn start(options: KafkaOptions) -> Result<Self> {
        let jars = tool_path("kafka")?;
        let java = tool_path("java")?;
        let (folder, controller_port) = (DataFolder::new("kafka")?, Port::take()?);
        let template = formatted_template(&java, &jars)?;
        let mut kafka = Self { brokers: vec![], controller: None, _controller_port: controller_port, _folder: folder };
        for place in 0..options.brokers {
            let node = if place == 0 { 1 } else { CONTROLLER_ID + place };
            let port = Port::take()?;
            let controller_port = kafka._controller_port.number();
            let data = match options.users.as_slice() {
                [] => kafka.data_of(node, &template)?,
                users => kafka.data_with(users, &java, &jars)?,
            };
            let mut text = server_properties(port.number(), controller_port, &data, &options.properties);
            text.push_str(&more_listeners(port.number(), controller_port, &options.listeners));
            if options.controller_apart {
                text.push_str(&broker_alone(port.number(), controller_port, &options.listeners));
            }
            if options.brokers > 1 {
                text.push_str(&of_many(node, port.number()));
            }
            if options.controller_apart && place == 0 {
                kafka.controller = Some(Controller::start(&java, &jars, kafka._folder.path(), &template, &text)?);
            }
            let properties = kafka._folder.path().join(format!("server-{node}.properties"));
            fs::write(&properties, text).context("server.properties")?;
            let process = Process::start(launch("kafka", &java, &jars, &options, &properties))?;
            kafka.brokers.push(Broker { node, process, port, log_seen_bytes: 0, controller_seen_bytes: 0 });
        }
        for broker in &mut kafka.brokers {
            broker.wait_until_ready().await?;
        }
        Ok(kafka)
    }

    /// A formatted data folder for a broker.
    fn data_of(&self, node: u32, template: &Path) -> Result<PathBuf> {
        let data = self._folder.path().join(format!("data-{node}"));
        run(Command::new("cp").arg("-a").arg(template).arg(&data))?;
        if node != 1 {
            identify(&data, node, &format!("{node}{}", &CONTROLLER_FOLDER_ID[1..]))?;
        }
        Ok(data)
    }

    /// A data folder of its own for the only broker, which knows these users.
    fn data_with(&self, users: &[(String, String)], java: &Path, jars: &Path) -> Result<PathBuf> {
        let data = self._folder.path().join("data-1");
        format_data(java, jars, self._folder.path(), &data, users)?;
        Ok(data)
    }

    /// `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        let addresses = self.brokers.iter().map(|broker| format!("127.0.0.1:{}", broker.port.number()));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// The first broker's process id.
    pub fn id(&self) -> u32 {
        self.brokers[0].process.id()
    }

    /// `kill -9` of the first broker.
    pub fn kill9(&mut self) {
        self.kill_broker(0);
    }

    /// `kill -9` of one of several.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn kill_broker(&mut self, place: usize) {
        self.death_is_near(place);
        self.brokers[place].process.kill9();
    }

    /// [`Kafka::restart_broker`] of the first.
    pub async fn restart(&mut self) -> Result<()> {
        self.restart_broker(0).await
    }

    /// Starts a broker again with the same port and data, and waits until it serves. A controller apart has noticed the
    /// death by then.
    ///
    /// # Panics
    /// When there are fewer brokers.
    pub async fn restart_broker(&mut self, place: usize) -> Result<()> {
        let broker = &mut self.brokers[place];
        if let Some(controller) = &mut self.controller {
            controller.wait_until_noticed(broker.node, broker.controller_seen_bytes).await?;
        }
        broker.log_seen_bytes = length(broker.process.log());
        broker.process.restart()?;
        broker.wait_until_ready().await
    }

    /// Lets the first broker's files grow no more, as a full disk does, until [`Kafka::restart`]. It may end by that.
    pub fn fill_disk(&mut self) -> Result<()> {
        self.death_is_near(0);
        self.brokers[0].process.limit_files(1)
    }

    /// Makes each `fsync` of the first broker take longer, until [`SlowDisk::end`].
    pub async fn slow_disk(&self, fsync: Duration) -> Result<SlowDisk> {
        SlowDisk::of(&self.brokers[0].process, fsync).await
    }

    /// SIGSTOP of the first broker.
    pub fn pause(&self) {
        self.brokers[0].process.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.brokers[0].process.resume();
    }

    /// From here on the controller's log may tell a broker's death.
    fn death_is_near(&mut self, place: usize) {
        if let Some(controller) = &self.controller {
            self.brokers[place].controller_seen_bytes = length(controller.process.log());
        }
    }
}

impl Broker {
    async fn wait_until_ready(&mut self) -> Result<()> {
        let (log, seen) = (self.process.log().to_owned(), self.log_seen_bytes);
        let started = async || says(&log, seen, READY_LINE);
        self.process.wait_until(READY_WITHIN, "the broker serves", started).await
    }
}

impl Controller {
    fn start(java: &Path, jars: &Path, folder: &Path, template: &Path, text: &str) -> Result<Self> {
        let data = folder.join("controller");
        run(Command::new("cp").arg("-a").arg(template).arg(&data))?;
        identify(&data, CONTROLLER_ID, CONTROLLER_FOLDER_ID)?;
        let properties = folder.join("controller.properties");
        fs::write(&properties, controller_alone(text, &data)).context("controller.properties")?;
        let options = KafkaOptions { heap_mib: CONTROLLER_HEAP_MIB, ..KafkaOptions::default() };
        let process = Process::start(launch("kafka-controller", java, jars, &options, &properties))?;
        Ok(Self { process })
    }

    async fn wait_until_noticed(&mut self, node: u32, seen: usize) -> Result<()> {
        let log = self.process.log().to_owned();
        let line = format!("{FENCED_LINE} {node} ");
        let noticed = async || says(&log, seen, &line);
        self.process.wait_until(READY_WITHIN, "the controller notices the broker's death", noticed).await
    }
}

/// Makes a copy of the template another node's.
fn identify(data: &Path, node: u32, folder_id: &str) -> Result<()> {
    let identity = fs::read_to_string(data.join("meta.properties")).context("meta.properties")?;
    let identity = identity.lines().map(|line| match line.split_once('=') {
        Some(("node.id", _)) => format!("node.id={node}\n"),
        Some(("directory.id", _)) => format!("directory.id={folder_id}\n"),
        _ => format!("{line}\n"),
    });
    fs::write(data.join("meta.properties"), identity.collect::<String>()).context("meta.properties")
}

fn length(log: &Path) -> usize {
    fs::metadata(log).map_or(0, |log| log.len() as usize)
}

/// Whether a log says this after so many bytes.
fn says(log: &Path, seen_bytes: usize, line: &str) -> bool {
    let text = fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(text.get(seen_bytes..).unwrap_or_default()).contains(line)
}

fn launch(name: &str, java: &Path, jars: &Path, options: &KafkaOptions, properties: &Path) -> Launch {
    let heap = options.heap_mib;
    let mut launch = Launch::new(name, java).args([format!("-Xms{heap}m"), format!("-Xmx{heap}m")]);
    if !options.full_jit {
        launch = launch.arg("-XX:TieredStopAtLevel=1");
    }
    launch
        .args(["-XX:+UseSerialGC", "-Dlog4j2.level=INFO", "-cp"])
        .arg(jars.join("*"))
        .arg("kafka.Kafka")
        .arg(properties)
}

/// A formatted data folder to copy, made once per machine and version.
fn formatted_template(java: &Path, jars: &Path) -> Result<PathBuf> {
    let version = jars.file_name().and_then(|name| name.to_str()).context("the folder of Kafka's jars has no name")?;
    let template = tool_path("cache")?.join(format!("{version}-formatted"));
    if template.exists() {
        return Ok(template);
    }
    let work = DataFolder::new("kafka-format")?;
    let data = work.path().join("data");
    format_data(java, jars, work.path(), &data, &[])?;
    let beside = template.with_file_name(format!("{version}-formatted-{}", std::process::id()));
    run(Command::new("cp").arg("-a").arg(&data).arg(&beside))?;
    if fs::rename(&beside, &template).is_err() {
        fs::remove_dir_all(&beside).context("removing a template that another process was faster with")?;
    }
    Ok(template)
}

/// Formats a data folder; `work` takes the settings that it is formatted by.
fn format_data(java: &Path, jars: &Path, work: &Path, data: &Path, users: &[(String, String)]) -> Result<()> {
    let properties = work.join("format.properties");
    fs::write(&properties, server_properties(1, 2, data, &[])).context("format.properties")?;
    let mut format = Command::new(java);
    format.arg("-XX:TieredStopAtLevel=1").arg("-cp").arg(jars.join("*"));
    format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(&properties);
    for (user, password) in users {
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            format.arg("--add-scram").arg(format!("{mechanism}=[name=\"{user}\",password=\"{password}\"]"));
        }
    }
    run(&mut format).map(drop)
}
