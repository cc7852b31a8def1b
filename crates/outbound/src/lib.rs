//! The HTTP client for calls to other services. It knows whether the other side may have seen a request.
//!
//! Promise: every call ends in an [`HttpAnswer`] that tells whether the other side may have seen the request. A
//! redirect is an answer like any other. Bodies are read up to a limit, and without their content coding; a larger one
//! is given as it comes ([`Large`]). No error text has the URL in it, which may hold a secret.

mod addresses;
mod coding;
pub mod forward;
mod guard;
mod large;
pub mod signature;
pub mod verify;

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use flow::decide::HttpAnswer;
use futures_util::stream::BoxStream;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Method, Response};
use url::Url;

use crate::coding::Decoding;
pub use guard::{Allowed, Guard, Refused, URL_BYTES_MAX};
pub use large::Large;

/// The calls' `User-Agent`, unless they have one of their own.
const USER_AGENT: &str = concat!("meanwhile/", env!("CARGO_PKG_VERSION"));

/// The limits of a client.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest answer that is read to its end, in bytes.
    pub response_bytes_max: usize,
    /// The time for connecting; it is part of the call's own time.
    pub connect_timeout: Duration,
    /// The most idle connections per host.
    pub idle_connections_max: usize,
    pub idle_timeout: Duration,
}

/// One call. Later headers win over earlier ones of the same name.
#[derive(Debug)]
pub struct Call<'a> {
    pub method: &'a str,
    pub url: &'a str,
    pub headers: Vec<(&'a str, Vec<u8>)>,
    pub body: Option<Body>,
    pub timeout: Duration,
}

/// The body of a call.
pub enum Body {
    Bytes(Vec<u8>),
    /// So many bytes, as they come. An error in them breaks the call off.
    Stream(u64, BoxStream<'static, std::io::Result<Bytes>>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => f.debug_tuple("Bytes").field(&bytes.len()).finish(),
            Self::Stream(size, _) => f.debug_tuple("Stream").field(size).finish(),
        }
    }
}

/// The answer to a call, or as much of it as was read.
#[derive(Debug)]
pub enum Begun {
    Whole(HttpAnswer),
    /// A success whose body is over the limit.
    Large(Box<Large>),
}

/// The client. It keeps connections and uses them again.
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
        // A proxy resolves names by itself, so that a guard could not see the addresses.
        let builder = if guard.is_none() { proxies::client_builder()? } else { proxies::direct_client_builder() };
        let mut builder = builder
            // Following a redirect could repeat a POST at another place.
            .redirect(Policy::none())
            .user_agent(USER_AGENT)
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

    /// Makes the call once. A success that is over the limit is no answer.
    pub async fn send(&self, call: Call<'_>) -> HttpAnswer {
        let timeout = call.timeout;
        let begun = tokio::time::timeout(timeout, self.begin(call)).await;
        match begun.unwrap_or(Begun::Whole(HttpAnswer::TimedOut)) {
            Begun::Whole(answer) => answer,
            Begun::Large(large) => large.refused(self.response_bytes_max),
        }
    }

    /// Makes the call once, with no limit of time: to the end of its answer, or to the limit of its body.
    pub async fn begin(&self, call: Call<'_>) -> Begun {
        let request = match self.request(call) {
            Ok(request) => request,
            Err(reason) => return Begun::Whole(HttpAnswer::Unsendable(reason)),
        };
        match request.send().await {
            Ok(response) => self.read(response).await,
            Err(error) => Begun::Whole(failure(error)),
        }
    }

    fn request(&self, call: Call<'_>) -> Result<reqwest::RequestBuilder, String> {
        let method = Method::from_bytes(call.method.as_bytes()).map_err(|error| error.to_string())?;
        let url = Url::parse(call.url).map_err(|error| error.to_string())?;
        self.guard.check(&url).map_err(|refused| refused.to_string())?;
        let mut headers = headers(call.headers)?;
        // Servers may refuse these with 411 when no length is said (RFC 9110 section 8.6).
        if call.body.is_none() && [Method::POST, Method::PUT, Method::PATCH].contains(&method) {
            headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
        }
        // A coding would only have to be undone.
        headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
        let request = self.client.request(method, url).headers(headers);
        Ok(match call.body {
            Some(Body::Bytes(body)) => request.body(body),
            Some(Body::Stream(size, chunks)) => {
                request.header(CONTENT_LENGTH, size).body(reqwest::Body::wrap_stream(chunks))
            }
            None => request,
        })
    }

    /// Reads the answer up to the limit.
    async fn read(&self, mut response: Response) -> Begun {
        let is_success = response.status().is_success();
        let head = Head::of(&response);
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= self.response_bytes_max => {
                    body.extend_from_slice(&chunk);
                }
                // A success needs its whole body, which is the output. Of any other answer the beginning is enough.
                Ok(Some(chunk)) if is_success => return large(head, [Bytes::from(body), chunk], response),
                Ok(Some(_) | None) => break,
                Err(error) => return Begun::Whole(failure(error)),
            }
        }
        let decoded = match head.codings.is_empty() {
            true => Ok(body),
            false if is_success => match coding::decode(&head.codings, &body, self.response_bytes_max) {
                Err(coding::Failed::TooLarge) => return large(head, [Bytes::from(body), Bytes::new()], response),
                Err(coding::Failed::Undecodable(cause)) => Err(cause),
                Ok(body) => Ok(body),
            },
            // Its status says enough.
            false => Ok(coding::decode(&head.codings, &body, self.response_bytes_max).unwrap_or_default()),
        };
        let Head { status, retry_after, content_type, headers, .. } = head;
        Begun::Whole(match decoded {
            Ok(body) => HttpAnswer::Response { status, retry_after, content_type, headers, body },
            Err(cause) => HttpAnswer::Undecodable { status, cause },
        })
    }
}

/// The head of an answer.
pub(crate) struct Head {
    status: u16,
    retry_after: Option<String>,
    content_type: Option<String>,
    /// All of its headers that are text, in lower case.
    headers: Vec<(String, String)>,
    /// Its content codings, with commas between them.
    codings: String,
}

impl Head {
    fn of(response: &Response) -> Self {
        let all = response.headers();
        let text = |name: HeaderName| all.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        let lines = all.iter();
        let lines = lines.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
        let codings = all.get_all(CONTENT_ENCODING).iter();
        let codings: Vec<_> = codings.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        Self {
            status: response.status().as_u16(),
            retry_after: text(RETRY_AFTER),
            content_type: text(CONTENT_TYPE),
            headers: lines.collect(),
            codings: codings.join(","),
        }
    }
}

/// A success whose body is over the limit. One whose coding is not known is not read.
fn large(head: Head, beginning: [Bytes; 2], response: Response) -> Begun {
    match Decoding::of(&head.codings) {
        Ok(decoding) => Begun::Large(Box::new(Large::new(head, decoding, beginning, response))),
        Err(cause) => Begun::Whole(HttpAnswer::Undecodable { status: head.status, cause }),
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

/// The answer for a failed call: it tells whether the other side may have seen the request.
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
#[expect(clippy::disallowed_methods, reason = "tests own what they start")]
mod tests {
    use reqwest::dns::Resolve as _;
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
        assert_eq!(asked.matches("content-length: 0").count(), 1, "a POST without a body says so: {asked}");
    }

    #[tokio::test]
    async fn a_success_that_is_too_long_is_no_answer() {
        let (port, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n01234567890").await;
        let answer = call(&format!("http://127.0.0.1:{port}/"), Guard::none()).await;
        assert!(
            matches!(answer, HttpAnswer::TooLarge { status: 200, limit_bytes: 10, has_store: false }),
            "{answer:?}"
        );
    }

    #[tokio::test]
    async fn an_answer_comes_with_its_type_and_without_its_coding() {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\nlocation: /jobs/7\r\nx-other: 1\r\n\
                    content-length: 3\r\n";
        let (port, asked) = answering(format!("{head}\r\n1e5").leak()).await;
        let answer = call(&format!("http://127.0.0.1:{port}/"), Guard::none()).await;
        let HttpAnswer::Response { content_type: Some(content_type), headers, body, .. } = answer else {
            panic!("{answer:?}")
        };
        let all = [
            ("content-type", "text/plain; charset=utf-8"),
            ("location", "/jobs/7"),
            ("x-other", "1"),
            ("content-length", "3"),
        ];
        assert_eq!(
            headers,
            all.map(|(name, value)| (name.to_owned(), value.to_owned())),
            "and with all of its headers"
        );
        assert_eq!((content_type.as_str(), body.as_slice()), ("text/plain; charset=utf-8", &b"1e5"[..]));
        let asked = asked.await.unwrap();
        assert!(asked.contains(&format!("user-agent: {USER_AGENT}\r\n")), "{asked}");
        let (port, _) = answering(format!("{head}content-encoding: br\r\n\r\n1e5").leak()).await;
        let answer = call(&format!("http://127.0.0.1:{port}/"), Guard::none()).await;
        assert!(
            matches!(&answer, HttpAnswer::Undecodable { status: 200, cause } if cause.contains("`br`")),
            "{answer:?}"
        );
        let refusal = format!("{head}content-encoding: br\r\n\r\n1e5").replace("200 OK", "503 No");
        let (port, _) = answering(refusal.leak()).await;
        let answer = call(&format!("http://127.0.0.1:{port}/"), Guard::none()).await;
        assert!(matches!(&answer, HttpAnswer::Response { status: 503, .. }), "{answer:?}");
    }

    #[tokio::test]
    async fn an_address_that_the_guard_refuses_is_not_called_by_name_or_by_number() {
        let public = Guard::new(Allowed::default());
        for url in ["http://127.0.0.1/", "http://[::1]/", "http://localhost/"] {
            let answer = call(url, public.clone()).await;
            assert!(matches!(&answer, HttpAnswer::Unsendable(why) if why.contains("not allowed")), "{answer:?}");
        }
        // Its name looks public; its address is not.
        let resolver = public.resolver().unwrap();
        let found = resolver.resolve("localhost".parse().unwrap()).await;
        let refused = found.err().unwrap().to_string();
        assert!(refused.contains("not allowed"), "{refused}");
        // A deployment with private networks may name hosts there as it likes. This machine's name does not lead there,
        // which is found out when it is called.
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let inside = Guard::new(Allowed::parse(&["192.0.2.0/24".to_owned()], &[]).unwrap());
        let answer = call(&format!("http://{}/", machine.trim()), inside).await;
        assert!(matches!(&answer, HttpAnswer::ConnectFailed(why) if why.contains("not allowed")), "{answer:?}");
        let here = Guard::new(Allowed::parse(&["127.0.0.1".to_owned()], &[]).unwrap());
        let (port, _) = answering("HTTP/1.1 204 None\r\n\r\n").await;
        let answer = call(&format!("http://localhost:{port}/"), here).await;
        assert!(matches!(answer, HttpAnswer::Response { status: 204, .. }), "{answer:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_told_without_its_url() {
        let answer = call("http://user:hunter2@[bad/", Guard::none()).await;
        assert!(matches!(&answer, HttpAnswer::Unsendable(why) if !why.contains("hunter2")), "{answer:?}");
        let answer = call("http://user:hunter2@127.0.0.1:1/", Guard::none()).await;
        assert!(matches!(&answer, HttpAnswer::ConnectFailed(why) if !why.contains("hunter2")), "{answer:?}");
    }
}
