//! `POST /v1/flows/{flow}/jobs:batch`: many jobs of a flow in one request. Its items are the lines of the body
//! (NDJSON), streamed both ways, or one JSON array.
//!
//! Each item is accepted, or refused with its problem, by itself, in the transactions of the group commit. With
//! `?atomic=true` all are stored in one transaction, or none.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use events::command::Callback;
use flow::definition::Definition;
use flow::id::JobId;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use store::acceptances::{Accepted, NewAcceptance};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::codec::AnyDelimiterCodecError;
use web::caller::Scope;
use web::context::{RequestContext, clean_correlation_id};
use web::problem::{Kind, Problem};

use crate::body::object_of_item;
use crate::limits::Of;
use crate::plan::JobRequest;
use crate::request_parts::{self, Start};
use crate::state::Api;
use crate::webhooks::of_job;
use crate::{accept, answer, idempotency, spans, submit};

mod lines;

use self::lines::{lines, unreadable};

/// The path, for the frame, which takes larger bodies here.
pub(crate) const PATH: &str = "/v1/flows/{flow}/jobs:batch";
/// The bytes of one request.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The bytes of a request that is read whole: an array, or an atomic one.
const WHOLE_BYTES_MAX: usize = 8 * 1024 * 1024;
const ITEMS_MAX: usize = 10_000;
/// Refused items that the answer to an atomic request shows.
const REFUSED_SHOWN_MAX: usize = 100;
/// Items that are being stored at once: as many as one transaction takes.
const STORED_AT_ONCE: usize = 500;
const ITEM: &str =
    r#"An item is `{"input": ..., "idempotency_key"?, "correlation_id"?, "delay"?, "start_at"?, "callback"?}`"#;
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// What the caller asks of the whole.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Whole {
    /// All or nothing.
    #[serde(default)]
    atomic: bool,
}

/// One item, as callers write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    input: Value,
    idempotency_key: Option<String>,
    correlation_id: Option<String>,
    delay: Option<String>,
    /// RFC 3339.
    start_at: Option<String>,
    #[serde(default, deserialize_with = "events::command::callback")]
    callback: Option<Callback>,
}

/// How items and answers are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    Array,
}

/// What the items of one request have in common.
struct Batch {
    api: Arc<Api>,
    definition: Definition,
    context: RequestContext,
    /// The address at which the caller reaches the API, without a slash at its end.
    public_url: String,
    /// By idempotency key.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// `POST /v1/flows/{flow}/jobs:batch`
pub(crate) async fn submit(
    State(api): State<Arc<Api>>,
    Path(flow): Path<String>,
    Extension(context): Extension<RequestContext>,
    whole: Result<Query<Whole>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    api.ready()?;
    context.caller.require(Scope::JobsSubmit)?;
    let Query(whole) = whole.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    let Some(definition) = api.catalog.active(&flow) else {
        return Err(Problem::new(Kind::UnknownFlow, api.catalog.no_such_flow(&flow)));
    };
    refuse_key(request.headers())?;
    let form = form(&request)?;
    let public_url = api.public_url.for_request(request.headers());
    let batch = Arc::new(Batch { api, definition, context, public_url, turns: Mutex::default() });
    let answer = match form {
        Form::Lines if !whole.atomic => Ok(stream_answers(Arc::clone(&batch), request.into_body())),
        _ => answer_whole(&batch, (form, whole), request).await,
    };
    batch.api.quotas.tell(batch.of(), answer)
}

/// Answers once all of it was read.
async fn answer_whole(batch: &Batch, (form, whole): (Form, Whole), request: Request) -> Result<Response, Problem> {
    let _room = room(&batch.api, request.headers())?;
    let items = read_whole(form, request.into_body()).await?;
    let answers = match whole.atomic {
        true => batch.accept_all(&items).await?,
        false => {
            let each = |(index, item): (usize, Bytes)| async move { batch.accept_one(index, Ok(&item)).await };
            stream::iter(items.into_iter().enumerate()).map(each).buffered(STORED_AT_ONCE).collect().await
        }
    };
    Ok(match form {
        Form::Array => (StatusCode::ACCEPTED, axum::Json(json!({ "items": answers }))).into_response(),
        Form::Lines => {
            let lines: String = answers.iter().map(|answer| format!("{answer}\n")).collect();
            (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, NDJSON)], lines).into_response()
        }
    })
}

/// A key of the whole would stand for no job.
fn refuse_key(headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(request_parts::IDEMPOTENCY_KEY) {
        return Ok(());
    }
    let detail = "A batch has no Idempotency-Key of its own: each of its jobs has one.";
    let remediation = "Give each item an `idempotency_key`, and leave the header out.";
    Err(Problem::new(Kind::BadRequest, detail).with_remediation(remediation))
}

fn form(request: &Request) -> Result<Form, Problem> {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match media_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/x-ndjson" | "application/jsonl" => Ok(Form::Lines),
        "application/json" => Ok(Form::Array),
        other => Err(Problem::new(Kind::UnsupportedMediaType, format!("The request's Content-Type is `{other}`."))
            .with_remediation("Send one item a line as `application/x-ndjson`, or an array as `application/json`.")),
    }
}

/// Answers each line when its item is stored, while later ones still arrive. Answers come in the order of the items.
fn stream_answers(batch: Arc<Batch>, body: Body) -> Response {
    let line_bytes_max = batch.api.config.body_bytes_max;
    let each = move |(index, line): (usize, Result<Bytes, AnyDelimiterCodecError>)| {
        let batch = Arc::clone(&batch);
        async move {
            let item = line.map_err(|error| unreadable(&error, line_bytes_max));
            batch.accept_one(index, item.as_deref().map_err(Problem::clone)).await
        }
    };
    let answers = lines(body, line_bytes_max)
        .enumerate()
        .take(ITEMS_MAX + 1)
        .map(each)
        .buffered(STORED_AT_ONCE)
        .map(|answer| Ok::<_, io::Error>(Bytes::from(format!("{answer}\n"))));
    (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, NDJSON)], Body::from_stream(answers)).into_response()
}

/// The unit in which room is given.
const KIB: usize = 1_024;

/// The room for all batches that are read whole, in KiB: that of one at least.
pub(crate) fn room_kib(bytes_max: usize) -> usize {
    (bytes_max.max(WHOLE_BYTES_MAX) / KIB).min(Semaphore::MAX_PERMITS)
}

/// Takes the room that the body will need, before anything of it is read, until it is stored.
fn room(api: &Api, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, Problem> {
    let told = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let bytes = told.unwrap_or(WHOLE_BYTES_MAX).min(WHOLE_BYTES_MAX);
    let kib = u32::try_from(bytes.div_ceil(KIB).max(1)).unwrap_or(u32::MAX);
    Arc::clone(&api.whole_batches).try_acquire_many_owned(kib).map_err(|_| {
        metrics::counter!("meanwhile_batches_refused_total").increment(1);
        let detail = "Too many batches are being read whole at this moment.";
        let remediation = "Send it again after the time in `Retry-After`, or one item a line as `application/x-ndjson` \
                           without `atomic`, which is not read whole.";
        Problem::new(Kind::TemporaryReducedCapacity, detail).with_remediation(remediation).retry_after_s(1)
    })
}

async fn read_whole(form: Form, body: Body) -> Result<Vec<Bytes>, Problem> {
    let too_large = |_| {
        let detail = format!("The body could not be read, or has more than {WHOLE_BYTES_MAX} bytes.");
        let remediation = "Send smaller batches, or one item a line as `application/x-ndjson` without `atomic`.";
        Problem::new(Kind::PayloadTooLarge, detail).with_remediation(remediation)
    };
    let body = to_bytes(body, WHOLE_BYTES_MAX).await.map_err(too_large)?;
    let items: Vec<Bytes> = match form {
        Form::Lines => {
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
            lines.map(|line| body.slice_ref(line)).collect()
        }
        Form::Array => {
            let items: Vec<&RawValue> =
                serde_json::from_slice(&body).map_err(|error| request_parts::bad_json(&error))?;
            items.iter().map(|item| body.slice_ref(item.get().as_bytes())).collect()
        }
    };
    if items.len() > ITEMS_MAX {
        return Err(too_many("None was read."));
    }
    Ok(items)
}

fn too_many(consequence: &str) -> Problem {
    let detail = format!("A batch has {ITEMS_MAX} items at most. {consequence}");
    Problem::new(Kind::PayloadTooLarge, detail).with_remediation("Send smaller batches.")
}

impl Batch {
    /// The answer for one item, which is stored then, or never.
    async fn accept_one(&self, index: usize, item: Result<&[u8], Problem>) -> Value {
        let accepting = async {
            if index >= ITEMS_MAX {
                return Err(too_many("The rest was not read."));
            }
            let item = item?;
            self.api.quotas.requests(self.of(), 1)?;
            self.api.quotas.bytes(self.of(), item.len() as u64)?;
            self.api.check_capacity(&self.definition)?;
            let acceptance = self.plan(item)?;
            let job = acceptance.acceptance.job;
            let turn = acceptance.idempotency.as_ref().map(|own| self.turn(&own.key));
            let _turn = match turn {
                Some(turn) => Some(turn.lock_owned().await),
                None => None,
            };
            let mut admission = self.api.admit(self.of(), &[job])?;
            let outcome = self.api.acceptor.accept(acceptance).await;
            admission.learn(job, outcome.as_ref());
            self.stored(job, outcome.map_err(submit::refused)?)
        };
        match accepting.await {
            Ok((job, is_replayed)) => self.accepted(index, job, is_replayed),
            Err(problem) => self.refused(index, &problem),
        }
    }

    /// The answers for all items, which are stored in one transaction.
    ///
    /// # Errors
    /// Nothing is stored: some items cannot be (422), all together are too many (429), or Postgres did not answer.
    async fn accept_all(&self, items: &[Bytes]) -> Result<Vec<Value>, Problem> {
        self.api.quotas.requests(self.of(), items.len())?;
        self.api.quotas.bytes(self.of(), items.iter().map(|item| item.len() as u64).sum())?;
        self.api.check_capacity(&self.definition)?;
        let planned: Vec<_> = items.iter().map(|item| self.plan(item)).collect();
        let acceptances: Vec<NewAcceptance> = self.all_or_none(planned)?;
        let jobs: Vec<JobId> = acceptances.iter().map(|acceptance| acceptance.acceptance.job).collect();
        let mut admission = self.api.admit(self.of(), &jobs)?;
        let outcomes = self.api.acceptor.accept_all(&self.api.pool, acceptances).await;
        if let Err(error) = &outcomes {
            jobs.iter().for_each(|job| admission.learn(*job, Err(error)));
        }
        let outcomes: Vec<_> = jobs.into_iter().zip(outcomes.map_err(submit::refused)?).collect();
        let stored = outcomes.iter().map(|(job, outcome)| self.stored(*job, *outcome)).collect();
        let stored = self.all_or_none(stored)?;
        outcomes.iter().for_each(|(job, outcome)| admission.learn(*job, Ok(outcome)));
        let answers = stored.into_iter().enumerate();
        Ok(answers.map(|(index, (job, is_replayed))| self.accepted(index, job, is_replayed)).collect())
    }

    /// What is known of all items, or the problem that names those of which it is not.
    fn all_or_none<T>(&self, of_items: Vec<Result<T, Problem>>) -> Result<Vec<T>, Problem> {
        let (mut good, mut refused) = (Vec::with_capacity(of_items.len()), Vec::new());
        for (index, of_item) in of_items.into_iter().enumerate() {
            match of_item {
                Ok(of_item) => good.push(of_item),
                Err(problem) => refused.push(self.refused(index, &problem)),
            }
        }
        if refused.is_empty() { Ok(good) } else { Err(not_accepted(refused)) }
    }

    /// The tenant and the flow whose limits hold.
    fn of(&self) -> Of<'_> {
        (&self.context.caller.tenant, self.definition.name())
    }

    /// Items with the same key take turns, so that a later one finds the job of the first.
    fn turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.turns.lock().entry(key.to_owned()).or_default())
    }

    fn plan(&self, item: &[u8]) -> Result<NewAcceptance, Problem> {
        let item: Item = object_of_item(item, ITEM)?;
        let (api, now_ms) = (&self.api, self.api.clock.now_ms());
        let idempotency_key = item.idempotency_key;
        match &idempotency_key {
            Some(key) => idempotency::check(key).map_err(request_parts::bad_key)?,
            None if api.config.idempotency_key_required => {
                return Err(Problem::new(Kind::IdempotencyKeyMissing, "The item has no `idempotency_key`."));
            }
            None => {}
        }
        let start = Start { delay: item.delay, start_at: item.start_at };
        let start_after_ms = start.after_ms(now_ms)?;
        let tenant = &self.context.caller.tenant;
        let webhook = item.callback.map(|callback| of_job::checked(callback, tenant, &api.guard)).transpose()?;
        let correlation_id = item.correlation_id.as_deref().and_then(clean_correlation_id);
        let span = spans::item(self.definition.name(), &self.context.trace);
        let request = JobRequest {
            job: JobId::new(api.ids.uuid_v7(now_ms)),
            tenant: tenant.clone(),
            submitted_by: self.context.caller.subject.clone(),
            input: item.input,
            fallback_key: None,
            idempotency_key,
            correlation_id: correlation_id.unwrap_or_else(|| self.context.correlation_id.clone()),
            trace: span.carry_on(None, &api.ids),
            now_ms,
            retry_of: None,
            start_after_ms,
            start: start.written(),
            webhook,
        };
        span.text("meanwhile.job.id", request.job);
        api.planner()?.plan(&self.definition, request).map_err(submit::schema_violation)
    }

    /// The job that an item stands for, and whether an earlier request made it.
    fn stored(&self, job: JobId, outcome: Accepted) -> Result<(JobId, bool), Problem> {
        match outcome {
            Accepted::New => {
                accept::count(self.definition.name());
                Ok((job, false))
            }
            Accepted::Replayed { job, same_fingerprint: true } => Ok((job, true)),
            Accepted::Replayed { job, same_fingerprint: false } => Err(submit::key_reused(job)),
        }
    }

    fn accepted(&self, index: usize, job: JobId, is_replayed: bool) -> Value {
        let prefix = self.api.public_url.prefix();
        let mut answer = json!({
            "index": index,
            "status": StatusCode::ACCEPTED.as_u16(),
            "id": job.to_string(),
            "links": answer::links(prefix, job),
        });
        if is_replayed {
            answer["replayed"] = true.into();
        }
        answer
    }

    fn refused(&self, index: usize, problem: &Problem) -> Value {
        let document = problem.document(&self.public_url);
        json!({ "index": index, "status": problem.status().as_u16(), "problem": document })
    }
}

fn not_accepted(refused: Vec<Value>) -> Problem {
    let detail = format!("{} of the items cannot be accepted, so none was.", refused.len());
    let shown: Vec<Value> = refused.into_iter().take(REFUSED_SHOWN_MAX).collect();
    Problem::new(Kind::BatchNotAccepted, detail).with("items", shown)
}
