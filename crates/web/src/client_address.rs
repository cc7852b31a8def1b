//! The address of a client, behind proxies that are trusted to tell it (RFC 7239, and `X-Forwarded-For`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Hops that are looked at: more proxies than any deployment has.
const HOPS_MAX: usize = 32;

/// The other end of a connection. The server puts it into the extensions of each request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The header in which proxies tell who their clients are. Only one is read: a proxy that writes one of them passes
/// the other on as the client sent it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `Forwarded` (RFC 7239).
    #[default]
    Forwarded,
    /// `X-Forwarded-For`, of which there is no standard.
    XForwardedFor,
}

/// The networks of trusted proxies; by default none.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    networks: Arc<[IpNet]>,
    header: ForwardedHeader,
}

impl Proxies {
    /// Networks such as `10.0.0.0/8`, or single addresses.
    ///
    /// # Errors
    /// The first text that is neither.
    pub fn parse(networks: &[String], header: ForwardedHeader) -> Result<Self, String> {
        let one = |text: &String| {
            let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
            text.parse().ok().or_else(address).ok_or_else(|| text.clone())
        };
        Ok(Self { networks: networks.iter().map(one).collect::<Result<_, _>>()?, header })
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// The nearest address that is no trusted proxy's; where the trusted ones name nobody, the last of them.
    pub(crate) fn client(&self, Peer(peer): Peer, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        let told = match self.header {
            ForwardedHeader::Forwarded => forwarded_for(headers),
            ForwardedHeader::XForwardedFor => x_forwarded_for(headers),
        };
        let mut nearest = peer;
        for hop in told.into_iter().rev().take(HOPS_MAX) {
            let Some(address) = hop else { break };
            nearest = address;
            if !self.trusts(address) {
                break;
            }
        }
        nearest
    }
}

/// The clients of each proxy, the farthest first; none for one whose address is hidden.
fn x_forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    lines(headers, &X_FORWARDED_FOR).flat_map(|line| line.split(',')).map(|node| address(node.trim())).collect()
}

fn forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    lines(headers, &header::FORWARDED).flat_map(|line| outside_of_quotes(line, ',')).map(node_of).collect()
}

fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    // A line that is no text hides all that stands in it.
    headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default())
}

/// The address of `for` in one element of `Forwarded`.
fn node_of(element: &str) -> Option<IpAddr> {
    let mut pairs = outside_of_quotes(element, ';').filter_map(|pair| pair.split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    address(node.trim().trim_matches('"'))
}

/// An address, with or without a port (RFC 7239 section 6). `unknown` and hidden names are none.
fn address(node: &str) -> Option<IpAddr> {
    let with_port = || node.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || node.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    node.parse().ok().or_else(with_port).or_else(in_brackets).map(|address: IpAddr| address.to_canonical())
}

/// The parts between separators that stand in no quoted string.
fn outside_of_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c| {
        let ends = c == separator && !is_quoted;
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        ends
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn proxies(networks: &[&str], header: ForwardedHeader) -> Proxies {
        Proxies::parse(&networks.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), header).unwrap()
    }

    fn client(header: ForwardedHeader, peer: &str, lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let peer = Peer(peer.parse().unwrap());
        proxies(&["10.0.0.0/8", "fd00::1"], header).client(peer, &headers).to_string()
    }

    #[test]
    fn nobody_but_a_trusted_proxy_says_who_the_client_is() {
        let lines = [("forwarded", "for=192.0.2.43"), ("x-forwarded-for", "192.0.2.44")];
        for header in [ForwardedHeader::Forwarded, ForwardedHeader::XForwardedFor] {
            assert_eq!(client(header, "203.0.113.7", &lines), "203.0.113.7");
            assert_eq!(client(header, "10.1.2.3", &[]), "10.1.2.3");
        }
        assert_eq!(client(ForwardedHeader::Forwarded, "10.1.2.3", &lines), "192.0.2.43");
        assert_eq!(client(ForwardedHeader::XForwardedFor, "::ffff:10.1.2.3", &lines), "192.0.2.44");
        assert_eq!(client(ForwardedHeader::XForwardedFor, "fd00::1", &lines), "192.0.2.44");
    }

    #[test]
    fn what_a_client_says_of_itself_stands_before_what_proxies_say_and_is_not_believed() {
        let forged = "for=198.51.100.1, for=\"[2001:db8::17]:4711\";proto=https;by=\"a,b\\\"c\" , For=10.9.9.9";
        assert_eq!(client(ForwardedHeader::Forwarded, "10.1.2.3", &[("forwarded", forged)]), "2001:db8::17");
        let lines = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "192.0.2.9:80, 10.9.9.9")];
        assert_eq!(client(ForwardedHeader::XForwardedFor, "10.1.2.3", &lines), "192.0.2.9");
    }

    #[test]
    fn a_proxy_that_hides_its_client_stands_for_it() {
        for hidden in ["for=unknown", "for=_hidden", "for=192.0.2.1, for=\"_gazonk\"", "by=10.0.0.1", ""] {
            let told = client(ForwardedHeader::Forwarded, "10.1.2.3", &[("forwarded", hidden)]);
            assert_eq!(told, "10.1.2.3", "{hidden}");
        }
        let told = client(ForwardedHeader::Forwarded, "10.1.2.3", &[("forwarded", "for=unknown, for=10.0.0.8")]);
        assert_eq!(told, "10.0.0.8");
    }

    #[test]
    fn a_network_that_is_none_is_named() {
        let parse =
            |text: &str| Proxies::parse(&["10.0.0.0/8".to_owned(), text.to_owned()], ForwardedHeader::default());
        for wrong in ["10.0.0.0/33", "proxy.local", "", "*"] {
            assert_eq!(parse(wrong).unwrap_err(), wrong);
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_the_answer_is_an_address_that_was_told(text in "[ -~]{0,80}") {
            let mut headers = HeaderMap::new();
            headers.append(header::FORWARDED, HeaderValue::from_str(&text).unwrap());
            let peer = Peer("10.1.2.3".parse().unwrap());
            let client = proxies(&["10.0.0.0/8"], ForwardedHeader::Forwarded).client(peer, &headers);
            let parts: Vec<_> = outside_of_quotes(&text, ',').collect();
            prop_assert_eq!(parts.join(","), text.as_str());
            prop_assert!(client == peer.0 || parts.iter().any(|part| node_of(part) == Some(client)));
        }
    }
}
