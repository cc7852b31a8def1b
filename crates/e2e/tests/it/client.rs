//! The API as a caller sees it: answers as status, headers and JSON.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The last word of the problem's type.
    pub(crate) fn problem(&self) -> &str {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        self.body["type"].as_str().and_then(|kind| kind.rsplit('/').next()).unwrap_or("")
    }

    pub(crate) fn job(&self) -> flow::id::JobId {
        assert_eq!(self.status, 202, "{self:?}");
        self.body["id"].as_str().unwrap().parse().unwrap()
    }
}

/// Sends a request and reads the whole answer.
pub(crate) async fn send(request: reqwest::RequestBuilder) -> Seen {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = answer.text().await.unwrap();
    Seen { status, headers, body: serde_json::from_str(&body).unwrap_or(Value::String(body)) }
}

/// An order for the flow of `flows/order.yaml`; `simulate` asks the shop's services for failures.
pub(crate) fn order(customer: &str, simulate: Value) -> Value {
    json!({
        "customer_id": customer, "sku": "lamp", "qty": 2, "amount_cents": 1990, "card": "4242", "address": "1 Main St",
        "simulate": simulate,
    })
}

/// An order for the flows of this crate.
pub(crate) fn small_order(customer: &str, simulate: Value) -> Value {
    json!({ "customer_id": customer, "simulate": simulate })
}
