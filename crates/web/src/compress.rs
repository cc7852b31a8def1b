//! Compression of documents that are the same for every caller.
//!
//! Answers about jobs are never compressed: the length of what holds a secret beside text that an attacker chose tells
//! the secret bit by bit (BREACH). Nor are streams, whose events would wait in the compressor.

use axum::Router;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

/// Smaller answers fit into one packet as they are.
const BYTES_MIN: u64 = 1_024;

/// Lets callers have the answers of these routes in gzip (RFC 9110 section 12.5.3).
pub fn documents<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes.layer(CompressionLayer::new().compress_when(SizeAbove::new(BYTES_MIN)))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_large_document_is_compressed_for_those_who_take_it() {
        let routes = || Router::new().route("/large", get("x".repeat(5_000))).route("/small", get("x"));
        for (path, accepts, coding) in [
            ("/large", "gzip, br", Some("gzip")),
            ("/large", "gzip;q=0", None),
            ("/large", "br", None),
            ("/small", "gzip", None),
        ] {
            let request = Request::get(path).header("accept-encoding", accepts).body(Body::empty()).unwrap();
            let response = documents(routes()).oneshot(request).await.unwrap();
            let found = response.headers().get("content-encoding").map(|coding| coding.to_str().unwrap());
            assert_eq!(found, coding, "{path} {accepts}");
            if path == "/large" {
                assert_eq!(response.headers()["vary"], "accept-encoding", "{accepts}");
            }
            let bytes = to_bytes(response.into_body(), 10_000).await.unwrap().len();
            assert_eq!(bytes < 100, coding.is_some() || path == "/small", "{path} {accepts}: {bytes} bytes");
        }
    }
}
