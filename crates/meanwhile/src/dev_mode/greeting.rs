//! The lines that `meanwhile dev` prints when it is ready: addresses, flows, the next command to try.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use client::{Client, Error};
use dev::Dev;
use flow::definition::Definition;
use service_kit::config::{AuthSettings, redact};

use super::sample;

/// The interval at which readiness is asked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The text, made before the roles start.
pub(super) struct Greeting {
    text: String,
    flows: Vec<String>,
}

impl Greeting {
    pub(super) fn new(
        dev: &Dev,
        (api, auth): (&Client, &AuthSettings),
        folder: &Path,
        definitions: &[Definition],
    ) -> Self {
        let mut text = format!("\nMeanwhile is ready, in development mode: {}.\n", promise(dev, auth.is_required()));
        let mut line = |name: &str, value: &str, remark: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", format!("  {name:<10}{value:<28}{remark}").trim_end());
        };
        line("API", api.url(), "openapi.json, readyz, metrics");
        let (in_process, private_postgres) = dev.forgets();
        line("Kafka", &dev.kafka_shown, if in_process { "in this process" } else { "" });
        line("Registry", &redact(&dev.registry_url), "");
        line("Postgres", if private_postgres { "private, in a temporary folder" } else { "DATABASE_URL" }, "");
        line("Flows", &folder.display().to_string(), "read again when a file changes");
        let width = definitions.iter().map(|flow| flow.name().chars().count()).max().unwrap_or(0);
        for flow in definitions {
            let route = flow.route().map(|route| format!("{} {}", route.method, route.path));
            let route = route.unwrap_or_else(|| format!("POST /v1/flows/{}/jobs", flow.name()));
            let _ = writeln!(text, "    {:<width$}  {route:<28}{}", flow.name(), flow.summary().unwrap_or_default());
        }
        if let Some(flow) = definitions.first() {
            let _ = writeln!(text, "\nTry:\n  {}\n", next_command(flow, api.url()));
        }
        Self { text, flows: definitions.iter().map(|flow| flow.name().to_owned()).collect() }
    }

    /// Waits until every role is ready and every flow can be called, then prints.
    #[expect(clippy::print_stdout, reason = "tells the person at the terminal where everything is")]
    pub(super) async fn show_when_ready(self, api: &Client) {
        // In this order: questions for readiness are not logged.
        while !api.is_ready().await || !self.are_flows_known(api).await {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        println!("{}", self.text);
    }

    async fn are_flows_known(&self, api: &Client) -> bool {
        match api.flows().await {
            // Whoever asks for credentials knows its flows: it was ready before.
            Err(Error::Problem(problem)) => problem.status == 401,
            known => {
                let known = known.unwrap_or_default();
                self.flows.iter().all(|flow| known.contains(flow))
            }
        }
    }
}

fn promise(dev: &Dev, asks: bool) -> String {
    let gone = match dev.forgets() {
        (true, true) => "jobs and records are gone when it ends, and ",
        (true, false) => "records are gone when it ends, and ",
        (false, true) => "jobs are gone when it ends, and ",
        (false, false) => "",
    };
    let open = "anybody on this machine may use it: nobody is asked for credentials (auth.mode = off)";
    format!("{gone}{}", if asks { "callers need an API key (meanwhile keys create --bootstrap)" } else { open })
}

fn next_command(flow: &Definition, url: &str) -> String {
    let url = if url == "http://127.0.0.1:8080" { String::new() } else { format!(" --url {url}") };
    let input = match sample::input(flow) {
        Some(input) if input.as_object().is_some_and(serde_json::Map::is_empty) => String::new(),
        Some(input) => format!(" --input '{}'", input.to_string().replace('\'', r"'\''")),
        None => " --input @input.json".to_owned(),
    };
    format!("meanwhile submit {}{input} --follow{url}", flow.name())
}
