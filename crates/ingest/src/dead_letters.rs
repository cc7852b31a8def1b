//! `/v1/dead-letters`: what waits for an operator. Dead letters are records that nobody could read or handle; parked
//! jobs are listed with them.
//!
//! Invariant: a dead letter is settled once. The row that says so and the record that goes back are committed together.

mod id;
mod list;
mod redrive;
mod redrive_many;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bus::{Inbound, TopicPartition};
use serde::Deserialize;
use serde_json::Value;
use store::letters::{self, Action, Letter, Settlement, Whose};
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

pub(crate) use crate::dead_letters::redrive::REDRIVES_MAX;

use crate::body::{object, object_if_any};
use crate::dead_letters::id::Id;
use crate::dead_letters::list::{Filter, Listing};
use crate::in_time::{self, STORE_TIMEOUT};
use crate::request_parts::unreadable;
use crate::state::Api;

/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// `GET /v1/dead-letters`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    context.caller.require(Scope::Operate)?;
    let Query(filter) = query.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    let listing = Listing::read(&api, whose(&api, &context), &filter).await?;
    Ok(Json(listing.document(&api, whose(&api, &context), &filter).await?).into_response())
}

/// `GET /v1/dead-letters/{id}`: with the record itself.
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(text): Path<String>,
    Extension(context): Extension<RequestContext>,
) -> Result<Response, Problem> {
    context.caller.require(Scope::Operate)?;
    let letter = find(&api, &context, &text).await?;
    let mut document = list::document(&letter);
    let record = record(&api, &letter).await?;
    document["record"] = match &record {
        Some(record) => list::record_document(&api, &letter, record).await,
        None => Value::Null,
    };
    Ok(Json(document).into_response())
}

/// `POST /v1/dead-letters/{id}/redrive`
pub(crate) async fn redrive(
    State(api): State<Arc<Api>>,
    Path(text): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    context.caller.require(Scope::Operate)?;
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    let order: redrive::Order = object_if_any(&headers, &body, redrive::FORM)?;
    let letter = find(&api, &context, &text).await?;
    let redriven = redrive::one(&api, &context, &letter, &order).await?;
    Ok((StatusCode::ACCEPTED, Json(redriven)).into_response())
}

/// `POST /v1/dead-letters:redrive`
pub(crate) async fn redrive_many(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    context.caller.require(Scope::Operate)?;
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    let order: redrive_many::Order = object(&headers, &body, redrive_many::FORM)?;
    Ok(Json(redrive_many::run(&api, &context, &order).await?).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drop {
    reason: String,
}

/// `DELETE /v1/dead-letters/{id}?reason=...`
pub(crate) async fn drop(
    State(api): State<Arc<Api>>,
    Path(text): Path<String>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<Drop>, QueryRejection>,
) -> Result<StatusCode, Problem> {
    context.caller.require(Scope::Operate)?;
    let Query(Drop { reason }) = query.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX {
        let detail = format!("`reason` says in 1 to {REASON_BYTES_MAX} bytes why the record is not wanted any more.");
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    let letter = find(&api, &context, &text).await?;
    let dropped = Settlement { action: Action::Dropped, reason: Some(&reason), edit: None };
    if !settled(&api, &letter, dropped, &[]).await? {
        let now = find(&api, &context, &text).await?;
        redrive::refuse_other_end(&now, Action::Dropped)?;
    }
    tracing::info!(id = %Id::of(&letter), class = letter.letter.class, reason, "dead letter dropped");
    Ok(StatusCode::NO_CONTENT)
}

/// The dead letter of this id, or the problem 404.
async fn find(api: &Api, context: &RequestContext, text: &str) -> Result<Letter, Problem> {
    let unknown = || Problem::new(Kind::UnknownDeadLetter, format!("There is no dead letter `{text}`."));
    let Id(place) = text.parse().map_err(|()| unknown())?;
    let topic = api.planner()?.writer.topics.dead_letters();
    let found = in_time(letters::find(&api.pool, &whose(api, context), &topic, place)).await?;
    found.ok_or_else(unknown)
}

/// The tenant whose dead letters the caller sees. Those of no tenant are the deployment's.
fn whose(api: &Api, context: &RequestContext) -> Whose {
    Whose { tenant: context.caller.tenant.clone(), deployment: api.config.default_tenant.clone() }
}

/// The record itself; none if Kafka does not keep it any more.
async fn record(api: &Api, letter: &Letter) -> Result<Option<Inbound>, Problem> {
    let place = TopicPartition::new(&letter.letter.topic, letter.letter.partition);
    let read = api.records.read(place, letter.letter.offset).await;
    read.map_err(|error| Problem::new(Kind::NotReady, "Kafka does not answer.").caused_by(error).retry_after_s(1))
}

/// Settles a dead letter, and sends what it becomes. False if it was settled before.
async fn settled(
    api: &Api,
    letter: &Letter,
    settlement: Settlement<'_>,
    records: &[events::Record],
) -> Result<bool, Problem> {
    let (topic, Id(place)) = (&letter.letter.topic, Id::of(letter));
    in_time(async {
        let mut tx = api.pool.begin().await?;
        if !letters::settle(&mut tx, topic, place, settlement).await? {
            return Ok(false);
        }
        store::outbox::append(&mut tx, records).await?;
        tx.commit().await?;
        Ok(true)
    })
    .await
}

async fn in_time<T>(asking: impl Future<Output = Result<T, store::Error>>) -> Result<T, Problem> {
    let unavailable =
        || Problem::new(Kind::NotReady, "The database did not answer. Asking again is safe.").retry_after_s(1);
    in_time::in_time(STORE_TIMEOUT, asking, unavailable).await
}
