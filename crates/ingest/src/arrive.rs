//! The arrival of a request for a job: what can be refused is refused before its body is read; then the body is read
//! into memory, or, where the flow takes documents, into their store.

use axum::RequestExt;
use axum::body::{Bytes, HttpBody};
use axum::extract::Request;
use axum::http::HeaderMap;
use documents::Owner;
use flow::definition::Upload;
use flow::document::StoredDocument;
use web::arrival::Pace;
use web::problem::Problem;

use crate::limits::Of;
use crate::request_parts::{Start, check_media_type, idempotency_key, unreadable};
use crate::state::Api;
use crate::upload;
use crate::webhooks::of_job;

/// The request with its body, which counts before it is read, if its length is told. A caller who has announced it
/// (`Expect: 100-continue`) need not send one that would be refused.
pub(crate) async fn arrived(
    api: &Api,
    of: Of<'_>,
    (upload, owner): (Option<&Upload>, Owner<'_>),
    start: &Start,
    mut request: Request,
) -> Result<(HeaderMap, Arrived), Problem> {
    api.quotas.requests(of, 1)?;
    start.after_ms(api.clock.now_ms())?;
    let headers = request.headers();
    of_job::asked(headers, of.0, &api.guard)?;
    let bytes_max = match upload {
        Some(upload) => {
            // A large body is not taken for a request that is refused in any case.
            idempotency_key(headers, api.config.idempotency_key_required)?;
            Some(upload::check(api, upload, headers)?)
        }
        None => {
            web::arrival::check(headers, api.config.body_bytes_max)?;
            check_media_type(headers)?;
            None
        }
    };
    let told = request.body().size_hint().exact();
    if let Some(bytes) = told {
        api.quotas.bytes(of, bytes)?;
    }
    let headers = std::mem::take(request.headers_mut());
    if let Some(bytes_max) = bytes_max {
        if let Some(pace) = request.extensions().get::<Pace>() {
            pace.let_it_take_its_time();
        }
        let document = upload::store(api, owner, bytes_max, (&headers, request.into_body())).await?;
        if told.is_none() {
            api.quotas.bytes(of, document.size)?;
        }
        return Ok((headers, Arrived::Document(document)));
    }
    let body = request.extract::<Bytes, _>().await.map_err(|rejection| unreadable(&rejection))?;
    if told.is_none() {
        api.quotas.bytes(of, body.len() as u64)?;
    }
    Ok((headers, Arrived::Json(body)))
}

/// The input of a job.
pub(crate) enum Arrived {
    Json(Bytes),
    /// It is stored already, as a document of the job that is going to be.
    Document(StoredDocument),
}
