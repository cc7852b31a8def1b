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
use crate::tool::{run, tool_path};

/// A broker is ready in 2 to 4 s on a quiet machine; recovery after `kill -9` takes longer.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// The broker logs this when it serves.
const READY_LINE: &str = "Kafka Server started";
/// The controller logs this when a broker has been silent for too long.
const FENCED_LINE: &str = "Fencing broker 1 ";
/// The node id of a controller apart; the broker's is 1.
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
    /// A controller in a process of its own, which lives on when the broker is killed.
    pub controller_apart: bool,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self { full_jit: false, heap_mib: 512, properties: vec![], controller_apart: false }
    }
}

impl KafkaOptions {
    /// For a broker that is killed while transactions run.
    pub fn to_be_killed() -> Self {
        Self { controller_apart: true, ..Self::default() }
    }
}

/// A private broker; it goes, with its data, when dropped.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    port: Port,
    /// Bytes of the log that belong to earlier lives.
    log_seen_bytes: usize,
    controller: Option<Controller>,
    _controller_port: Port,
    _folder: DataFolder,
}

/// The process that keeps the cluster's metadata, where that is not the broker itself.
#[derive(Debug)]
struct Controller {
    process: Process,
    /// Bytes of the log as of the broker's last death.
    log_seen_bytes: usize,
}

impl Kafka {
    /// Starts a broker and waits until it serves.
    pub async fn start(options: KafkaOptions) -> Result<Self> {
        let jars = tool_path("kafka")?;
        let java = tool_path("java")?;
        let (port, controller_port) = (Port::take()?, Port::take()?);
        let folder = DataFolder::new("kafka")?;
        let data = folder.path().join("data");
        let template = formatted_template(&java, &jars)?;
        run(Command::new("cp").arg("-a").arg(&template).arg(&data))?;
        let mut text = server_properties(port.number(), controller_port.number(), &data, &options.properties);
        let controller = if options.controller_apart {
            text.push_str(&broker_alone(port.number(), controller_port.number()));
            Some(Controller::start(&java, &jars, folder.path(), &template, &text)?)
        } else {
            None
        };
        let properties = folder.path().join("server.properties");
        fs::write(&properties, text).context("server.properties")?;
        let process = Process::start(launch("kafka", &java, &jars, &options, &properties))?;
        let (log_seen_bytes, _controller_port, _folder) = (0, controller_port, folder);
        let mut kafka = Self { process, port, log_seen_bytes, controller, _controller_port, _folder };
        kafka.wait_until_ready().await?;
        Ok(kafka)
    }

    /// `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// The broker's process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        if let Some(controller) = &mut self.controller {
            controller.log_seen_bytes = length(controller.process.log());
        }
        self.process.kill9();
    }

    /// Starts it again with the same port and data, and waits until it serves. A controller apart has noticed the death
    /// by then.
    pub async fn restart(&mut self) -> Result<()> {
        if let Some(controller) = &mut self.controller {
            controller.wait_until_noticed().await?;
        }
        self.log_seen_bytes = length(self.process.log());
        self.process.restart()?;
        self.wait_until_ready().await
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.resume();
    }

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
        let identity = fs::read_to_string(data.join("meta.properties")).context("meta.properties")?;
        let identity = identity.lines().map(|line| match line.split_once('=') {
            Some(("node.id", _)) => format!("node.id={CONTROLLER_ID}\n"),
            Some(("directory.id", _)) => format!("directory.id={CONTROLLER_FOLDER_ID}\n"),
            _ => format!("{line}\n"),
        });
        fs::write(data.join("meta.properties"), identity.collect::<String>()).context("meta.properties")?;
        let properties = folder.join("controller.properties");
        fs::write(&properties, controller_alone(text, &data)).context("controller.properties")?;
        let options = KafkaOptions { heap_mib: CONTROLLER_HEAP_MIB, ..KafkaOptions::default() };
        let process = Process::start(launch("kafka-controller", java, jars, &options, &properties))?;
        Ok(Self { process, log_seen_bytes: 0 })
    }

    async fn wait_until_noticed(&mut self) -> Result<()> {
        let (log, seen) = (self.process.log().to_owned(), self.log_seen_bytes);
        let noticed = async || says(&log, seen, FENCED_LINE);
        self.process.wait_until(READY_WITHIN, "the controller notices the broker's death", noticed).await
    }
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

fn server_properties(port: u16, controller_port: u16, data: &Path, more: &[(String, String)]) -> String {
    let data = data.display();
    let mut text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
num.partitions=6
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.index.size.max.bytes=2097152
log.cleaner.dedupe.buffer.size=16777216
"
    );
    for (name, value) in more {
        text.push_str(&format!("{name}={value}\n"));
    }
    text
}

/// More lines for a broker that is no controller.
fn broker_alone(port: u16, controller_port: u16) -> String {
    format!(
        "process.roles=broker
controller.quorum.voters={CONTROLLER_ID}@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port}
"
    )
}

/// The controller's settings, from its broker's.
fn controller_alone(broker: &str, data: &Path) -> String {
    let lines = broker.lines().filter(|line| !line.starts_with("advertised.listeners="));
    let voters = broker.lines().rev().find_map(|line| line.strip_prefix("controller.quorum.voters="));
    let address = voters.and_then(|voters| voters.split_once('@')).map_or("", |(_, address)| address);
    let more = [
        "process.roles=controller".to_owned(),
        format!("node.id={CONTROLLER_ID}"),
        format!("listeners=CONTROLLER://{address}"),
        format!("log.dirs={}", data.display()),
    ];
    lines.map(str::to_owned).chain(more).collect::<Vec<_>>().join("\n")
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
    let properties = work.path().join("server.properties");
    fs::write(&properties, server_properties(1, 2, &data, &[])).context("server.properties")?;
    let mut format = Command::new(java);
    format.arg("-XX:TieredStopAtLevel=1").arg("-cp").arg(jars.join("*"));
    format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(&properties);
    run(&mut format)?;
    let beside = template.with_file_name(format!("{version}-formatted-{}", std::process::id()));
    run(Command::new("cp").arg("-a").arg(&data).arg(&beside))?;
    if fs::rename(&beside, &template).is_err() {
        fs::remove_dir_all(&beside).context("removing a template that another process was faster with")?;
    }
    Ok(template)
}
