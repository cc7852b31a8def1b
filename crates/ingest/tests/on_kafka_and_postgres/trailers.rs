//! Trailers of requests and answers that are passed on to an old service (RFC 9110 section 6.5).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use http_body::Frame;
use parking_lot::Mutex;
use reqwest::{Client, ClientBuilder};

use crate::modes::Front;
use crate::stage::PATIENCE;

/// A body of these frames, of unknown length.
struct Frames(VecDeque<Frame<Bytes>>);

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// Two parts, and a trailer.
fn frames(name: &'static str, value: &'static str) -> Frames {
    let trailers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
    let parts = ["first,", "second"].map(|part| Frame::data(Bytes::from_static(part.as_bytes())));
    Frames(parts.into_iter().chain([Frame::trailers(trailers)]).collect())
}

/// The bytes of a body, and its trailers.
async fn read<B: HttpBody<Data = Bytes, Error: std::fmt::Debug>>(body: B) -> (String, HeaderMap) {
    let (mut body, mut bytes, mut trailers) = (pin!(body), Vec::new(), HeaderMap::new());
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.unwrap().into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap()),
        }
    }
    (String::from_utf8(bytes).unwrap(), trailers)
}

/// Makes a client speak one version.
type OfVersion = fn(ClientBuilder) -> ClientBuilder;

type Heard = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// An old service that tells in a trailer of its answer that it has read the whole request, trailers and all.
async fn answer(State(heard): State<Heard>, request: Request) -> Response {
    let told = read(request.into_body()).await;
    heard.lock().push(told);
    let mut response = Response::new(Body::new(frames("x-checksum", "4a17")));
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-checksum"));
    response
}

async fn old_service() -> (Heard, String) {
    let heard = Heard::default();
    let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&heard));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (heard, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_are_passed_on_both_ways_whichever_version_of_http_the_client_speaks() {
    let front = Front::new().await;
    let (heard, url) = old_service().await;
    let ingest = Front::ingest_with(&front.ground, &url, |_| {}).await;
    let versions: [(&str, OfVersion); 2] =
        [("HTTP/1.1", ClientBuilder::http1_only), ("HTTP/2", ClientBuilder::http2_prior_knowledge)];
    for (version, of_version) in versions {
        let client = of_version(Client::builder().no_proxy()).build().unwrap();
        let ask = async |wants: Option<&str>| {
            let request = client.post(format!("http://{}/legacy", ingest.address)).timeout(PATIENCE);
            let request = request.header("content-type", "text/csv").header("trailer", "x-total");
            let request = wants.into_iter().fold(request, |request, te| request.header("te", te));
            let answer = request.body(reqwest::Body::wrap(frames("x-total", "2"))).send().await.unwrap();
            assert_eq!(format!("{:?}", answer.version()).trim_end_matches(".0"), version);
            let named = answer.headers().get("trailer").map(|names| names.to_str().unwrap().to_owned());
            let (text, trailers) = read(reqwest::Body::from(answer)).await;
            assert_eq!((text.as_str(), named.as_deref()), ("first,second", Some("x-checksum")), "{version}");
            let (asked, total) = heard.lock().pop().unwrap();
            assert_eq!((asked.as_str(), &total["x-total"]), ("first,second", &"2".parse().unwrap()), "{version}");
            trailers
        };
        assert_eq!(ask(Some("trailers")).await["x-checksum"], "4a17", "{version}");
        // A client that does not say so may get none (RFC 9110 section 6.5.1); the rest of the answer is the same.
        assert!(ask(None).await.is_empty(), "{version}");
    }
    ingest.stop().await;
    front.ingest.stop().await;
}
