//! `meanwhile healthcheck`: asks a process of this machine for its readiness. For containers without a shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use service_kit::config::{Shared, Sources};

use crate::cli::HealthcheckArgs;
use crate::roles::Role;

/// The time limit of a check. Container health checks are repeated every few seconds, and must not pile up.
const TIMEOUT: Duration = Duration::from_secs(3);

/// `meanwhile healthcheck`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(args: HealthcheckArgs, sources: &Sources) -> anyhow::Result<ExitCode> {
    let url = match args.url {
        Some(url) => url,
        None => own_url(Shared::load(sources)?.listen_or(Role::Ingest.listen()), args.live),
    };
    // It asks this machine, also where that listens on an address that a proxy could reach.
    let client = proxies::direct_client_builder().timeout(TIMEOUT).build().context("the HTTP client")?;
    let response = client.get(&url).send().await.with_context(|| format!("{url} does not answer"))?;
    let status = response.status();
    if !status.is_success() {
        let problem: Value = response.json().await.unwrap_or_default();
        bail!("{url}: {status} {}", problem["detail"].as_str().unwrap_or_default());
    }
    println!("{url}: {status}");
    Ok(ExitCode::SUCCESS)
}

fn own_url(listen: &str, live: bool) -> String {
    let path = if live { "healthz" } else { "readyz" };
    format!("http://{}/{path}", reachable(listen))
}

/// The address under which this machine reaches a listener: loopback for one that listens on all addresses.
pub(crate) fn reachable(listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            let loopback = match address.ip() {
                IpAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
            };
            SocketAddr::new(loopback, address.port()).to_string()
        }
        _ => listen.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_asked_where_it_listens() {
        assert_eq!(own_url("127.0.0.1:8091", false), "http://127.0.0.1:8091/readyz");
        assert_eq!(own_url("relay.local:8091", true), "http://relay.local:8091/healthz");
    }

    #[test]
    fn all_addresses_are_asked_on_loopback() {
        assert_eq!(own_url("0.0.0.0:8080", true), "http://127.0.0.1:8080/healthz");
        assert_eq!(own_url("[::]:8080", false), "http://[::1]:8080/readyz");
    }
}
