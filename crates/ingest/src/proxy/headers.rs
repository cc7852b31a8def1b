//! The headers of requests and answers that are passed on (RFC 9110 section 7.6, RFC 7239). Pure.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use crate::webhooks::of_job;

/// Headers of one connection (RFC 9110 section 7.6.1), whether `Connection` names them or not.
const OF_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Our name in `Via`.
const PSEUDONYM: &str = "meanwhile";
/// Passages through a Meanwhile after which a request goes in a circle.
const PASSAGES_MAX: usize = 4;

/// The connection on which a request came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) peer: Option<IpAddr>,
    pub(super) version: Version,
}

/// The headers of a request as the service behind gets them.
pub(super) fn onward(mut headers: HeaderMap, arrival: Arrival) -> HeaderMap {
    let wants_trailers = list(&headers, &header::TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    take_those_of_connection(&mut headers);
    // It has been met already: the body is asked for as it is passed on.
    headers.remove(header::EXPECT);
    // There is no job, and their secret is not meant for the service.
    of_job::HEADERS.iter().for_each(|name| drop(headers.remove(name)));
    let host = headers.remove(header::HOST);
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    tell_of_arrival(&mut headers, host.as_ref(), arrival.peer);
    add_via(&mut headers, arrival.version);
    headers
}

/// The headers of an answer as the client gets them.
pub(super) fn back(mut headers: HeaderMap, version: Version) -> HeaderMap {
    take_those_of_connection(&mut headers);
    add_via(&mut headers, version);
    headers
}

/// True for a request that asks for another protocol on its connection.
pub(super) fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    list(headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"))
        && headers.contains_key(header::UPGRADE)
}

/// True for a request that has come through here too often.
pub(super) fn goes_in_a_circle(headers: &HeaderMap) -> bool {
    let by_us = |hop: &&str| hop.split_whitespace().nth(1) == Some(PSEUDONYM);
    list(headers, &header::VIA).filter(by_us).count() >= PASSAGES_MAX
}

fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

fn take_those_of_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = list(headers, &header::CONNECTION).filter_map(|name| name.parse().ok()).collect();
    for name in named.iter().chain(&OF_CONNECTION) {
        headers.remove(name);
    }
}

fn add_via(headers: &mut HeaderMap, version: Version) {
    let version = match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    };
    headers.extend(HeaderValue::try_from(format!("{version} {PSEUDONYM}")).ok().map(|via| (header::VIA, via)));
}

/// Adds where the request came from, behind what earlier proxies have told of it.
fn tell_of_arrival(headers: &mut HeaderMap, host: Option<&HeaderValue>, peer: Option<IpAddr>) {
    let node = match peer {
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        Some(IpAddr::V4(address)) => address.to_string(),
        None => "unknown".to_owned(),
    };
    let host_text = host.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\']));
    let mut element = format!("for={node};proto=http");
    if let Some(host) = host_text {
        element = format!("{element};host=\"{host}\"");
    }
    append(headers, header::FORWARDED, &element);
    if let Some(peer) = peer {
        append(headers, X_FORWARDED_FOR, &peer.to_string());
    }
    // The outermost proxy knows best.
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host.clone());
    }
}

/// Adds to a list, in one line: many services read only the first one.
fn append(headers: &mut HeaderMap, name: HeaderName, element: &str) {
    let before: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    let mut line = before.join(&b", "[..]);
    if !line.is_empty() {
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(element.as_bytes());
    if let Ok(line) = HeaderValue::from_bytes(&line) {
        headers.insert(name, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn arrival(peer: &str) -> Arrival {
        Arrival { peer: peer.parse().ok(), version: Version::HTTP_11 }
    }

    fn lines(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_belongs_to_the_connection_stays_there_and_all_else_goes_on_in_its_order() {
        let onward = onward(
            headers(&[
                ("connection", "close, X-Mine"),
                ("x-mine", "1"),
                ("keep-alive", "timeout=5"),
                ("transfer-encoding", "chunked"),
                ("te", "gzip, trailers"),
                ("expect", "100-continue"),
                ("upgrade", "h2c"),
                ("host", "api.example.com"),
                ("cookie", "a=1"),
                ("x-list", "one"),
                ("x-list", "two"),
                ("prefer", "wait=1"),
                ("trailer", "x-digest"),
                ("meanwhile-callback-url", "https://a.b"),
                ("meanwhile-callback-secret", "whsec_x"),
                ("meanwhile-callback-events", "*"),
            ]),
            arrival("192.0.2.1"),
        );
        let mut names: Vec<&str> = onward.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "connection",
                "cookie",
                "forwarded",
                "prefer",
                "te",
                "trailer",
                "via",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-list",
            ]
        );
        assert_eq!(
            (lines(&onward, "connection"), lines(&onward, "te")),
            (vec!["te".to_owned()], vec!["trailers".to_owned()])
        );
        assert_eq!(lines(&onward, "x-list"), ["one", "two"]);
        let back = back(
            headers(&[("connection", "x-own"), ("x-own", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]),
            Version::HTTP_2,
        );
        assert_eq!((back.len(), lines(&back, "set-cookie")), (3, vec!["a=1".to_owned(), "b=2".to_owned()]));
        assert_eq!(lines(&back, "via"), ["2 meanwhile"]);
    }

    #[test]
    fn the_way_of_a_request_is_told_behind_what_was_told_before() {
        let first = onward(headers(&[("host", "api.example.com")]), arrival("2001:db8::1"));
        assert_eq!(lines(&first, "forwarded"), [r#"for="[2001:db8::1]";proto=http;host="api.example.com""#]);
        assert_eq!(lines(&first, "x-forwarded-for"), ["2001:db8::1"]);
        let later = onward(
            headers(&[
                ("forwarded", "for=192.0.2.7;proto=https"),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-for", "192.0.2.8"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "shop.example.com"),
                ("via", "1.1 edge"),
                ("host", "inner"),
            ]),
            arrival("10.0.0.1"),
        );
        assert_eq!(lines(&later, "forwarded"), [r#"for=192.0.2.7;proto=https, for=10.0.0.1;proto=http;host="inner""#]);
        assert_eq!(lines(&later, "x-forwarded-for"), ["192.0.2.7, 192.0.2.8, 10.0.0.1"]);
        assert_eq!(
            (lines(&later, "x-forwarded-proto"), lines(&later, "x-forwarded-host")),
            (vec!["https".to_owned()], vec!["shop.example.com".to_owned()])
        );
        assert_eq!(lines(&later, "via"), ["1.1 edge", "1.1 meanwhile"]);
        assert_eq!(lines(&onward(headers(&[]), arrival("")), "forwarded"), ["for=unknown;proto=http"]);
    }

    #[test]
    fn upgrades_and_circles_are_seen() {
        assert!(asks_for_upgrade(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")])));
        assert!(!asks_for_upgrade(&headers(&[("upgrade", "websocket")])));
        assert!(!goes_in_a_circle(&headers(&[
            ("via", "1.1 meanwhile, 1.1 meanwhile, 1.1 other"),
            ("via", "2 meanwhile")
        ])));
        assert!(goes_in_a_circle(&headers(&[
            ("via", "1.1 meanwhile, 1.1 meanwhile"),
            ("via", "2 meanwhile, 1.1 meanwhile")
        ])));
    }
}
