//! A private Prometheus with the rules of `deploy/prometheus`, which scrapes what it is told to.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::folder::DataFolder;
use crate::http::http_client;
use crate::port::Port;
use crate::process::{Launch, Process};
use crate::tool::{repository, tool_path};

/// Ready within a second on a quiet machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A private Prometheus; it goes, with its data, when dropped.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    port: Port,
    _folder: DataFolder,
}

impl Prometheus {
    /// Starts one that scrapes these every second (service, `host:port`), and waits until it is ready.
    pub async fn start(targets: &[(&str, String)]) -> Result<Self> {
        let program = tool_path("prometheus")?.join("prometheus");
        let (port, folder) = (Port::take()?, DataFolder::new("prometheus")?);
        let rules = repository().join("deploy/prometheus/rules/*.yml");
        let mut config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [\"{}\"]\nscrape_configs:\n  \
             - job_name: meanwhile\n    static_configs:\n",
            rules.display()
        );
        for (service, address) in targets {
            writeln!(config, "      - {{ targets: [\"{address}\"], labels: {{ service: {service} }} }}")?;
        }
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
        let launch = Launch::new("prometheus", program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
            .folder(folder.path());
        let mut prometheus = Self { process: Process::start(launch)?, port, _folder: folder };
        let (client, url) = (http_client(), format!("{}/-/ready", prometheus.url()));
        let ready = async || client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());
        prometheus.process.wait_until(READY_WITHIN, "Prometheus is ready", ready).await?;
        Ok(prometheus)
    }

    /// The root of its API.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }
}
