//! Proxies of the environment: never for this machine, and for all else the same rule in every client.

use std::fs;

use serde_json::json;
use test_kit::{Launch, Process, Receiver, eventually, meanwhile, repository};

use crate::client::order;
use crate::dev_mode::Dev;
use crate::stage::PATIENCE;
use crate::turn::beside_others;

/// Nobody listens on this port.
const DEAD: &str = "http://127.0.0.1:9";

/// The environment of a machine that has this proxy for everything.
fn proxied(proxy: &str) -> Vec<(String, String)> {
    let proxies = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"].map(|name| (name, proxy));
    let all = proxies.into_iter().chain([("NO_PROXY", ""), ("no_proxy", "")]);
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

async fn dev_with(flows: &std::path::Path, variables: &[(String, String)], collector: &str) -> Dev {
    let mut variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    variables.push(("OTEL_EXPORTER_OTLP_ENDPOINT", collector));
    Dev::start_with(flows, &variables).await
}

async fn until_asked(receiver: &Receiver, url: &str) {
    let asked = async || receiver.requests().iter().any(|request| request.uri == url).then_some(());
    eventually(PATIENCE, &format!("{url} is asked"), asked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_proxy_stands_in_no_clients_way_to_this_machine() {
    let _turn = beside_others().await;
    let (collector, variables) = (Receiver::start().await, proxied(DEAD));
    // The roles reach the registry: it is ready.
    let dev = dev_with(&repository().join("flows"), &variables, &collector.url()).await;
    let input = order("c-1", json!({})).to_string();
    let arguments = ["submit", "order", "--input", &input, "--url", &dev.api];
    let job = meanwhile(&arguments, &variables).await.unwrap();
    dev.until_succeeded(job.trim().parse().unwrap()).await;
    meanwhile(&["healthcheck", &format!("{}/readyz", dev.api)], &variables).await.unwrap();
    until_asked(&collector, "/v1/traces").await;
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_traces_and_the_command_line_call_other_machines_by_the_proxy() {
    let _turn = beside_others().await;
    let (proxy, flows) = (Receiver::start().await, tempfile::tempdir().unwrap());
    // Names that do not exist: only a proxy can answer for them.
    let step = "  - { id: call, http: { method: POST, url: \"http://service.test/book\" } }";
    fs::write(flows.path().join("far.yaml"), format!("flow: far\ninput: {{ type: object }}\nsteps:\n{step}\n"))
        .unwrap();
    let variables = proxied(&proxy.url());
    let dev = dev_with(flows.path(), &variables, "http://collector.test:4318").await;
    let job = meanwhile(&["submit", "far", "--input", "{}", "--url", &dev.api], &variables).await.unwrap();
    dev.until_succeeded(job.trim().parse().unwrap()).await;
    until_asked(&proxy, "http://service.test/book").await;
    until_asked(&proxy, "http://collector.test:4318/v1/traces").await;
    // What the proxy says is no answer of the API, but it was asked.
    assert!(meanwhile(&["jobs", "show", "1", "--url", "http://api.test"], &variables).await.is_err());
    until_asked(&proxy, "http://api.test/v1/jobs/1").await;
    let local: Vec<_> =
        proxy.requests().into_iter().filter(|request| request.uri.to_string().contains("127.0.0.1")).collect();
    assert!(local.is_empty(), "{local:?}");
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registry_of_another_machine_is_asked_by_the_proxy() {
    let proxy = Receiver::start().await;
    let launch = Launch::new("far-registry", test_kit::binary().await.unwrap()).arg("workers");
    let servers = [
        ("KAFKA_BROKERS", "127.0.0.1:1"),
        ("SCHEMA_REGISTRY_URL", "http://registry.test:8081"),
        ("MEANWHILE_LISTEN", "127.0.0.1:0"),
    ];
    let servers = servers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let launch =
        proxied(&proxy.url()).into_iter().chain(servers).fold(launch, |launch, (name, value)| launch.env(&name, value));
    let _workers = Process::start(launch).unwrap();
    eventually(PATIENCE, "the registry is asked", async || {
        let asked = |url: String| url.starts_with("http://registry.test:8081/subjects/");
        proxy.requests().iter().any(|request| asked(request.uri.to_string())).then_some(())
    })
    .await;
}
