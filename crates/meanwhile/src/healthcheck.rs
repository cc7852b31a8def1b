//! `meanwhile healthcheck`: asks a process of this machine for its readiness. For containers without a shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{ClientBuilder, Identity};
use serde_json::Value;
use service_kit::config::{Shared, Sources, TlsSettings};

use crate::cli::HealthcheckArgs;
use crate::roles::Role;

/// The time limit of a check. Container health checks are repeated every few seconds, and must not pile up.
const TIMEOUT: Duration = Duration::from_secs(3);

/// `meanwhile healthcheck`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(args: HealthcheckArgs, sources: &Sources) -> anyhow::Result<ExitCode> {
    let shared = Shared::load(sources)?;
    let url = args.url.unwrap_or_else(|| own_url(shared.listen_or(Role::Ingest.listen()), args.live, &shared.tls));
    // It asks this machine, also where that listens on an address that a proxy could reach.
    let client = with_tls(proxies::direct_client_builder(), &shared.tls)?;
    let client = client.timeout(TIMEOUT).build().context("the HTTP client")?;
    let response = client.get(&url).send().await.with_context(|| format!("{url} does not answer"))?;
    let status = response.status();
    if !status.is_success() {
        let problem: Value = response.json().await.unwrap_or_default();
        bail!("{url}: {status} {}", problem["detail"].as_str().unwrap_or_default());
    }
    println!("{url}: {status}");
    Ok(ExitCode::SUCCESS)
}

fn own_url(listen: &str, live: bool, tls: &TlsSettings) -> String {
    let path = if live { "healthz" } else { "readyz" };
    let scheme = if tls.is_on() { "https" } else { "http" };
    format!("{scheme}://{}/{path}", reachable(listen))
}

/// The certificate of a port names its callers' name for it, not loopback, and a check tells the port nothing: it asks
/// whoever answers there. Where clients need a certificate, it shows the port's own.
fn with_tls(builder: ClientBuilder, tls: &TlsSettings) -> anyhow::Result<ClientBuilder> {
    if !tls.is_on() {
        return Ok(builder);
    }
    service_kit::tls::install_ring();
    let builder = builder.tls_danger_accept_invalid_certs(true);
    if tls.client_authorities.is_empty() {
        return Ok(builder);
    }
    let read = |path: &str| std::fs::read(path).with_context(|| path.to_owned());
    let pem = [read(&tls.certificate)?, read(&tls.key)?].join(&b'\n');
    Ok(builder.identity(Identity::from_pem(&pem).context("`tls.certificate` and `tls.key`")?))
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
        assert_eq!(own_url("127.0.0.1:8091", false, &TlsSettings::default()), "http://127.0.0.1:8091/readyz");
        assert_eq!(own_url("relay.local:8091", true, &TlsSettings::default()), "http://relay.local:8091/healthz");
    }

    #[test]
    fn all_addresses_are_asked_on_loopback_by_tls_where_that_is_spoken() {
        let tls = TlsSettings { certificate: "/c.pem".to_owned(), ..TlsSettings::default() };
        assert_eq!(own_url("0.0.0.0:8080", true, &TlsSettings::default()), "http://127.0.0.1:8080/healthz");
        assert_eq!(own_url("[::]:8080", false, &tls), "https://[::1]:8080/readyz");
    }
}
