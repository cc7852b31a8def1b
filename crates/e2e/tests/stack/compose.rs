//! A compose stack of its own, which is removed at the end.

use std::process::Output;
use std::time::Duration;

use client::{Client, JobState};
use test_kit::{eventually, repository, submit};
use tokio::process::Command;

use crate::load::{ORDER, order};

pub(crate) const API: &str = "http://127.0.0.1:8080";
/// The key that docker-compose.yml makes.
pub(crate) const KEY: &str = "mw_developmentonly0_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
pub(crate) const KAFKA: &str = "127.0.0.1:9092";
pub(crate) const REGISTRY: &str = "http://127.0.0.1:8081/apis/ccompat/v7";
/// Every role that docker-compose.yml runs.
pub(crate) const ROLES: [&str; 5] = ["ingest", "relay", "workers", "orchestrator", "notifier"];
/// How long the stack may take to bring an order through again, and to work off what has waited.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(180);
/// The image of the roles, which also serves as a shell with tools.
const IMAGE: &str = "meanwhile:local";

/// A stack under a project name of its own, without traces, whose slips stay on their topics.
pub(crate) struct Stack {
    project: &'static str,
}

impl Stack {
    /// Builds the images and starts the stack; the rest of an earlier one is removed.
    pub(crate) async fn start(project: &'static str) -> Self {
        println!("starting a stack of its own: {project}");
        let stack = Self { project };
        stack.compose(&["build"]).await;
        stack.remove().await;
        stack.up().await;
        stack
    }

    pub(crate) async fn up(&self) {
        self.compose(&["up", "--detach", "--wait", "--wait-timeout", "300"]).await;
    }

    /// Stops the stack and forgets its volumes.
    pub(crate) async fn remove(&self) {
        self.compose(&["down", "--volumes", "--timeout", "10"]).await;
    }

    /// Runs `docker compose`, which has to succeed, and returns its standard output.
    pub(crate) async fn compose(&self, arguments: &[&str]) -> String {
        self.docker(&[&["compose"], arguments].concat()).await
    }

    /// Runs `docker`, which has to succeed, and returns its standard output.
    pub(crate) async fn docker(&self, arguments: &[&str]) -> String {
        let output = self.try_docker(arguments).await;
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {} failed: {wrong}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    async fn try_docker(&self, arguments: &[&str]) -> Output {
        let mut docker = Command::new("docker");
        docker.args(arguments).current_dir(repository()).envs(environment(self.project));
        docker.output().await.expect("docker runs")
    }

    /// Runs a shell command as root in a container beside the stack.
    pub(crate) async fn shell(&self, options: &[&str], command: &str) {
        let run: &[&str] = &["run", "--rm", "--user", "0", "--entrypoint", "/bin/sh"];
        self.docker(&[run, options, &[IMAGE, "-c", command]].concat()).await;
    }

    pub(crate) async fn containers(&self, service: &str) -> Vec<String> {
        self.compose(&["ps", "--quiet", service]).await.lines().map(str::to_owned).collect()
    }

    /// The answer of Postgres to a query; none while it cannot answer.
    pub(crate) async fn sql(&self, query: &str) -> Option<String> {
        let psql = ["compose", "exec", "-T", "postgres", "psql", "-U", "postgres", "-d", "meanwhile", "-Atc", query];
        let output = self.try_docker(&psql).await;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Sends an order under this key until it is accepted, and waits until it has succeeded.
    pub(crate) async fn an_order_goes_through(&self, key: &str) {
        let client = Client::with_key(API, KEY).unwrap();
        let accepted = async || submit(&client, ORDER, key, &order(0)).await.ok();
        let job = eventually(BACK_WITHIN, "an order to be accepted", accepted).await;
        eventually(BACK_WITHIN, "the order to succeed", async || {
            let status = client.status(&job.to_string()).await.ok()?;
            (status.status == JobState::Succeeded).then_some(())
        })
        .await;
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::env::var_os("KEEP").is_some() {
            return;
        }
        let mut docker = std::process::Command::new("docker");
        docker.args(["compose", "down", "--volumes", "--timeout", "10"]).current_dir(repository());
        if let Err(error) = docker.envs(environment(self.project)).output() {
            eprintln!("the stack {} could not be removed: {error}", self.project);
        }
    }
}

fn environment(project: &'static str) -> [(&'static str, &'static str); 5] {
    [
        ("COMPOSE_PROJECT_NAME", project),
        ("COMPOSE_PROFILES", "core"),
        ("COMPOSE_FILE", "docker-compose.yml:deploy/compose/recovery.yml"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ("TRACE_URL", ""),
    ]
}
