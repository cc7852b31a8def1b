//! What a request of one service asks for, and how it is answered.

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use crate::Shared;
use crate::answer::Answer;
use crate::book::{NAME_CHARS_MAX, Wish};
use crate::later::{Later, ToldAt};
use crate::simulate::Simulate;
use crate::trade::Trade;

/// The most pieces or cents that one request may name.
const AMOUNT_MAX: u64 = 1_000_000_000_000;

#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) trade: Trade,
    pub(crate) book: Shared,
    pub(crate) client: reqwest::Client,
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
    #[serde(flatten)]
    told_at: ToldAt,
}

/// The end of work that is accepted now and done later, and where it is told.
pub(crate) type Ends = Option<(Later, ToldAt)>;

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
    let ends = later.map(|later| (later, body.told_at));
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
