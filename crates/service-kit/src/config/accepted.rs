//! The texts that the settings at the top of the file accept. A wrong one is refused at the start, not by the first
//! connection.

use url::Url;

/// The schemes that `KAFKA_BROKERS` may have before a host.
const KAFKA_SCHEMES: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
/// The samplers of the OpenTelemetry specification.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];
/// The only protocol to a collector that is supported.
const OTLP_PROTOCOL: &str = "http/protobuf";

pub(super) const fn is_any(_: &str) -> bool {
    true
}

/// The host may be left out where parameters name one, as Postgres' sockets need it.
pub(super) fn is_database_url(text: &str) -> bool {
    let named_later = |url: &Url| url.query_pairs().any(|(name, _)| name == "host");
    Url::parse(text)
        .is_ok_and(|url| ["postgres", "postgresql"].contains(&url.scheme()) && (has_host(&url) || named_later(&url)))
}

pub(super) fn is_http_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && has_host(&url))
}

pub(super) fn are_brokers(text: &str) -> bool {
    text.split(',').map(str::trim).all(|broker| match broker.split_once("://") {
        Some((scheme, address)) => KAFKA_SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) && is_host(address),
        None => is_host(broker),
    })
}

/// `host:port`.
pub(super) fn is_listen_address(text: &str) -> bool {
    authority(text).is_some_and(|url| url.port().is_some())
}

/// `host` or `host:port`; an IPv6 address stands in brackets.
fn is_host(text: &str) -> bool {
    authority(text).is_some() && !text.ends_with(':')
}

/// Host and port as a URL of a scheme that has no default port; none where there is more than that.
fn authority(text: &str) -> Option<Url> {
    let url = Url::parse(&format!("tcp://{text}")).ok()?;
    let is_bare = !text.contains(['/', '?', '#', '@']);
    (is_bare && has_host(&url)).then_some(url)
}

fn has_host(url: &Url) -> bool {
    url.host_str().is_some_and(|host| !host.is_empty())
}

pub(super) fn is_otlp_protocol(text: &str) -> bool {
    text == OTLP_PROTOCOL
}

pub(super) fn is_sampler(text: &str) -> bool {
    SAMPLERS.contains(&text)
}

pub(super) fn is_ratio(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(|ratio| (0.0..=1.0).contains(&ratio))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_hosts_with_or_without_a_port_and_a_scheme() {
        for fit in ["kafka", "kafka:9092", "a:1, b:2", "SSL://kafka:9093", "[::1]:9092"] {
            assert!(are_brokers(fit), "{fit}");
        }
        for unfit in ["", "kafka:9092,", "http://kafka:9092", "kafka:99092", "kafka:", "a b", "me@kafka", "kafka/x"] {
            assert!(!are_brokers(unfit), "{unfit}");
        }
    }

    #[test]
    fn a_socket_of_postgres_is_named_by_a_parameter() {
        assert!(is_database_url("postgres:///x?host=/var/run/postgresql"));
        assert!(!is_database_url("postgres:///x"));
    }
}
