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
use crate::book::{Answer, NAME_CHARS_MAX, Wish};
use crate::cash;
use crate::estimate;
use crate::later::{Later, Work};
use crate::simulate::Simulate;
use crate::trade::Trade;

/// The largest body taken: an order is small.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// The most pieces or cents that one request may name.
const AMOUNT_MAX: u64 = 1_000_000_000_000;

#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) trade: Trade,
    pub(crate) book: Shared,
    client: reqwest::Client,
}

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
    if let Some((later, callback)) = later {
        let Service { book, client, .. } = service;
        return Work { book, client, key, wish, traceparent, callback }.accept(later).await;
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

/// An answer without an effect, if there is to be one.
pub(crate) async fn arrive(service: &Service, key: &str, wish: &Wish, traceparent: &str) -> Option<Answer> {
    if let Some(answer) = service.book.lock().arrive(key, wish, traceparent) {
        return Some(answer);
    }
    let (wait, answer) = service.book.lock().waits_in_vain(key, wish)?;
    tokio::time::sleep(wait).await;
    Some(answer)
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

/// The body of any of the three `POST`s; each service reads what is its own.
#[derive(Debug, Deserialize)]
struct Body {
    order: String,
    #[serde(default)]
    sku: Option<String>,
    #[serde(default)]
    qty: Option<u64>,
    #[serde(default)]
    amount_cents: Option<u64>,
    #[serde(default)]
    address: Option<Value>,
    #[serde(default)]
    simulate: Option<String>,
    #[serde(default)]
    later: Option<String>,
    #[serde(default)]
    callback: Option<String>,
}

/// The end of work that is accepted now and done later, and where it is told.
pub(crate) type Ends = Option<(Later, Option<String>)>;

pub(crate) fn read(trade: Trade, headers: &HeaderMap, body: &[u8]) -> Result<(String, Wish, Ends), (u16, String)> {
    let key = header(headers, "idempotency-key").trim_matches('"').to_owned();
    if key.is_empty() {
        return Err((400, "An Idempotency-Key header is needed.".to_owned()));
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| (400, error.to_string()))?;
    let needed = |name: &str| (422, format!("`{name}` is needed by {}.", trade.name()));
    let (sku, amount) = match trade {
        Trade::Inventory => (body.sku.ok_or_else(|| needed("sku"))?, body.qty.unwrap_or(1)),
        Trade::Payment => (String::new(), body.amount_cents.ok_or_else(|| needed("amount_cents"))?),
        Trade::Shipping => {
            body.address.ok_or_else(|| needed("address"))?;
            (String::new(), 0)
        }
    };
    if amount > AMOUNT_MAX {
        return Err((422, format!("At most {AMOUNT_MAX} pieces or cents can be asked for.")));
    }
    if [&key, &body.order, &sku].iter().any(|name| name.chars().count() > NAME_CHARS_MAX) {
        return Err((422, format!("Keys, orders and SKUs have at most {NAME_CHARS_MAX} characters.")));
    }
    let simulate = Simulate::parse(body.simulate.as_deref().unwrap_or_default()).map_err(|detail| (422, detail))?;
    let later = body.later.filter(|text| !text.is_empty());
    let later = later.map(|text| Later::parse(&text)).transpose().map_err(|detail| (422, detail))?;
    let ends = later.map(|later| (later, body.callback));
    Ok((key, Wish { order: body.order, sku, amount, simulate }, ends))
}

pub(crate) fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

pub(crate) fn respond(answer: &Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match answer.body {
        Value::Null => status.into_response(),
        ref body => (status, Json(body)).into_response(),
    };
    let headers = response.headers_mut();
    if status.is_client_error() || status.is_server_error() {
        headers.insert("content-type", axum::http::HeaderValue::from_static("application/problem+json"));
    }
    if answer.replayed {
        headers.insert("idempotent-replayed", axum::http::HeaderValue::from_static("true"));
    }
    if let Some(seconds) = answer.retry_after_s {
        headers.insert("retry-after", seconds.into());
    }
    response
}
