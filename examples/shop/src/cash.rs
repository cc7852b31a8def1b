//! Charges by a service that knows no idempotency keys: whoever asks twice pays twice. It can be asked whether an order
//! was paid.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State as Held};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

use crate::answer::Answer;
use crate::request::{Service, arrive, header, read, respond};
use crate::simulate::Simulate;

static CHARGES: AtomicU64 = AtomicU64::new(0);

/// `POST /cash`, `GET /cash/{order}`, `DELETE /cash/{order}`.
pub(crate) fn router() -> Router<Service> {
    Router::new().route("/cash", post(charge)).route("/cash/{order}", get(find).delete(refund))
}

/// The key of the request counts for failures on request only.
async fn charge(Held(service): Held<Service>, headers: HeaderMap, body: Bytes) -> Response {
    let (key, wish) = match read(service.trade, &headers, &body) {
        Ok((key, wish, _)) => (key, wish),
        Err((status, detail)) => {
            return respond(&Answer::problem(status, "The request cannot be understood", &detail));
        }
    };
    let traceparent = header(&headers, "traceparent");
    if let Some(answer) = arrive(&service, &key, &wish, &traceparent).await {
        return respond(&answer);
    }
    if let Simulate::Slow(wait) = wish.simulate {
        tokio::time::sleep(wait).await;
    }
    let own_key = format!("{key}#{}", CHARGES.fetch_add(1, Ordering::Relaxed));
    let answer = service.book.lock().create(&own_key, &wish, &traceparent);
    if let Simulate::TimeoutAfterEffect(wait) = wish.simulate {
        tokio::time::sleep(wait).await;
    }
    respond(&answer)
}

async fn find(Held(service): Held<Service>, Path(order): Path<String>) -> Response {
    let book = service.book.lock();
    let answer = book.standing_of(&order).map_or_else(unpaid, |charge| {
        Answer::found(json!({ "id": charge.id, "order": charge.order, "amount_cents": charge.amount }))
    });
    drop(book);
    respond(&answer)
}

async fn refund(Held(service): Held<Service>, Path(order): Path<String>, headers: HeaderMap) -> Response {
    let mut book = service.book.lock();
    let id = book.standing_of(&order).map(|charge| charge.id.clone());
    let answer = id.map_or_else(unpaid, |id| book.undo(&id, &header(&headers, "traceparent")));
    drop(book);
    respond(&answer)
}

fn unpaid() -> Answer {
    Answer::problem(404, "Not paid", "Nothing was paid for this order, or it was refunded.")
}
