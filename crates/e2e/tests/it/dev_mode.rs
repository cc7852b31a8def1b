//! `meanwhile dev` and the real kcat: everything in one process, nothing else installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use flow::id::JobId;
use serde_json::{Value, json};
use shop::{PerService, Shop};
use test_kit::{Launch, Port, Process, eventually, http_client, kcat, repository};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::{order, send, small_order};
use crate::stage::PATIENCE;
use crate::turn::beside_others;

/// Large slips fill the broker's partitions (5 MiB each) with few jobs.
const SLIP_BYTES: usize = 300_000;
/// More than its six partitions can hold.
const JOBS_TOO_MANY: usize = 200;

/// `meanwhile dev` with the shop behind it.
pub(crate) struct Dev {
    process: Process,
    pub(crate) api: String,
    pub(crate) registry: String,
    kafka: String,
    _ports: [Port; 3],
    _shop: DropGuard,
}

impl Dev {
    async fn start(flows: &Path) -> Self {
        Self::start_with(flows, &[]).await
    }

    pub(crate) async fn start_with(flows: &Path, variables: &[(&str, &str)]) -> Self {
        let shutdown = CancellationToken::new();
        let shop = Shop::start(PerService::any_port(), shutdown.clone()).await.unwrap();
        let urls = shop.urls();
        let ports = [Port::take().unwrap(), Port::take().unwrap(), Port::take().unwrap()];
        let [listen, kafka, registry] = ports.each_ref().map(|port| format!("127.0.0.1:{}", port.number()));
        let launch = Launch::new("dev", test_kit::binary().await.unwrap()).arg("dev").arg(flows);
        let launch = launch.args(["--listen", &listen, "--kafka-listen", &kafka, "--registry-listen", &registry]);
        let launch = launch.env("INVENTORY_URL", urls.inventory).env("PAYMENT_URL", urls.payment);
        let launch = launch.env("SHIPPING_URL", urls.shipping);
        let launch = variables.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
        let mut process = Process::start(launch).unwrap();
        let api = format!("http://{listen}");
        let ready =
            async || http_client().get(format!("{api}/readyz")).send().await.is_ok_and(|answer| answer.status() == 200);
        process.wait_until(PATIENCE, "/readyz says ready", ready).await.unwrap();
        Self {
            process,
            api,
            registry: format!("http://{registry}"),
            kafka,
            _ports: ports,
            _shop: shutdown.drop_guard(),
        }
    }

    /// Everything that it wrote to its terminal.
    fn shown(&self) -> String {
        fs::read_to_string(self.process.log()).unwrap()
    }

    async fn until_shown(&self, text: &str) {
        let found = async || self.shown().contains(text).then_some(());
        eventually(PATIENCE, &format!("`{text}` is shown"), found).await;
    }

    /// The version of the only flow that new jobs get.
    async fn version(&self) -> String {
        let flows = send(http_client().get(format!("{}/v1/flows", self.api))).await;
        flows.body["flows"][0]["version"].as_str().unwrap().to_owned()
    }

    async fn until_version_is_not(&self, before: &str) -> String {
        let changed = async || Some(self.version().await).filter(|version| version != before);
        eventually(PATIENCE, "another version is active", changed).await
    }

    pub(crate) async fn until_succeeded(&self, job: JobId) -> Value {
        eventually(PATIENCE, "the job succeeds", async || {
            let seen = send(http_client().get(format!("{}/v1/jobs/{job}", self.api))).await;
            (seen.body["status"] == "succeeded").then_some(seen.body)
        })
        .await
    }

    pub(crate) async fn stop(mut self) {
        let left = self.process.terminate(PATIENCE).await.unwrap();
        assert!(left.success(), "dev mode left with {left}: {}", self.process.log_tail());
    }
}

/// A flow that runs without any service. Its step is on line 5.
fn flow(greeting: &str) -> String {
    let lines = [
        "flow: greet",
        "summary: Say hello",
        "input: { type: object, required: [name], properties: { name: { type: string } } }",
        "steps:",
        "  - { id: call, when: \"{{ false }}\", native: nothing }",
        &format!("result: \"{greeting} {{{{ input.name }}}}\""),
    ];
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_that_dev_mode_shows_runs_a_job() {
    let _turn = beside_others().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("greet.yaml"), flow("Hello")).unwrap();
    let dev = Dev::start(folder.path()).await;
    dev.until_shown("\nTry:\n").await;
    let shown = dev.shown();
    for line in [&dev.api, &dev.kafka, "greet  POST /v1/flows/greet/jobs   Say hello", "private, in a temporary folder"]
    {
        assert!(shown.contains(line), "not shown: {line}\n{shown}");
    }
    let next = shown.lines().skip_while(|line| *line != "Try:").nth(1).unwrap().trim();
    let binary = test_kit::binary().await.unwrap();
    let command = next.replacen("meanwhile", &binary.display().to_string(), 1);
    let output = tokio::task::block_in_place(|| Command::new("bash").args(["-c", &command]).output().unwrap());
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("= succeeded \"Hello name\""), "{command}\n{told}");
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_that_changes_is_read_again_and_one_that_does_not_lint_changes_nothing() {
    let _turn = beside_others().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("greet.yaml");
    fs::write(&file, flow("Hello")).unwrap();
    let dev = Dev::start(folder.path()).await;
    dev.until_shown("\nTry:\n").await;
    let first = dev.version().await;

    fs::write(&file, flow("Good morning")).unwrap();
    let second = dev.until_version_is_not(&first).await;
    dev.until_shown(&format!("reloaded  greet {second}")).await;

    fs::write(&file, flow("Good evening").replace("native:", "nativ:")).unwrap();
    dev.until_shown("did you mean `native`?").await;
    let shown = dev.shown();
    assert!(shown.contains(&format!("{}:5:", file.display())), "{shown}");
    assert!(shown.contains("were not applied; the versions before stay active"), "{shown}");
    assert_eq!(dev.version().await, second);
    let request = http_client().post(format!("{}/v1/flows/greet/jobs", dev.api)).json(&json!({ "name": "Ada" }));
    let job = send(request).await.job();
    assert_eq!(dev.until_succeeded(job).await["result"], "Good morning Ada");

    fs::write(&file, flow("Good evening")).unwrap();
    dev.until_version_is_not(&second).await;
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kcat_starts_a_job_in_dev_mode_and_bad_commands_become_dead_letters() {
    let _turn = beside_others().await;
    let dev = Dev::start(&repository().join("flows")).await;
    let kafka = dev.kafka.clone();
    let valid = json!({ "flow": "order", "input": order("c-1", json!({})) }).to_string();
    let unknown = json!({ "flow": "ordr", "input": {} }).to_string();
    let lines = format!("{valid}\n{{\"flow\": \n{unknown}\n");
    kcat(&["-P", "-b", &kafka, "-t", "meanwhile.commands", "-k", "customer-1"], lines.as_bytes()).unwrap();
    let read = async |topic: &str, format: &str| {
        let seen = kcat(&["-C", "-b", &kafka, "-t", topic, "-o", "beginning", "-e", "-q", "-f", format], b"").unwrap();
        String::from_utf8_lossy(&seen).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let dead = eventually(PATIENCE, "two dead letters", async || {
        let dead = read("meanwhile.dead-letters", "%s %h\n").await;
        (dead.len() == 2).then_some(dead)
    })
    .await;
    assert!(dead.iter().any(|line| line.starts_with("{\"flow\": ") && line.contains("meanwhile-failure-reason")));
    assert!(dead.iter().any(|line| line.contains("ordr") && line.contains("`order`")), "{dead:?}");
    let keys = eventually(PATIENCE, "an event", async || {
        let keys = read("meanwhile.events", "%k\n").await;
        (!keys.is_empty()).then_some(keys)
    })
    .await;
    let job: JobId = keys[0].parse().unwrap();
    assert_eq!(dev.until_succeeded(job).await["result"]["tracking"], "TRACK-000001");
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_mode_refuses_new_jobs_before_its_broker_would_drop_old_ones() {
    let _turn = beside_others().await;
    let dev = Dev::start(&repository().join("crates/e2e/flows")).await;
    let (client, padding) = (http_client(), "x".repeat(SLIP_BYTES));
    let submit = async |number: usize| {
        let mut input = small_order(&format!("c-{number}"), json!({ "inventory": "slow:4000" }));
        input["padding"] = padding.as_str().into();
        send(client.post(format!("{}/v1/flows/saga/jobs", dev.api)).json(&input)).await
    };
    let mut jobs = vec![];
    let refused = loop {
        let answer = submit(jobs.len()).await;
        if answer.status != 202 {
            break answer;
        }
        jobs.push(answer.job());
        assert!(jobs.len() < JOBS_TOO_MANY, "nobody was refused, though the broker cannot hold so many slips");
    };
    assert_eq!((refused.status, refused.problem()), (503, "temporary-reduced-capacity"), "{refused:?}");
    assert_eq!(refused.header("retry-after"), "1");
    let told = format!("{}{}", refused.body["detail"], refused.body["remediation"]);
    assert!(told.contains("meanwhile.steps.default[") && told.contains("KAFKA_BROKERS"), "{told}");
    // Nothing that was accepted is lost, and there is room again by itself.
    for job in &jobs {
        dev.until_succeeded(*job).await;
    }
    let accepted = eventually(PATIENCE, "there is room again", async || {
        let answer = submit(jobs.len()).await;
        (answer.status == 202).then(|| answer.job())
    });
    let accepted = accepted.await;
    dev.until_succeeded(accepted).await;
    dev.stop().await;
}
