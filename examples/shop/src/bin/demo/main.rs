//! `make demo`: seven stories through `meanwhile dev` and the shop, shown as they happen, checked against the books.

mod outage;
mod stories;
mod system;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use shop::{Outcome, Shop};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use system::{Addresses, System};

/// Orders through the whole system, on this machine.
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

/// The hint at the end: commands to try next.
const ORDER: &str =
    r#"{"customer_id":"ada","sku":"tea","qty":1,"amount_cents":500,"card":"4242","address":"1 Main Street"}"#;

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
    let mut dev = system::start_dev(&arguments.meanwhile, &arguments.log, &addresses, &shop)?;
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
    system::stop(&mut dev).await;
    shutdown.cancel();
    verdict
}

/// True when every order ended as it should and the books agree.
async fn show(arguments: &Arguments, addresses: &Addresses, shop: &Shop, dev: &mut Child) -> anyhow::Result<bool> {
    let system = System::ready(&arguments.meanwhile, &arguments.log, addresses, dev).await?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut good = true;
    for (number, story) in (1..).zip(stories::all()) {
        good &= stories::tell(&system, shop, number, &story, &mut outcomes).await?;
    }
    good &= outage::tell(&system, shop, &mut outcomes).await?;
    say(if good {
        "\nAll seven ended as they should; money and stock agree."
    } else {
        "\nSomething is wrong; see above."
    });
    Ok(good)
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
