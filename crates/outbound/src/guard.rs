//! The guard, which refuses addresses when a name is resolved: the addresses of a name may change at any moment.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Decides which addresses may be called.
#[derive(Debug, Clone, Copy)]
pub struct Guard(Option<fn(IpAddr) -> bool>);

impl Guard {
    /// Every address may be called.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Only addresses for which `permits` is true may be called.
    pub const fn new(permits: fn(IpAddr) -> bool) -> Self {
        Self(Some(permits))
    }

    pub(crate) const fn is_none(self) -> bool {
        self.0.is_none()
    }

    /// Checks a URL that has an address in place of a name, since it is never resolved.
    pub(crate) fn check(self, url: &Url) -> Result<(), String> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        match self.0 {
            Some(permits) if !permits(address) => Err(refusal()),
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn resolver(self) -> Option<Arc<Resolver>> {
        self.0.map(|permits| Arc::new(Resolver { permits }))
    }
}

fn refusal() -> String {
    "calls to this address are not allowed".to_owned()
}

/// Resolves names by the system, and keeps the permitted addresses only.
pub(crate) struct Resolver {
    permits: fn(IpAddr) -> bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let permits = self.permits;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<SocketAddr> = found.filter(|address| permits(address.ip())).collect();
            if permitted.is_empty() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal()).into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}
