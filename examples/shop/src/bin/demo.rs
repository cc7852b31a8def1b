//! `make demo`: five orders through `meanwhile dev` and the shop, shown as they happen, then checked against the books.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use serde_json::{Value, json};
use shop::{EntryState, Outcome, PerService, Shop, State, audit};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// Five orders through the whole system, on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// End when done, on free ports; the exit code is 0 only if all is as it should be
    #[arg(long)]
    exit: bool,
    /// The meanwhile binary
    #[arg(long, default_value = "target/debug/meanwhile")]
    meanwhile: PathBuf,
    /// Where the log of `meanwhile dev` goes
    #[arg(long, default_value = "target/demo.log")]
    log: PathBuf,
}

/// One order, and its expected end.
struct Story {
    title: &'static str,
    simulate: Value,
    succeeds: bool,
    /// The decision that a large one waits for.
    decision: Option<&'static str>,
}

impl Story {
    fn new(title: &'static str, simulate: Value, succeeds: bool) -> Self {
        Self { title, simulate, succeeds, decision: None }
    }
}

/// The hint at the end: commands to try next.
const ORDER: &str =
    r#"{"customer_id":"ada","sku":"tea","qty":1,"amount_cents":500,"card":"4242","address":"1 Main Street"}"#;
/// How long everything may take to be ready.
const READY_ATTEMPTS_MAX: u32 = 600;
const READY_INTERVAL: Duration = Duration::from_millis(100);
/// How long `meanwhile dev` may take to clean up.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(20);

struct Addresses {
    api: String,
    kafka: String,
    registry: String,
    shop: PerService<String>,
}

impl Addresses {
    fn choose(free: bool) -> anyhow::Result<Self> {
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

#[tokio::main]
async fn main() -> ExitCode {
    // Whoever was first is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("\nThe demo stopped: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the demo talks to a person")]
fn say(text: &str) {
    println!("{text}");
}

async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let addresses = Addresses::choose(arguments.exit)?;
    let shutdown = CancellationToken::new();
    let shop = Shop::start(addresses.shop.clone(), shutdown.clone()).await?;
    say("Starting meanwhile dev (a broker, a registry, a Postgres and all roles in one process) ...");
    let mut dev = start_dev(&arguments, &addresses, &shop)?;
    let verdict = tokio::select! {
        verdict = show(&arguments, &addresses, &shop, &mut dev) => verdict,
        _ = tokio::signal::ctrl_c() => Ok(true),
    };
    if let Ok(good) = &verdict
        && !arguments.exit
        && dev.try_wait()?.is_none()
    {
        stay(&addresses, &shop, *good);
        tokio::signal::ctrl_c().await.context("waiting for ctrl-c")?;
    }
    stop(&mut dev).await;
    shutdown.cancel();
    verdict
}

fn start_dev(arguments: &Arguments, addresses: &Addresses, shop: &Shop) -> anyhow::Result<Child> {
    let log = std::fs::File::create(&arguments.log)
        .with_context(|| format!("creating the log {}", arguments.log.display()))?;
    let urls = shop.urls();
    Command::new(&arguments.meanwhile)
        .args(["dev", "flows", "--listen", &addresses.api])
        .args(["--kafka-listen", &addresses.kafka, "--registry-listen", &addresses.registry])
        .envs([("INVENTORY_URL", &urls.inventory), ("PAYMENT_URL", &urls.payment), ("SHIPPING_URL", &urls.shipping)])
        // Its own group: ctrl-c reaches the demo, which ends it in order.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}; build it with `cargo build`", arguments.meanwhile.display()))
}

/// True when every order ended as it should and the books agree.
async fn show(arguments: &Arguments, addresses: &Addresses, shop: &Shop, dev: &mut Child) -> anyhow::Result<bool> {
    // All that it calls is on this machine.
    let client = proxies::direct_client_builder().build()?;
    let api = format!("http://{}", addresses.api);
    wait_until_ready(&client, &api, dev, &arguments.log).await?;
    let stories = [
        Story::new("An order like any other", json!({}), true),
        Story::new("The card is declined", json!({ "payment": "declined" }), false),
        Story::new("The payment service fails twice", json!({ "payment": "flaky" }), true),
        Story::new("The payment is made, but its answer is lost", json!({ "payment": "timeout_after_effect" }), false),
        Story {
            decision: Some(r#"{"decision": "approved", "by": "ann", "comment": "a good customer"}"#),
            ..Story::new("A large order waits until somebody has approved it (the demo does)", json!({}), true)
        },
    ];
    let mut good = true;
    let mut outcomes = Vec::new();
    for (number, story) in stories.iter().enumerate() {
        say(&format!("\n{}. {}", number + 1, story.title));
        let job = submit(&client, &api, number + 1, story).await?;
        if let Some(decision) = story.decision {
            signal(arguments, &api, &job, decision).await?;
        }
        let mut shown = Command::new(&arguments.meanwhile);
        shown.args(["jobs", "show", &job, "--follow", "--url", &api]);
        let succeeded = shown.status().await.context("following the job")?.success();
        outcomes.push(Outcome { order: job.clone(), succeeded });
        let states = shop.states();
        tell_books(&states, &job);
        if succeeded != story.succeeds {
            say(&format!("   WRONG: it should have {}", if story.succeeds { "succeeded" } else { "failed" }));
            good = false;
        }
        if let Err(error) = audit(&states, &outcomes) {
            say(&format!("   WRONG: {error}"));
            good = false;
        }
    }
    say(if good {
        "\nAll five ended as they should; money and stock agree."
    } else {
        "\nSomething is wrong; see above."
    });
    Ok(good)
}

async fn wait_until_ready(client: &reqwest::Client, api: &str, dev: &mut Child, log: &Path) -> anyhow::Result<()> {
    for attempt in 0..READY_ATTEMPTS_MAX {
        if let Some(status) = dev.try_wait()? {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            bail!("meanwhile dev ended ({status}):\n{text}");
        }
        let ready = client.get(format!("{api}/readyz")).send().await;
        if ready.is_ok_and(|response| response.status().is_success()) {
            return Ok(());
        }
        if attempt > 0 && attempt % 20 == 0 {
            say("  ... still starting");
        }
        tokio::time::sleep(READY_INTERVAL).await;
    }
    bail!("it did not get ready; its log is {}", log.display())
}

/// Sends the job a decision, as a person would on the command line.
async fn signal(arguments: &Arguments, api: &str, job: &str, decision: &str) -> anyhow::Result<()> {
    let mut command = Command::new(&arguments.meanwhile);
    command.args(["jobs", "signal", job, "approval", decision, "--url", api]).stdout(Stdio::null());
    let sent = command.status().await.context("sending the decision")?;
    if sent.success() { Ok(()) } else { bail!("the decision was not taken") }
}

async fn submit(client: &reqwest::Client, api: &str, number: usize, story: &Story) -> anyhow::Result<String> {
    let is_large = story.decision.is_some();
    let order = json!({
        "customer_id": format!("customer-{number}"),
        "sku": "tea",
        "qty": 2,
        "amount_cents": if is_large { 199_900 } else { 1_999 },
        "card": "4242424242424242",
        "address": "1 Main Street",
        "simulate": story.simulate,
    });
    let route = if is_large { "preorders" } else { "orders" };
    let request = client.post(format!("{api}/{route}")).header("idempotency-key", format!("\"demo-{number}\""));
    let response = request.json(&order).send().await.context("submitting the order")?;
    let status = response.status();
    let answer: Value = response.json().await.context("the answer is not JSON")?;
    match answer["id"].as_str() {
        Some(job) if status.as_u16() == 202 => Ok(job.to_owned()),
        _ => bail!("the order was not accepted: {status} {answer}"),
    }
}

/// The answers of the three services about the order.
fn tell_books(states: &PerService<State>, order: &str) {
    let book = |state: &State, done: &str, undone: &str| {
        let entry = state.entries.iter().find(|entry| entry.order == order);
        match entry.map(|entry| entry.state) {
            None => "nothing".to_owned(),
            Some(EntryState::Done) => done.to_owned(),
            Some(EntryState::Undone) => undone.to_owned(),
        }
    };
    say(&format!(
        "   the shop's books: stock {}, money {}, shipment {}",
        book(&states.inventory, "reserved", "reserved and released"),
        book(&states.payment, "charged", "charged and refunded"),
        book(&states.shipping, "booked", "booked and cancelled"),
    ));
}

fn stay(addresses: &Addresses, shop: &Shop, good: bool) {
    let urls = shop.urls();
    let Addresses { api, kafka, .. } = addresses;
    say(&format!(
        "\n{} It all stays up until you press ctrl-c:\n\
         \x20 API        http://{api}/v1/flows\n\
         \x20 the shop   {}/state  {}/state  {}/state\n\n\
         Next:\n\
         \x20 curl -i http://{api}/orders -H 'content-type: application/json' \\\n\
         \x20   -d '{ORDER}'\n\
         \x20 kcat -C -b {kafka} -t meanwhile.events -o beginning -f '%T %h\\n'\n\
         \x20 KAFKA_BROKERS={kafka} SCHEMA_REGISTRY_URL=http://{} \\\n\
         \x20   target/debug/meanwhile tail meanwhile.events --from-beginning",
        if good { "Well." } else { "Not well." },
        urls.inventory,
        urls.payment,
        urls.shipping,
        addresses.registry,
    ));
}

async fn stop(dev: &mut Child) {
    let Some(id) = dev.id().and_then(|id| i32::try_from(id).ok()) else { return };
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM);
    if tokio::time::timeout(LEAVE_TIMEOUT, dev.wait()).await.is_err() {
        let _ = dev.kill().await;
    }
}
