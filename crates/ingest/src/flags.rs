//! Flags of flows' own addresses, as operators see and change them: `GET /v1/flags`, `GET` and `PUT /v1/flags/{flow}`,
//! its history, and the way back. Every change is a version with who, when and why; none is ever changed.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use events::time::rfc3339;
use flow::definition::{Definition, InputError};
use flow::flags::{ALL_BASIS_POINTS, By, Flags, Rules};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value, json};
use store::flags::{FlagsVersion, NewFlags};
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::body::object;
use crate::if_match;
use crate::in_time::{STORE_TIMEOUT, in_time, unanswered};
use crate::query::whole_of;
use crate::request_parts::unreadable;
use crate::state::Api;
use crate::violations::violations;

/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1_000;
/// Versions in one answer.
const VERSIONS_MAX: u32 = 100;
/// Attempts of a rollback that meets other changes.
const ATTEMPTS: usize = 3;

/// The body of a `PUT`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    flags: Value,
    reason: String,
}

/// The body of a rollback.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    /// 0: no flags.
    #[serde(deserialize_with = "version")]
    to: i64,
    reason: String,
}

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let number = Number::deserialize(deserializer)?;
    whole_of(&number).ok_or_else(|| D::Error::custom(format!("`to` is a version, such as 3, not {number}")))
}

/// Which part of a history is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Before {
    before: Option<i64>,
}

/// `GET /v1/flags`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
) -> Result<Json<Value>, Problem> {
    api.ready()?;
    context.caller.require(Scope::Operate)?;
    let stored = in_time(STORE_TIMEOUT, store::flags::all(&api.pool), unanswered).await?;
    let of_flow = |flow: &Definition| stored.iter().find(|stored| stored.flow == flow.name());
    let routed = api.catalog.list().into_iter().filter(|flow| flow.route().is_some());
    let listed: Result<Vec<Value>, Problem> = routed.map(|flow| shown(&flow, of_flow(&flow))).collect();
    Ok(Json(json!({ "flags": listed? })))
}

/// `GET /v1/flags/{flow}`
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(flow): Path<String>,
    Extension(context): Extension<RequestContext>,
) -> Result<Response, Problem> {
    context.caller.require(Scope::Operate)?;
    let flow = routed(&api, &flow)?;
    let present = present(&api, flow.name()).await?;
    tagged(&flow, present.as_ref())
}

/// `PUT /v1/flags/{flow}`
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    Path(flow): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    context.caller.require(Scope::Operate)?;
    api.require_deployment(&context.caller, "Flags")?;
    let flow = routed(&api, &flow)?;
    let change: Change = object(&headers, &body, r#"The body is `{"flags": {...}, "reason": "..."}`"#)?;
    let reason = reason(&change.reason)?;
    check(&flow, &change.flags)?;
    let wanted = if_match::required(&headers)?;
    let document = change.flags.to_string();
    let new = NewFlags {
        flow: flow.name(),
        document: &document,
        changed_by: &context.caller.subject,
        reason: &reason,
        rollback_to: None,
    };
    let before = match wanted {
        Some(version) => version,
        None => present(&api, flow.name()).await?.map_or(0, |present| present.version),
    };
    match add(&api, new, before).await? {
        Some(added) => tagged(&flow, Some(&added)),
        None => Err(Problem::new(Kind::PreconditionFailed, format!("Version {before} is not the present one."))),
    }
}

/// `GET /v1/flags/{flow}/history`
pub(crate) async fn history(
    State(api): State<Arc<Api>>,
    Path(flow): Path<String>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<Before>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    context.caller.require(Scope::Operate)?;
    let Query(Before { before }) = query.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    let flow = routed(&api, &flow)?;
    let reading = store::flags::history(&api.pool, flow.name(), before, VERSIONS_MAX);
    let versions = in_time(STORE_TIMEOUT, reading, unanswered).await?;
    let next = versions.last().filter(|_| versions.len() == VERSIONS_MAX as usize).map(|last| last.version);
    let listed: Result<Vec<Value>, Problem> = versions.iter().map(told).collect();
    Ok(Json(json!({ "flow": flow.name(), "versions": listed?, "before": next })))
}

/// `POST /v1/flags/{flow}/rollback`
pub(crate) async fn roll_back(
    State(api): State<Arc<Api>>,
    Path(flow): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    context.caller.require(Scope::Operate)?;
    api.require_deployment(&context.caller, "Flags")?;
    let flow = routed(&api, &flow)?;
    let Rollback { to, reason: why } = object(&headers, &body, r#"The body is `{"to": 3, "reason": "..."}`"#)?;
    let reason = reason(&why)?;
    let document = document_of(&api, &flow, to).await?;
    let new = NewFlags {
        flow: flow.name(),
        document: &document,
        changed_by: &context.caller.subject,
        reason: &reason,
        rollback_to: Some(to),
    };
    // A way back does not depend on what is there now.
    for _ in 0..ATTEMPTS {
        let before = present(&api, flow.name()).await?.map_or(0, |present| present.version);
        if let Some(added) = add(&api, new, before).await? {
            return tagged(&flow, Some(&added));
        }
    }
    Err(Problem::new(Kind::PreconditionFailed, "Others change the flags at this moment."))
}

/// The document of an earlier version.
async fn document_of(api: &Api, flow: &Definition, version: i64) -> Result<String, Problem> {
    if version == 0 {
        return Ok("{}".to_owned());
    }
    let reading = store::flags::history(&api.pool, flow.name(), version.checked_add(1), 1);
    let found = in_time(STORE_TIMEOUT, reading, unanswered).await?.pop();
    let found = found.filter(|found| found.version == version).ok_or_else(|| {
        Problem::new(Kind::UnknownFlagsVersion, format!("The flags of `{}` have no version {version}.", flow.name()))
    })?;
    // What was right for an earlier version of the flow may be wrong for this one.
    check(flow, &parsed(&found.document)?)?;
    Ok(found.document)
}

async fn add(api: &Api, new: NewFlags<'_>, present: i64) -> Result<Option<FlagsVersion>, Problem> {
    let unavailable = || {
        let detail = "The database did not answer, so it is not certain that the flags are changed. Sending the same \
                      request again is safe.";
        Problem::new(Kind::NotReady, detail).retry_after_s(1)
    };
    let added = in_time(STORE_TIMEOUT, store::flags::add(&api.pool, new, present), unavailable).await?;
    // Other instances hear of it; this one need not wait for that.
    api.flags.learn(added.clone());
    Ok(added)
}

async fn present(api: &Api, flow: &str) -> Result<Option<FlagsVersion>, Problem> {
    Ok(in_time(STORE_TIMEOUT, store::flags::history(&api.pool, flow, None, 1), unanswered).await?.pop())
}

/// The flow, which has an address of its own.
fn routed(api: &Api, flow: &str) -> Result<Definition, Problem> {
    api.ready()?;
    let Some(definition) = api.catalog.active(flow) else {
        return Err(Problem::new(Kind::UnknownFlow, api.catalog.no_such_flow(flow)));
    };
    if definition.route().is_none() {
        let detail = format!("The flow `{flow}` has no `route`: there is nothing that flags could change.");
        return Err(Problem::new(Kind::UnknownFlow, detail));
    }
    Ok(definition)
}

fn reason(text: &str) -> Result<String, Problem> {
    let reason = text.replace(char::is_control, " ").trim().to_owned();
    if (1..=REASON_BYTES_MAX).contains(&reason.len()) {
        return Ok(reason);
    }
    Err(Problem::new(Kind::BadRequest, format!("`reason` has 1 to {REASON_BYTES_MAX} bytes: others will read it.")))
}

/// Refuses flags that are none, or that cannot hold for this flow.
fn check(flow: &Definition, document: &Value) -> Result<(), Problem> {
    let flags = Flags::read(document).map_err(|problems| {
        let told = problems.into_iter().map(|problem| {
            let expected = problem.expected.map(|expected| format!("; expected {expected}")).unwrap_or_default();
            let hint = problem.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            violation("/flags", format!("{}{expected}{hint}", problem.message))
        });
        violations("The change", told.collect())
    })?;
    let Some(durable) = flags.durable.filter(|_| !flow.has_upstream()) else { return Ok(()) };
    if durable.basis_points == ALL_BASIS_POINTS && durable.deny.is_empty() {
        return Ok(());
    }
    let detail = format!("`{}` has no `upstream`: every request becomes a job", flow.name());
    Err(violations("The change", vec![violation("/flags/durable", detail)]))
}

fn violation(pointer: &str, detail: String) -> InputError {
    InputError { pointer: pointer.to_owned(), detail }
}

fn parsed(document: &str) -> Result<Value, Problem> {
    serde_json::from_str(document).map_err(Problem::internal)
}

fn tagged(flow: &Definition, version: Option<&FlagsVersion>) -> Result<Response, Problem> {
    let tag = if_match::tag(version.map_or(0, |version| version.version))?;
    Ok(([(header::ETAG, tag)], Json(shown(flow, version)?)).into_response())
}

/// The flags of a flow, and what holds because of them.
fn shown(flow: &Definition, version: Option<&FlagsVersion>) -> Result<Value, Problem> {
    let mut body = match version {
        Some(version) => told(version)?,
        None => json!({ "version": 0, "flags": {} }),
    };
    // This instance may know of the version later than others do, so it is read anew.
    let flags = Flags::read(&body["flags"]).unwrap_or_default();
    let rules = Rules::of(flow, &flags);
    let durable = rules.durable();
    let by = match &durable.by {
        By::Key => "key".to_owned(),
        By::Tenant => "tenant".to_owned(),
        By::Header(name) => format!("header:{name}"),
    };
    body["flow"] = flow.name().into();
    body["route"] = flow.route().map(ToString::to_string).into();
    body["effective"] = json!({
        "durable_percent": f64::from(durable.basis_points) / 100.0,
        "by": by,
        "answer": rules.answers().as_str(),
        "hold_ms": rules.hold_ms(),
    });
    Ok(body)
}

fn told(version: &FlagsVersion) -> Result<Value, Problem> {
    let mut body = json!({
        "version": version.version,
        "flags": parsed(&version.document)?,
        "changed_by": version.changed_by,
        "changed_at": rfc3339(version.changed_at_ms),
        "reason": version.reason,
    });
    if let Some(to) = version.rollback_to {
        body["rollback_to"] = to.into();
    }
    Ok(body)
}
