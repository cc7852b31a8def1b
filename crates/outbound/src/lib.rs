//! The careful HTTP client, for calls to services of others.
//!
//! Promise: every call ends in an [`HttpAnswer`] that tells whether the other side may have seen the request. A
//! redirect is an answer like any other. Bodies are read up to a limit. No error text has the URL in it, which may hold
//! a secret.

mod guard;

use std::time::Duration;

use anyhow::Context;
use flow::decide::HttpAnswer;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, Response};
use url::Url;

pub use guard::Guard;

/// The limits of a client.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A longer answer is not read to its end.
    pub response_bytes_max: usize,
    /// Within the time of the call.
    pub connect_timeout: Duration,
    /// Per host.
    pub idle_connections_max: usize,
    pub idle_timeout: Duration,
}

/// One call. Later headers win over earlier ones of the same name.
#[derive(Debug)]
pub struct Call<'a> {
    pub method: &'a str,
    pub url: &'a str,
    pub headers: Vec<(&'a str, Vec<u8>)>,
    pub body: Option<String>,
    pub timeout: Duration,
}

/// Keeps connections and uses them again.
#[derive(Debug)]
pub struct Client {
    client: reqwest::Client,
    response_bytes_max: usize,
    guard: Guard,
}

impl Client {
    /// # Errors
    /// The system's certificates cannot be read.
    pub fn new(limits: &Limits, guard: Guard) -> anyhow::Result<Self> {
        service_kit::tls::install_ring();
        let mut builder = reqwest::Client::builder()
            // Following a redirect could repeat a POST at another place.
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(limits.connect_timeout)
            .pool_max_idle_per_host(limits.idle_connections_max)
            .pool_idle_timeout(limits.idle_timeout)
            .tcp_nodelay(true);
        if let Some(resolver) = guard.resolver() {
            builder = builder.dns_resolver(resolver);
        }
        let client = builder.build().context("building the HTTP client")?;
        Ok(Self { client, response_bytes_max: limits.response_bytes_max, guard })
    }

    /// Makes the call once.
    pub async fn send(&self, call: Call<'_>) -> HttpAnswer {
        let timeout = call.timeout;
        tokio::time::timeout(timeout, self.attempt(call)).await.unwrap_or(HttpAnswer::TimedOut)
    }

    async fn attempt(&self, call: Call<'_>) -> HttpAnswer {
        let request = match self.request(call) {
            Ok(request) => request,
            Err(reason) => return HttpAnswer::Unsendable(reason),
        };
        match request.send().await {
            Ok(response) => self.read(response).await,
            Err(error) => failure(error),
        }
    }

    fn request(&self, call: Call<'_>) -> Result<reqwest::RequestBuilder, String> {
        let method = Method::from_bytes(call.method.as_bytes()).map_err(|error| error.to_string())?;
        let url = Url::parse(call.url).map_err(|error| error.to_string())?;
        self.guard.check(&url)?;
        let request = self.client.request(method, url).headers(headers(call.headers)?);
        Ok(match call.body {
            Some(body) => request.body(body),
            None => request,
        })
    }

    /// Reads the answer up to the limit.
    async fn read(&self, mut response: Response) -> HttpAnswer {
        let status = response.status();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= self.response_bytes_max => {
                    body.extend_from_slice(&chunk);
                }
                // The whole body of a success is the output; the beginning of anything else says enough.
                Ok(Some(_)) if status.is_success() => {
                    let limit_bytes = self.response_bytes_max as u64;
                    return HttpAnswer::TooLarge { status: status.as_u16(), limit_bytes };
                }
                Ok(Some(_) | None) => return HttpAnswer::Response { status: status.as_u16(), retry_after, body },
                Err(error) => return failure(error),
            }
        }
    }
}

fn headers(pairs: Vec<(&str, Vec<u8>)>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
        let value =
            HeaderValue::from_bytes(&value).map_err(|_| format!("`{name}` has a value that no header can have"))?;
        headers.insert(header, value);
    }
    Ok(headers)
}

/// Tells whether the other side may have seen the request.
fn failure(error: reqwest::Error) -> HttpAnswer {
    let error = error.without_url();
    let cause = root_cause(&error);
    if error.is_builder() {
        HttpAnswer::Unsendable(cause)
    } else if error.is_connect() {
        HttpAnswer::ConnectFailed(cause)
    } else if error.is_timeout() {
        HttpAnswer::TimedOut
    } else {
        HttpAnswer::ConnectionLost(cause)
    }
}

/// The innermost cause, which is the most precise one.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const LIMITS: Limits = Limits {
        response_bytes_max: 10,
        connect_timeout: Duration::from_secs(10),
        idle_connections_max: 1,
        idle_timeout: Duration::from_secs(10),
    };

    async fn call(url: &str, guard: Guard) -> HttpAnswer {
        let headers = vec![("x-a", b"1".to_vec()), ("x-a", b"2".to_vec())];
        let call = Call { method: "POST", url, headers, body: None, timeout: Duration::from_secs(60) };
        Client::new(&LIMITS, guard).unwrap().send(call).await
    }

    /// Answers one request, and returns the port and what was asked.
    async fn answering(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        (port, asked)
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_the_last_header_of_a_name_wins() {
        let (port, asked) = answering("HTTP/1.1 307 Temporary\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n").await;
        let answer = call(&format!("http://127.0.0.1:{port}/a"), Guard::none()).await;
        assert!(matches!(answer, HttpAnswer::Response { status: 307, .. }), "{answer:?}");
        let asked = asked.await.unwrap();
        assert!(asked.contains("x-a: 2") && !asked.contains("x-a: 1"), "{asked}");
    }

    #[tokio::test]
    async fn a_success_that_is_too_long_is_no_answer() {
        let (port, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n01234567890").await;
        let answer = call(&format!("http://127.0.0.1:{port}/"), Guard::none()).await;
        assert!(matches!(answer, HttpAnswer::TooLarge { status: 200, limit_bytes: 10 }), "{answer:?}");
    }

    #[tokio::test]
    async fn an_address_that_the_guard_refuses_is_not_called_by_name_or_by_number() {
        let public = Guard::new(|address: IpAddr| !address.is_loopback());
        let answer = call("http://127.0.0.1:1/", public).await;
        assert!(matches!(&answer, HttpAnswer::Unsendable(why) if why.contains("not allowed")), "{answer:?}");
        let answer = call("http://[::1]:1/", public).await;
        assert!(matches!(&answer, HttpAnswer::Unsendable(why) if why.contains("not allowed")), "{answer:?}");
        let answer = call("http://localhost:1/", public).await;
        assert!(matches!(&answer, HttpAnswer::ConnectFailed(why) if why.contains("not allowed")), "{answer:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_told_without_its_url() {
        let answer = call("http://user:hunter2@[bad/", Guard::none()).await;
        assert!(matches!(&answer, HttpAnswer::Unsendable(why) if !why.contains("hunter2")), "{answer:?}");
        let answer = call("http://user:hunter2@127.0.0.1:1/", Guard::none()).await;
        assert!(matches!(&answer, HttpAnswer::ConnectFailed(why) if !why.contains("hunter2")), "{answer:?}");
    }
}
