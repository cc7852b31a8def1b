//! A stream as server-sent events (WHATWG HTML, section 9.2).
//!
//! Events come as messages without a name, so that a browser's `onmessage` has them all, also those of later versions.

use std::convert::Infallible;
use std::fmt::Write as _;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;

use super::feed::Feed;
use super::item::{End, Item};

/// The media type.
pub(super) const MEDIA_TYPE: &str = "text/event-stream";
/// Keeps a common proxy from gathering events before it passes them on.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
/// The time after which a client comes back, in milliseconds.
const RETRY_MS: u32 = 1_000;
/// The same where its connection was needed for others.
const CROWDED_RETRY_MS: u32 = 10_000;

/// The answer: 204 where there is nothing to come, which ends a browser's attempts.
pub(super) fn answer(feed: Feed) -> Response {
    if feed.is_finished() {
        return StatusCode::NO_CONTENT.into_response();
    }
    let begin = Bytes::from(format!("retry: {RETRY_MS}\n\n"));
    let chunks = stream::unfold((Some(begin), feed), async |(begin, mut feed)| {
        let chunk = match begin {
            Some(begin) => begin,
            None => Bytes::from(text(feed.next().await?)),
        };
        Some((Ok::<_, Infallible>(chunk), (None, feed)))
    });
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    ([kind, UNBUFFERED], Body::from_stream(Box::pin(chunks))).into_response()
}

fn text(item: Item) -> String {
    match item {
        Item::Event { cursor, text } => format!("id: {cursor}\ndata: {text}\n\n"),
        // Without an id, so that a client does not lose its cursor for it.
        Item::Progress(text) => format!("event: progress\ndata: {text}\n\n"),
        Item::Heartbeat { cursor: None } => ":\n\n".to_owned(),
        // An id without data is no event, and is kept all the same.
        Item::Heartbeat { cursor: Some(cursor) } => format!("id: {cursor}\n\n"),
        Item::End(end) => last(&end),
    }
}

fn last(end: &End) -> String {
    let (reason, detail) = end.reason();
    let mut text = String::new();
    if matches!(end, End::Crowded) {
        let _ = write!(text, "retry: {CROWDED_RETRY_MS}\n\n");
    }
    match end {
        End::Finished | End::Leaving | End::Crowded => {
            let _ = write!(text, ": {reason}\n\n");
        }
        End::Slow | End::Unauthorized | End::Failed(_) => {
            let data = json!({ "reason": reason, "detail": detail });
            let _ = write!(text, "event: error\ndata: {data}\n\n");
        }
    }
    text
}
