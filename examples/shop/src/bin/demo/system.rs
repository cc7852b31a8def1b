//! `meanwhile dev`, started and asked.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use shop::{PerService, Shop};
use tokio::process::{Child, Command};

use crate::say;

/// How long everything may take to be ready, and a job to come to a state.
const ATTEMPTS_MAX: u32 = 600;
const INTERVAL: Duration = Duration::from_millis(100);
/// How long `meanwhile dev` may take to clean up.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Breakers that a handful of orders can open, and that probe soon. No story before the outage opens one: of eight
/// calls of a service in a row at most five fail.
const BREAKERS: [(&str, &str); 4] = [
    ("MEANWHILE__WORKERS__BREAKERS__CALLS_MIN", "8"),
    ("MEANWHILE__WORKERS__BREAKERS__FAILURES_PERCENT", "75"),
    ("MEANWHILE__ORCHESTRATOR__BREAKERS__PAUSE_MS", "1000"),
    ("MEANWHILE__ORCHESTRATOR__BREAKERS__PAUSE_MS_MAX", "2000"),
];

pub(crate) struct Addresses {
    pub(crate) api: String,
    pub(crate) kafka: String,
    pub(crate) registry: String,
    pub(crate) shop: PerService<String>,
}

impl Addresses {
    pub(crate) fn choose(free: bool) -> anyhow::Result<Self> {
        let at = |port: u16| -> anyhow::Result<String> {
            if !free {
                return Ok(format!("127.0.0.1:{port}"));
            }
            let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
            Ok(listener.local_addr()?.to_string())
        };
        let shop = if free { PerService::any_port() } else { PerService::default() };
        Ok(Self { api: at(8080)?, kafka: at(9092)?, registry: at(8081)?, shop })
    }
}

pub(crate) fn start_dev(meanwhile: &Path, log: &Path, addresses: &Addresses, shop: &Shop) -> anyhow::Result<Child> {
    let file = std::fs::File::create(log).with_context(|| format!("creating the log {}", log.display()))?;
    let urls = shop.urls();
    Command::new(meanwhile)
        .args(["dev", "flows", "--listen", &addresses.api])
        .args(["--kafka-listen", &addresses.kafka, "--registry-listen", &addresses.registry])
        .envs([("INVENTORY_URL", &urls.inventory), ("PAYMENT_URL", &urls.payment), ("SHIPPING_URL", &urls.shipping)])
        .envs(BREAKERS)
        // Its own group: ctrl-c reaches the demo, which ends it in order.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}; build it with `cargo build`", meanwhile.display()))
}

pub(crate) async fn stop(dev: &mut Child) {
    let Some(id) = dev.id().and_then(|id| i32::try_from(id).ok()) else { return };
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM);
    if tokio::time::timeout(LEAVE_TIMEOUT, dev.wait()).await.is_err() {
        let _ = dev.kill().await;
    }
}

/// The running system, as its callers see it.
pub(crate) struct System {
    client: reqwest::Client,
    api: String,
    meanwhile: PathBuf,
}

impl System {
    /// Waits until `/readyz` says so.
    pub(crate) async fn ready(
        meanwhile: &Path,
        log: &Path,
        addresses: &Addresses,
        dev: &mut Child,
    ) -> anyhow::Result<Self> {
        // All that it calls is on this machine.
        let client = proxies::direct_client_builder().build()?;
        let system = Self { client, api: format!("http://{}", addresses.api), meanwhile: meanwhile.to_owned() };
        for attempt in 0..ATTEMPTS_MAX {
            if let Some(status) = dev.try_wait()? {
                let text = std::fs::read_to_string(log).unwrap_or_default();
                bail!("meanwhile dev ended ({status}):\n{text}");
            }
            let ready = system.client.get(format!("{}/readyz", system.api)).send().await;
            if ready.is_ok_and(|response| response.status().is_success()) {
                return Ok(system);
            }
            if attempt > 0 && attempt % 20 == 0 {
                say("  ... still starting");
            }
            tokio::time::sleep(INTERVAL).await;
        }
        bail!("it did not get ready; its log is {}", log.display())
    }

    /// The id of the job.
    pub(crate) async fn submit(&self, route: &str, key: &str, order: &Value) -> anyhow::Result<String> {
        let request = self.client.post(format!("{}/{route}", self.api)).header("idempotency-key", format!("\"{key}\""));
        let response = request.json(order).send().await.context("submitting the order")?;
        let status = response.status();
        let answer: Value = response.json().await.context("the answer is not JSON")?;
        match answer["id"].as_str() {
            Some(job) if status.as_u16() == 202 => Ok(job.to_owned()),
            _ => bail!("the order was not accepted: {status} {answer}"),
        }
    }

    /// Sends the job a decision, as a person would on the command line.
    pub(crate) async fn decide(&self, job: &str, decision: &str) -> anyhow::Result<()> {
        let mut command = Command::new(&self.meanwhile);
        command.args(["jobs", "signal", job, "approval", decision, "--url", &self.api]).stdout(Stdio::null());
        let sent = command.status().await.context("sending the decision")?;
        if sent.success() { Ok(()) } else { bail!("the decision was not taken") }
    }

    /// Follows the job to its end, shown to the person or not. True: it has succeeded.
    pub(crate) async fn follow(&self, job: &str, shown: bool) -> anyhow::Result<bool> {
        let mut command = Command::new(&self.meanwhile);
        command.args(["jobs", "show", job, "--follow", "--url", &self.api]);
        if !shown {
            command.stdout(Stdio::null());
        }
        Ok(command.status().await.context("following the job")?.success())
    }

    /// The downstream whose breaker the job waits for. None: it has ended before.
    pub(crate) async fn until_breaker(&self, job: &str) -> anyhow::Result<Option<String>> {
        for _ in 0..ATTEMPTS_MAX {
            let response = self.client.get(format!("{}/v1/jobs/{job}", self.api)).send().await;
            let status: Value = response.context("asking for the job")?.json().await.context("a status is no JSON")?;
            let steps = status["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(name) = steps.iter().find_map(|step| step["waiting_for"]["breaker"].as_str()) {
                return Ok(Some(name.to_owned()));
            }
            if matches!(status["status"].as_str(), Some("succeeded" | "failed" | "cancelled" | "needs_attention")) {
                return Ok(None);
            }
            tokio::time::sleep(INTERVAL).await;
        }
        bail!("the job {job} neither waits for a breaker nor ends")
    }
}
