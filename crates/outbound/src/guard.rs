//! The guard, which decides where calls of tenants may lead. It refuses URLs by their look, and addresses when a name
//! is resolved: the addresses of a name may change at any moment, and those that were checked are those that are
//! called.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use service_kit::config::{ConfigError, WebhookSettings};
use url::{Host, Url};

use crate::addresses::is_public;

/// The ports that any host may be called at.
const PORTS: [u16; 3] = [80, 443, 8443];
/// Names that are no host's of the public internet, whatever they resolve to; also as endings.
const PRIVATE_NAMES: [&str; 12] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "private",
    "home.arpa",
    "cluster.local",
    "instance-data",
];
/// A longer URL is refused.
pub const URL_BYTES_MAX: usize = 2_048;

/// The reason for which a URL is not called, for whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// What a deployment allows beside the public internet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Addresses that may be called at any port.
    networks: Vec<IpNet>,
    /// Ports beside the usual ones.
    ports: Vec<u16>,
}

impl Allowed {
    /// Networks such as `10.1.0.0/16`, or single addresses; and ports.
    ///
    /// # Errors
    /// The first text that is no network and no address, or no port.
    pub fn parse(networks: &[String], ports: &[String]) -> Result<Self, String> {
        let one = |text: &String| {
            let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
            text.parse().ok().or_else(address).ok_or_else(|| text.clone())
        };
        let ports = ports.iter().map(|text| text.parse().map_err(|_| text.clone())).collect::<Result<_, _>>()?;
        Ok(Self { networks: networks.iter().map(one).collect::<Result<_, _>>()?, ports })
    }

    /// What the settings of webhooks allow.
    ///
    /// # Errors
    /// A network or a port that is none.
    pub fn load(settings: &WebhookSettings) -> Result<Self, ConfigError> {
        Self::parse(&settings.allow_networks, &settings.allow_ports).map_err(|found| settings.refused(&found))
    }

    fn names(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    fn permits(&self, address: IpAddr) -> bool {
        is_public(address) || self.names(address)
    }
}

/// Decides which addresses may be called.
#[derive(Debug, Clone)]
pub struct Guard(Option<Arc<Allowed>>);

impl Guard {
    /// Every address may be called.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Only the public internet may be called, and what is allowed.
    pub fn new(allowed: Allowed) -> Self {
        Self(Some(Arc::new(allowed)))
    }

    pub(crate) const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Reads a URL that somebody gives, and checks it.
    ///
    /// # Errors
    /// It is none, or the reason for which it is not called.
    pub fn read(&self, text: &str) -> Result<Url, Refused> {
        let url = Url::parse(text).map_err(|error| Refused(format!("it is no absolute URL: {error}")))?;
        self.check(&url)?;
        Ok(url)
    }

    /// Checks what a URL tells by itself. A host with a name is checked again when it is called.
    ///
    /// # Errors
    /// The reason for which it is not called.
    pub fn check(&self, url: &Url) -> Result<(), Refused> {
        let Some(allowed) = &self.0 else { return Ok(()) };
        if url.as_str().len() > URL_BYTES_MAX {
            return Err(Refused(format!("the URL has more than {URL_BYTES_MAX} bytes")));
        }
        if !["http", "https"].contains(&url.scheme()) {
            return Err(Refused(format!("a URL begins with https:// or http://, not with {}:", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused("the URL holds a user or a password".to_owned()));
        }
        let port = url.port_or_known_default().unwrap_or_default();
        let (address, is_private_name) = match url.host() {
            Some(Host::Ipv4(address)) => (Some(IpAddr::V4(address)), false),
            Some(Host::Ipv6(address)) => (Some(IpAddr::V6(address)), false),
            Some(Host::Domain(name)) => named(name, allowed)?,
            None => return Err(Refused("the URL has no host".to_owned())),
        };
        match address {
            Some(address) if allowed.names(address) => return Ok(()),
            Some(address) if !is_public(address) => return Err(not_allowed()),
            None if is_private_name => return Err(not_allowed()),
            _ => {}
        }
        if PORTS.contains(&port) || allowed.ports.contains(&port) {
            return Ok(());
        }
        Err(Refused(format!("port {port} is not one of those that may be called: {}", ports(allowed))))
    }

    pub(crate) fn resolver(&self) -> Option<Arc<Resolver>> {
        self.0.clone().map(|allowed| Arc::new(Resolver { allowed }))
    }
}

/// The address that this name stands for without being resolved, and whether it is a name of a private network.
fn named(name: &str, allowed: &Allowed) -> Result<(Option<IpAddr>, bool), Refused> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return Ok((Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), true));
    }
    let is_private = PRIVATE_NAMES.iter().any(|private| {
        let rest = name.strip_suffix(private);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    // A deployment that allows private networks names the hosts there as it likes.
    let has_private = allowed.networks.iter().any(|network| !is_public(network.addr()));
    if name.is_empty() {
        return Err(Refused("the URL has no host".to_owned()));
    }
    Ok((None, (is_private || !name.contains('.')) && !has_private))
}

fn ports(allowed: &Allowed) -> String {
    let ports = PORTS.iter().chain(&allowed.ports).map(u16::to_string);
    ports.collect::<Vec<_>>().join(", ")
}

fn not_allowed() -> Refused {
    Refused(refusal())
}

fn refusal() -> String {
    "calls to this address are not allowed: it is none of the public internet".to_owned()
}

/// Resolves names by the system, and keeps the permitted addresses only.
pub(crate) struct Resolver {
    allowed: Arc<Allowed>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<SocketAddr> = found.filter(|address| allowed.permits(address.ip())).collect();
            if permitted.is_empty() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal()).into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    /// One URL a line.
    const HOSTILE: &str = include_str!("../hostile/urls.txt");
    const PUBLIC: [&str; 3] =
        ["https://example.com/hook?a=1", "http://[2606:4700::1111]:8443/", "https://1.1.1.1:443/%20#a"];
    static SEEDS: LazyLock<Vec<&str>> = LazyLock::new(|| HOSTILE.lines().chain(PUBLIC).collect());

    #[test]
    fn no_hostile_url_is_called_and_each_refusal_says_why() {
        let guard = Guard::new(Allowed::default());
        let hostile: Vec<&str> = HOSTILE.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(hostile.len() >= 60, "{}", hostile.len());
        for url in hostile {
            let refused = guard.read(url).expect_err(url).to_string();
            assert!(
                refused.contains("URL") || refused.contains("port") || refused.contains("allowed"),
                "{url}: {refused}"
            );
            assert!(!refused.contains("password@"), "{refused}");
        }
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn no_damage_makes_a_url_that_leads_to_a_private_address(url in fuzz::damaged_text(&SEEDS)) {
            let Ok(read) = Guard::new(Allowed::default()).read(&url) else { return Ok(()) };
            prop_assert!(["http", "https"].contains(&read.scheme()) && read.username().is_empty());
            let is_private = match read.host() {
                Some(Host::Ipv4(address)) => {
                    address.is_private() || address.is_loopback() || address.is_link_local() || address.is_unspecified()
                }
                Some(Host::Ipv6(address)) => {
                    address.is_loopback() || address.is_unspecified() || address.is_unicast_link_local()
                }
                Some(Host::Domain(name)) => name.trim_end_matches('.').rsplit('.').next() == Some("localhost"),
                None => true,
            };
            prop_assert!(!is_private, "{}", read);
        }
    }

    #[test]
    fn the_public_internet_is_called_and_what_a_deployment_allows() {
        let public = Guard::new(Allowed::default());
        for url in
            ["https://example.com/hook?a=1", "http://hooks.example.com:8443/", "https://1.1.1.1/", "https://a.b:80"]
        {
            public.read(url).expect(url);
        }
        let allowed = Allowed::parse(&["127.0.0.0/8".to_owned(), "10.1.2.3".to_owned()], &["9000".to_owned()]).unwrap();
        let guard = Guard::new(allowed);
        for url in ["http://localhost:1234/", "http://127.0.0.1:5/", "http://10.1.2.3:99/", "http://receiver:9000/"] {
            guard.read(url).expect(url);
        }
        for url in ["http://10.1.2.4/", "http://[::1]/", "http://receiver:9001/", "https://example.com:22/"] {
            guard.read(url).expect_err(url);
        }
        assert_eq!(Allowed::parse(&["here".to_owned()], &[]), Err("here".to_owned()));
    }
}
