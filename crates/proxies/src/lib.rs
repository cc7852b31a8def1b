//! Which HTTP calls go through a proxy: one rule for all of our clients, so every one of them begins here.
//!
//! The usual variables decide: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or not. Loopback is
//! never proxied: dev mode, sidecars and health checks live there, and no proxy could reach them. A variable that names
//! no proxy is an error; it would be ignored silently otherwise.

#![warn(missing_docs)]

use reqwest::{ClientBuilder, NoProxy, Proxy, Url};

/// Names and addresses of this machine, in the notation of `NO_PROXY`. A name also stands for those below it.
pub const LOOPBACK: &str = "localhost,localhost.,127.0.0.0/8,::1,::ffff:127.0.0.0/104,0.0.0.0,::";
/// In `NO_PROXY`: nothing is proxied.
const EVERYTHING: &str = "*";

/// A variable that names no proxy. Its value is not told: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} names no HTTP proxy, which would be {EXPECTED}")]
pub struct InvalidProxy {
    /// As it is written in the environment.
    pub variable: String,
}

/// A value that a variable may have.
pub const EXPECTED: &str = "a URL such as http://proxy.example.com:3128 (http or https; not SOCKS)";

/// A value, and the variable that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    /// As it is written in the environment.
    pub variable: String,
    /// Its value, read.
    pub value: T,
}

/// The proxies of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` addresses.
    pub http: Option<Found<Url>>,
    /// For `https://` addresses, by a tunnel.
    pub https: Option<Found<Url>>,
    /// What goes to no proxy, in addition to [`LOOPBACK`].
    pub except: Option<Found<String>>,
}

impl Proxies {
    /// Reads the variables. `value_of` looks one up.
    ///
    /// # Errors
    /// One of them names no proxy that can be used.
    pub fn read(value_of: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidProxy> {
        let find = |name: &str| {
            let names = [name.to_owned(), name.to_ascii_lowercase()];
            names.into_iter().find_map(|variable| {
                let value = value_of(&variable).filter(|value| !value.trim().is_empty())?;
                Some(Found { variable, value })
            })
        };
        let except = find("NO_PROXY");
        if except.as_ref().is_some_and(|except| except.value.split(',').any(|part| part.trim() == EVERYTHING)) {
            return Ok(Self { except, ..Self::default() });
        }
        let proxy = |name| find(name).or_else(|| find("ALL_PROXY")).map(parse).transpose();
        Ok(Self { http: proxy("HTTP_PROXY")?, https: proxy("HTTPS_PROXY")?, except })
    }

    /// Those of the environment.
    ///
    /// # Errors
    /// As [`Proxies::read`].
    #[expect(clippy::disallowed_methods, reason = "programs that use the client have no settings of ours")]
    pub fn of_process() -> Result<Self, InvalidProxy> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// All that goes to no proxy, in the notation of `NO_PROXY`.
    pub fn exceptions(&self) -> String {
        match &self.except {
            Some(except) => format!("{LOOPBACK},{}", except.value),
            None => LOOPBACK.to_owned(),
        }
    }

    /// The same for reqwest, whose own reading of the environment has to be switched off (`no_proxy`).
    ///
    /// # Errors
    /// reqwest finds that an address is no proxy's.
    pub fn for_reqwest(&self) -> Result<Vec<Proxy>, InvalidProxy> {
        let except = NoProxy::from_string(&self.exceptions());
        let proxy = |found: &Found<Url>, of: fn(Url) -> reqwest::Result<Proxy>| {
            let made = of(found.value.clone()).map(|proxy| proxy.no_proxy(except.clone()));
            made.map_err(|_| InvalidProxy { variable: found.variable.clone() })
        };
        let http = self.http.iter().map(|found| proxy(found, Proxy::http));
        http.chain(self.https.iter().map(|found| proxy(found, Proxy::https))).collect()
    }
}

/// Without a scheme it is `http`, as everywhere.
fn parse(Found { variable, value }: Found<String>) -> Result<Found<Url>, InvalidProxy> {
    let value = value.trim();
    let text = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let usable = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    match Url::parse(&text).ok().filter(usable) {
        Some(value) => Ok(Found { variable, value }),
        None => Err(InvalidProxy { variable }),
    }
}

/// The beginning of every HTTP client of ours: it follows the rule.
///
/// # Errors
/// A variable names no proxy.
pub fn client_builder() -> Result<ClientBuilder, InvalidProxy> {
    let proxies = Proxies::of_process()?.for_reqwest()?;
    Ok(proxies.into_iter().fold(direct_client_builder(), ClientBuilder::proxy))
}

/// For a client that goes to no proxy by its nature: it asks this machine, or it judges the addresses that it calls.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn direct_client_builder() -> ClientBuilder {
    reqwest::Client::builder().no_proxy()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Proxies, InvalidProxy> {
        let value_of =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        Proxies::read(value_of)
    }

    fn shown(found: Option<Found<Url>>) -> Option<(String, String)> {
        found.map(|Found { variable, value }| (variable, value.to_string()))
    }

    fn of(variable: &str, url: &str) -> Option<(String, String)> {
        Some((variable.to_owned(), url.to_owned()))
    }

    #[test]
    fn each_scheme_has_its_variable_and_all_of_them_another() {
        let proxies = read(&[("HTTP_PROXY", "proxy:3128"), ("all_proxy", "https://me:secret@other")]).unwrap();
        assert_eq!(shown(proxies.http), of("HTTP_PROXY", "http://proxy:3128/"));
        assert_eq!(shown(proxies.https), of("all_proxy", "https://me:secret@other/"));
        let proxies = read(&[("HTTPS_PROXY", ""), ("https_proxy", "http://proxy")]).unwrap();
        assert_eq!((shown(proxies.http), shown(proxies.https)), (None, of("https_proxy", "http://proxy/")));
        assert_eq!(read(&[]), Ok(Proxies::default()));
    }

    #[test]
    fn loopback_is_always_among_the_exceptions() {
        assert_eq!(read(&[]).unwrap().exceptions(), LOOPBACK);
        let proxies = read(&[("no_proxy", "example.com"), ("HTTP_PROXY", "http://proxy")]).unwrap();
        assert_eq!(proxies.exceptions(), format!("{LOOPBACK},example.com"));
        assert!(proxies.http.is_some());
    }

    #[test]
    fn a_star_switches_all_proxies_off_also_for_addresses() {
        let proxies =
            read(&[("NO_PROXY", "a, *"), ("HTTP_PROXY", "http://proxy"), ("ALL_PROXY", "nonsense:")]).unwrap();
        assert_eq!((proxies.http, proxies.https), (None, None));
    }

    #[test]
    fn a_variable_that_names_no_proxy_is_told_without_its_value() {
        for value in ["socks5://hunter2:1080", "http://", "http://a b", "hunter2:port"] {
            let error = read(&[("ALL_PROXY", value)]).unwrap_err();
            assert_eq!(error.variable, "ALL_PROXY");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    /// Answers every request with its first line, as a server sees it, and says where it listens.
    #[expect(clippy::disallowed_methods, reason = "tests own what they start")]
    async fn echo(address: &str) -> u16 {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4_096];
                let length = stream.read(&mut request).await.unwrap();
                let line = String::from_utf8_lossy(&request[..length]).lines().next().unwrap_or_default().to_owned();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{line}", line.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        port
    }

    async fn get(proxies: &Proxies, url: &str) -> String {
        // The only error is that another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = proxies.for_reqwest().unwrap().into_iter().fold(direct_client_builder(), ClientBuilder::proxy);
        match builder.build().unwrap().get(url).send().await {
            Ok(answer) => answer.text().await.unwrap(),
            Err(error) => format!("{error:?}"),
        }
    }

    #[tokio::test]
    async fn loopback_is_called_directly_and_all_else_by_the_proxy() {
        let (proxy, service) = (echo("127.0.0.1").await, echo("127.0.0.1").await);
        let proxies = read(&[("HTTP_PROXY", &format!("127.0.0.1:{proxy}")), ("NO_PROXY", "internal.test")]).unwrap();
        for host in ["127.0.0.1", "localhost", "LocalHost", "0.0.0.0", "[::ffff:127.0.0.1]"] {
            assert_eq!(get(&proxies, &format!("http://{host}:{service}/a")).await, "GET /a HTTP/1.1", "{host}");
        }
        // Such a name has no address: only a proxy that it goes to could answer.
        assert_eq!(get(&proxies, "http://service.test/a").await, "GET http://service.test/a HTTP/1.1");
        let direct = get(&proxies, "http://here.internal.test/a").await;
        assert!(direct.contains("dns error"), "{direct}");
    }
}
