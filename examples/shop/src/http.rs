//! The HTTP surface of one service.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State as Held};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Shared;
use crate::answer::Answer;
use crate::book::NAME_CHARS_MAX;
use crate::cash;
use crate::estimate;
use crate::later::Work;
use crate::request::{Service, arrive, header, read, respond};
use crate::simulate::Simulate;
use crate::trade::Trade;

/// The largest body taken: an order is small.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// `POST /{plural}`, `GET /{plural}/{key}`, `DELETE /{plural}/{id or key}`, the `/cash` of payment, the
/// `/estimates` of shipping, `GET /state`, `GET /log`, `POST|DELETE /mend`, `GET /healthz`.
pub(crate) fn router(trade: Trade, book: Shared, client: reqwest::Client) -> Router {
    let plural = trade.plural();
    let own = match trade {
        Trade::Inventory => Router::new(),
        Trade::Payment => cash::router(),
        Trade::Shipping => estimate::router(),
    };
    Router::new()
        .merge(own)
        .route(&format!("/{plural}"), post(create))
        .route(&format!("/{plural}/{{id_or_key}}"), delete(undo).get(look))
        .route("/state", get(async |Held(service): Held<Service>| Json(service.book.lock().state())))
        .route("/log", get(log))
        .route("/mend", post(mend).delete(unmend))
        .route("/healthz", get(async || Json(json!({ "status": "alive" }))))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Service { trade, book, client })
}

async fn create(Held(service): Held<Service>, headers: HeaderMap, body: Bytes) -> Response {
    let (key, wish, later) = match read(service.trade, &headers, &body) {
        Ok(read) => read,
        Err((status, detail)) => {
            return respond(&Answer::problem(status, "The request cannot be understood", &detail));
        }
    };
    let traceparent = header(&headers, "traceparent");
    if let Some(answer) = arrive(&service, &key, &wish, &traceparent).await {
        return respond(&answer);
    }
    if let Some((later, told_at)) = later {
        let Service { book, client, .. } = service;
        return Work { book, client, key, wish, traceparent, told_at }.accept(later).await;
    }
    if let Simulate::Slow(wait) = wish.simulate {
        tokio::time::sleep(wait).await;
    }
    // Bound by a statement of its own: the lock is let go before any wait.
    let answer = service.book.lock().create(&key, &wish, &traceparent);
    if let Simulate::TimeoutAfterEffect(wait) | Simulate::Once(wait) = wish.simulate {
        tokio::time::sleep(wait).await;
    }
    respond(&answer)
}

async fn undo(Held(service): Held<Service>, Path(id_or_key): Path<String>, headers: HeaderMap) -> Response {
    if id_or_key.chars().count() > NAME_CHARS_MAX {
        return respond(&Answer::problem(404, "Nothing to undo", "No id or key is that long."));
    }
    let answer = service.book.lock().undo(&id_or_key, &header(&headers, "traceparent"));
    respond(&answer)
}

/// The state of work that was accepted.
async fn look(Held(service): Held<Service>, Path(key): Path<String>) -> Response {
    match service.book.lock().look(&key) {
        Some(state) => Json(state).into_response(),
        None => respond(&Answer::problem(404, "Nothing is known", "Nothing was accepted under this key.")),
    }
}

#[derive(Debug, Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn log(Held(service): Held<Service>, Query(After { after }): Query<After>) -> Json<Value> {
    let lines = service.book.lock().log_after(after);
    let next = lines.last().map_or(after, |line| line.at_seq);
    Json(json!({ "lines": lines, "next": next }))
}

async fn mend(Held(service): Held<Service>) -> StatusCode {
    service.book.lock().mended = true;
    StatusCode::NO_CONTENT
}

async fn unmend(Held(service): Held<Service>) -> StatusCode {
    service.book.lock().mended = false;
    StatusCode::NO_CONTENT
}
