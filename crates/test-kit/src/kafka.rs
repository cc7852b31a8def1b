//! A private Apache Kafka broker.

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
/// What the broker logs when it serves.
const READY_LINE: &str = "Kafka Server started";
/// Any 22 characters of base64 that are 16 bytes.
const CLUSTER_ID: &str = "bWVhbndoaWxlLXRlc3RzIQ";

/// How a private broker is to run.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// Use the optimising compiler too: slower to start, faster later. For benchmarks.
    pub full_jit: bool,
    /// The heap's size, MiB.
    pub heap_mib: u32,
    /// More lines of server.properties; a later line wins.
    pub properties: Vec<(String, String)>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self { full_jit: false, heap_mib: 512, properties: vec![] }
    }
}

/// A private broker; it goes, with its data, when dropped.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    port: Port,
    /// Bytes of the log that belong to earlier lives.
    log_seen_bytes: usize,
    _controller_port: Port,
    _folder: DataFolder,
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
        let properties = folder.path().join("server.properties");
        let text = server_properties(port.number(), controller_port.number(), &data, &options.properties);
        fs::write(&properties, text).context("server.properties")?;
        let process = Process::start(launch(&java, &jars, &options, &properties))?;
        let mut kafka = Self { process, port, log_seen_bytes: 0, _controller_port: controller_port, _folder: folder };
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
        self.process.kill9();
    }

    /// Starts it again with the same port and data, and waits until it serves.
    pub async fn restart(&mut self) -> Result<()> {
        self.log_seen_bytes = fs::metadata(self.process.log()).map_or(0, |log| log.len() as usize);
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
        let started = async || {
            let text = fs::read(&log).unwrap_or_default();
            String::from_utf8_lossy(text.get(seen..).unwrap_or_default()).contains(READY_LINE)
        };
        self.process.wait_until(READY_WITHIN, "the broker serves", started).await
    }
}

fn launch(java: &Path, jars: &Path, options: &KafkaOptions, properties: &Path) -> Launch {
    let heap = options.heap_mib;
    let mut launch = Launch::new("kafka", java).args([format!("-Xms{heap}m"), format!("-Xmx{heap}m")]);
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
