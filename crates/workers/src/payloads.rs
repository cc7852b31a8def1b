//! Documents that HTTP steps send and get: out of the store of documents, and into it.
//!
//! Promise: an answer refers to a document only once that is stored. A worker that dies in between leaves a document
//! that no record refers to, and the step is done again; the upkeep of ingest removes it with all else of its job.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use documents::{Documents, Error, Owner, Writing};
use flow::body::Payload;
use flow::decide::{HttpAnswer, is_document};
use flow::document::{StoredDocument, UNKNOWN};
use flow::slip::Slip;
use futures_util::StreamExt as _;
use outbound::{Body, Large};
use service_kit::stop_at;

/// The body of a call, and the reason for which it broke off, if it did.
pub(crate) struct Sending {
    pub(crate) body: Option<Body>,
    pub(crate) failure: Failure,
}

/// The reason for which the bytes of a document did not come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<OnceLock<Error>>);

impl Failure {
    /// The answer to a call whose body broke off.
    pub(crate) fn answer(&self) -> Option<HttpAnswer> {
        self.0.get().map(|error| failed(error, true))
    }
}

fn owner(slip: &Slip) -> Owner<'_> {
    Owner { tenant: slip.tenant.as_str(), job: slip.job }
}

/// `sent`: the other side may have seen the request.
fn failed(error: &Error, sent: bool) -> HttpAnswer {
    HttpAnswer::StoreFailed { cause: error.to_string(), passing: error.is_passing(), sent }
}

/// The body that is to be sent.
pub(crate) async fn body(
    documents: Option<&Documents>,
    slip: &Slip,
    payload: Option<&Payload>,
) -> Result<Sending, HttpAnswer> {
    let failure = Failure::default();
    let body = match payload {
        None => None,
        Some(Payload::Bytes(bytes)) => Some(Body::Bytes(bytes.clone())),
        Some(Payload::Stored(document)) => {
            let Some(documents) = documents else {
                let cause = "this worker has no store of documents (`documents.url`)".to_owned();
                return Err(HttpAnswer::StoreFailed { cause, passing: true, sent: false });
            };
            let reading = documents.read(owner(slip), document, None).await.map_err(|error| failed(&error, false))?;
            let broken = failure.clone();
            let chunks = reading.map(move |chunk| {
                chunk.map_err(|error| {
                    let told = std::io::Error::other(error.to_string());
                    let _ = broken.0.set(error);
                    told
                })
            });
            Some(Body::Stream(document.size, chunks.boxed()))
        }
    };
    Ok(Sending { body, failure })
}

/// An answer whose body is the output of a step.
pub(crate) struct Keeping<'a> {
    pub(crate) store: &'a Documents,
    pub(crate) slip: &'a Slip,
    /// The name of the document that it becomes.
    pub(crate) name: String,
}

impl Keeping<'_> {
    /// An answer that is here. A document that is too large for a record goes into the store.
    pub(crate) async fn whole(self, answer: HttpAnswer) -> HttpAnswer {
        let inline_bytes_max = self.store.inline_bytes_max();
        match answer {
            HttpAnswer::Response { status, retry_after, content_type, headers, body }
                if (200..300).contains(&status)
                    && body.len() > inline_bytes_max
                    && is_document(content_type.as_deref(), &body) =>
            {
                let mut writing = self.begin().await;
                let stored = match writing.add(Bytes::from(body)).await {
                    Ok(()) => end(writing, content_type.as_deref()).await,
                    Err(error) => Err(error),
                };
                kept((status, retry_after, headers), stored)
            }
            other => other,
        }
    }

    /// An answer that is too large to be here becomes a document, whatever its type.
    pub(crate) async fn large(self, mut large: Large) -> HttpAnswer {
        let mut writing = self.begin().await;
        let stored = loop {
            match large.chunk().await {
                Ok(Some(chunk)) => {
                    if let Err(error) = writing.add(chunk).await {
                        break Err(error);
                    }
                }
                Ok(None) => break end(writing, large.content_type.as_deref()).await,
                Err(answer) => return answer,
            }
        };
        kept((large.status, large.retry_after, large.headers), stored)
    }

    async fn begin(self) -> Writing {
        self.store.write(owner(self.slip), self.name).await
    }
}

async fn end(writing: Writing, content_type: Option<&str>) -> Result<StoredDocument, Error> {
    let stored = writing.end(content_type.unwrap_or(UNKNOWN)).await;
    stop_at("workers.document-stored");
    stored
}

type Head = (u16, Option<String>, Vec<(String, String)>);

fn kept((status, retry_after, headers): Head, stored: Result<StoredDocument, Error>) -> HttpAnswer {
    match stored {
        Ok(document) => HttpAnswer::Kept { status, retry_after, headers, document },
        Err(Error::TooLarge(limit_bytes)) => HttpAnswer::TooLarge { status, limit_bytes, has_store: true },
        // Another attempt under the same key is answered with the same.
        Err(error) => HttpAnswer::StoreFailed { cause: error.to_string(), passing: true, sent: true },
    }
}
