//! The commands of the documents are run as they stand, against `meanwhile dev` and the shop: those of README.md, then
//! those of docs/. Only blocks ```` ```sh demo ```` are run, in order and in one shell; addresses and the binary's path
//! are replaced. Blocks ```` ```sh compose ```` need the compose stack, and `scripts/stack/smoke` runs them against it.

#![expect(clippy::unwrap_used, reason = "set-up of a test: a failure is the test's")]

use std::process::{Command, Output};
use std::time::Duration;

use shop::{PerService, Shop};
use tempfile::TempDir;
use test_kit::{Launch, Port, Process, binary, http_client, meanwhile, repository};
use tokio_util::sync::CancellationToken;

/// Only ends a test that hangs.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Blocks that must be there at least; fewer means that they are not found.
const BLOCKS_MIN: usize = 7;
/// Jobs that the documents submit: one that is looked at, two that are waited for, two whose events are read as they
/// happen, one from kcat, a batch of three, one that is approved, and one that the command line asks to be told of.
const CHARGES: usize = 11;

/// README.md, then the pages of docs/ by name.
fn documents() -> Vec<String> {
    let pages = std::fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = pages.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    pages.sort();
    let pages = pages.iter().map(|page| std::fs::read_to_string(page).unwrap());
    std::iter::once(readme()).chain(pages).collect()
}

fn readme() -> String {
    std::fs::read_to_string(repository().join("README.md")).expect("README.md")
}

/// The fenced blocks whose fence says just this.
fn blocks(text: &str, fence: &str) -> Vec<String> {
    let mut found = vec![];
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.strip_prefix("```") == Some(fence) {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push(block.join("\n"));
        }
    }
    found
}

/// `meanwhile dev` with the shop behind it, on ports of its own, and the names of them in the documents.
struct Demo {
    dev: Process,
    shop: Shop,
    ports: [(&'static str, Port); 3],
    binary: String,
    _flows: TempDir,
}

/// The flows of README.md and of docs/triggers.md in one folder: `meanwhile dev` reads one.
fn all_flows() -> TempDir {
    let all = tempfile::tempdir().unwrap();
    for folder in ["flows", "examples/triggers"] {
        for file in std::fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            std::fs::copy(&file, all.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    all
}

impl Demo {
    async fn start(shutdown: &CancellationToken) -> Self {
        let shop = Shop::start(PerService::any_port(), shutdown.clone()).await.unwrap();
        let ports = ["127.0.0.1:8080", "127.0.0.1:9092", "127.0.0.1:8081"].map(|named| (named, Port::take().unwrap()));
        let [api, kafka, registry] = [0, 1, 2].map(|index: usize| format!("127.0.0.1:{}", ports[index].1.number()));
        let (urls, binary) = (shop.urls(), binary().await.unwrap());
        let flows = all_flows();
        let folder = flows.path().display().to_string();
        let launch = Launch::new("dev", &binary)
            .args(["dev", &folder, "--listen", &api, "--kafka-listen", &kafka, "--registry-listen", &registry])
            .env("INVENTORY_URL", urls.inventory)
            .env("PAYMENT_URL", urls.payment)
            .env("SHIPPING_URL", urls.shipping)
            // As docs/triggers.md has it.
            .env("MEANWHILE_SECRET_SHOP", "a-secret-of-the-shop")
            .folder(repository());
        let mut dev = Process::start(launch).unwrap();
        let (client, url) = (http_client(), format!("http://{api}/readyz"));
        let ready = async || client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());
        dev.wait_until(READY_WITHIN, "/readyz says ready", ready).await.unwrap();
        Self { dev, shop, ports, binary: binary.display().to_string(), _flows: flows }
    }

    /// The script with our addresses in place of those that the README names; each must occur.
    fn adapted(&self, script: &str) -> String {
        let mut replaced = vec![("target/debug/meanwhile", self.binary.clone())];
        let ports = self.ports.iter().map(|(named, port)| (*named, format!("127.0.0.1:{}", port.number())));
        replaced.extend(ports);
        replaced.push(("http://127.0.0.1:7002", self.shop.urls().payment));
        replaced.iter().fold(script.to_owned(), |script, (named, ours)| {
            assert!(script.contains(named), "no document names {named} any more");
            script.replace(named, ours)
        })
    }

    fn run(&self, script: &str) -> Output {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", script]).current_dir(repository());
        // `jobs show` takes the port of the documents for granted.
        bash.env("MEANWHILE_URL", format!("http://127.0.0.1:{}", self.ports[0].1.number()));
        bash.output().expect("bash runs")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_documents_do_what_these_say() {
    let blocks: Vec<_> = documents().iter().flat_map(|text| blocks(text, "sh demo")).collect();
    assert!(blocks.len() >= BLOCKS_MIN, "{blocks:#?}");
    let shutdown = CancellationToken::new();
    let demo = Demo::start(&shutdown).await;
    let script = demo.adapted(&blocks.join("\n"));
    let output = tokio::task::block_in_place(|| demo.run(&script));
    let [told, complained] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let all = format!("{script}\n---\n{told}\n---\n{complained}\n---\n{}", demo.dev.log_tail());
    assert!(output.status.success(), "{all}");
    assert!(told.contains("202 Accepted"), "{all}");
    // `tail --count 15` ends only when the three jobs, two over HTTP and one from kcat, have had five events each.
    let ends = told.lines().filter(|line| line.starts_with('{') && line.contains("job.succeeded")).count();
    assert_eq!(ends, 3, "{all}");
    let charges = || demo.shop.states().payment.entries.len();
    test_kit::eventually(READY_WITHIN, "the jobs of the batch are charged", async || {
        (charges() >= CHARGES).then_some(())
    })
    .await;
    assert_eq!(charges(), CHARGES, "one key is one job, and one charge: {all}");
    shutdown.cancel();
}

#[tokio::test]
async fn the_flow_of_the_readme_lints() {
    let flows = blocks(&readme(), "yaml flow");
    assert_eq!(flows.len(), 1);
    let folder = std::env::temp_dir().join(format!("meanwhile-readme-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("order.yaml");
    std::fs::write(&file, &flows[0]).unwrap();
    let linted = meanwhile(&["flows", "lint", file.to_str().unwrap()], &[]).await;
    std::fs::remove_dir_all(&folder).unwrap();
    linted.unwrap();
}
