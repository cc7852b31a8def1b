//! `shop`: the three services of the example, on three ports.

use clap::Parser;
use shop::{PerService, Shop};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Three small HTTP services (inventory, payment, shipping) with books to look at (`GET /state`) and failures on
/// request (`"simulate": "declined"`, ...).
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where inventory listens (port 0: any free one)
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7001")]
    inventory: String,
    /// Where payment listens
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7002")]
    payment: String,
    /// Where shipping listens
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7003")]
    shipping: String,
    /// Print the three URLs as one line of JSON
    #[arg(long)]
    print_urls: bool,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a program tells where it listens")]
async fn main() -> anyhow::Result<()> {
    let Arguments { inventory, payment, shipping, print_urls } = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = CancellationToken::new();
    let shop = Shop::start(PerService { inventory, payment, shipping }, shutdown.clone()).await?;
    let urls = shop.urls();
    if print_urls {
        println!("{}", serde_json::to_string(&urls)?);
    } else {
        println!(
            "inventory {}/state\npayment   {}/state\nshipping  {}/state",
            urls.inventory, urls.payment, urls.shipping
        );
    }
    tokio::select! {
        _ = terminate.recv() => {}
        outcome = tokio::signal::ctrl_c() => outcome?,
    }
    shutdown.cancel();
    Ok(())
}
