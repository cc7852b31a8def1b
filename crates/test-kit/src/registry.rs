//! A private schema registry: Apicurio, by its Confluent-compatible API.

use std::time::Duration;

use anyhow::Result;

use crate::folder::DataFolder;
use crate::http::http_client;
use crate::port::Port;
use crate::process::{Launch, Process};
use crate::tool::tool_path;

/// Ready in 9 to 11 s on a quiet machine.
const READY_WITHIN: Duration = Duration::from_secs(300);

/// A private registry; it goes, with its data, when dropped. What it holds outlasts `kill9` and `restart`.
#[derive(Debug)]
pub struct Registry {
    process: Process,
    port: Port,
    _management_port: Port,
    _folder: DataFolder,
}

impl Registry {
    /// Starts a registry and waits until it serves.
    pub async fn start() -> Result<Self> {
        let (app, java) = (tool_path("registry")?, tool_path("java")?);
        let (port, management_port) = (Port::take()?, Port::take()?);
        let folder = DataFolder::new("registry")?;
        // WRITE_DELAY: what was answered is in the file, so that a kill loses nothing.
        let database = format!("jdbc:h2:file:{}/registry;WRITE_DELAY=0", folder.path().display());
        let launch = Launch::new("registry", java)
            .args(["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dquarkus.http.host=127.0.0.1"])
            .arg(format!("-Dquarkus.http.port={}", port.number()))
            .arg("-Dquarkus.management.host=127.0.0.1")
            .arg(format!("-Dquarkus.management.port={}", management_port.number()))
            .arg(format!("-Dapicurio.datasource.url={database}"))
            .arg("-jar")
            .arg(app.join("quarkus-run.jar"))
            .folder(folder.path());
        let process = Process::start(launch)?;
        let mut registry = Self { process, port, _management_port: management_port, _folder: folder };
        registry.wait_until_ready().await?;
        Ok(registry)
    }

    /// The root of the Confluent-compatible API.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/apis/ccompat/v7", self.port.number())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again with the same port and data, and waits until it serves.
    pub async fn restart(&mut self) -> Result<()> {
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
        let (client, url) = (http_client(), format!("{}/subjects", self.url()));
        let answers = async || {
            let answer = client.get(&url).timeout(Duration::from_secs(2)).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        };
        self.process.wait_until(READY_WITHIN, "the registry answers", answers).await
    }
}
