//! A document as the input of a job: the body of the request goes to the store of documents as it comes.
//!
//! Promise: the job is accepted only once the document is stored whole, with the digest that the caller tells. A caller
//! that breaks off leaves no job, and nothing in the store but what upkeep removes.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use documents::{Owner, Writing};
use flow::definition::Upload;
use flow::document::{StoredDocument, hexadecimal};
use futures_util::StreamExt as _;
use sfv::{BareItem, Dictionary, ListEntry, Parser};
use web::problem::{Kind, Problem};

use crate::content::no_document;
use crate::request_parts::{media_type, unsupported};
use crate::state::Api;

/// The name of the document among those of its job: no other is there yet.
const NAME: &str = "input";
/// The time in which there has to be room for one more upload.
const ROOM_TIMEOUT: Duration = Duration::from_secs(10);
/// Digests of the body that the caller may tell (RFC 9530). The body is the whole representation, in no coding.
const DIGESTS: [HeaderName; 2] = [HeaderName::from_static("content-digest"), HeaderName::from_static("repr-digest")];
const SHA_256: &str = "sha-256";

/// Checks what is known before any of the body is asked for. Returns the most bytes that it may have.
pub(crate) fn check(api: &Api, upload: &Upload, headers: &HeaderMap) -> Result<u64, Problem> {
    let media_type = media_type(headers);
    if !upload.takes(media_type) {
        let taken = format!("The flow takes {}. Send the document itself as the body.", upload.media_types.join(", "));
        return Err(unsupported(media_type).with_remediation(taken));
    }
    let bytes_max = api.documents()?.bytes_max().min(upload.bytes_max.unwrap_or(u64::MAX));
    web::arrival::check(headers, usize::try_from(bytes_max).unwrap_or(usize::MAX))?;
    digests(headers)?;
    Ok(bytes_max)
}

/// Stores the body.
pub(crate) async fn store(
    api: &Api,
    owner: Owner<'_>,
    bytes_max: u64,
    (headers, body): (&HeaderMap, Body),
) -> Result<StoredDocument, Problem> {
    let expected = digests(headers)?;
    let told = body.size_hint().exact();
    let beginning = tokio::time::timeout(ROOM_TIMEOUT, api.documents()?.write(owner, NAME.to_owned())).await;
    let mut writing = beginning.map_err(|_| no_room())?.of_at_most(bytes_max);
    let mut chunks = body.into_data_stream();
    let mut size = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| Problem::new(Kind::BadRequest, "The body did not arrive whole.").caused_by(error))?;
        size += chunk.len() as u64;
        writing.add(chunk).await.map_err(no_document)?;
    }
    if told.is_some_and(|told| told != size) {
        return Err(Problem::new(Kind::BadRequest, "The body did not arrive whole."));
    }
    check_digests(&writing, &expected)?;
    writing.end(media_type(headers)).await.map_err(no_document)
}

fn no_room() -> Problem {
    let detail = "So many documents are being stored that there is no room for another one.";
    Problem::new(Kind::TemporaryReducedCapacity, detail).retry_after_s(1)
}

fn check_digests(writing: &Writing, expected: &[(HeaderName, String)]) -> Result<(), Problem> {
    let own = writing.sha256();
    let Some((name, told)) = expected.iter().find(|(_, told)| *told != own) else { return Ok(()) };
    let detail = format!("The body's SHA-256 is {own}, and `{name}` says {told}.");
    Err(Problem::new(Kind::BadRequest, detail).with_remediation("Send the document again: it was changed on its way."))
}

/// The SHA-256 digests that the caller tells, in hexadecimal digits. Those by other algorithms are passed over.
fn digests(headers: &HeaderMap) -> Result<Vec<(HeaderName, String)>, Problem> {
    let mut found = Vec::new();
    for name in DIGESTS {
        let lines: Vec<&str> = headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()).collect();
        if lines.is_empty() {
            continue;
        }
        let wrong = || {
            let detail = format!("`{name}` is no list of digests, such as sha-256=:{}:", STANDARD.encode([0; 32]));
            Problem::new(Kind::BadRequest, format!("{detail}."))
        };
        let told: Dictionary = Parser::new(&lines.join(",")).parse().map_err(|_| wrong())?;
        match told.iter().find(|(key, _)| key.as_str() == SHA_256).map(|(_, entry)| entry) {
            None => {}
            Some(ListEntry::Item(item)) => match &item.bare_item {
                BareItem::ByteSequence(digest) if digest.len() == 32 => found.push((name, hexadecimal(digest))),
                _ => return Err(wrong()),
            },
            Some(ListEntry::InnerList(_)) => return Err(wrong()),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(name: &'static str, value: &str) -> Result<Vec<(HeaderName, String)>, Kind> {
        let pair = (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        digests(&[pair].into_iter().collect()).map_err(|problem| problem.kind())
    }

    #[test]
    fn digests_are_read_as_rfc_9530_writes_them() {
        let digest = STANDARD.encode([7; 32]);
        for name in ["content-digest", "repr-digest"] {
            let found = read(name, &format!("md5=:AAAA:, sha-256=:{digest}:")).unwrap();
            assert_eq!(found, [(HeaderName::from_static(name), "07".repeat(32))]);
        }
        assert_eq!(read("content-digest", "sha-512=:AAAA:"), Ok(Vec::new()), "another algorithm");
        assert_eq!(read("digest", "sha-256=x"), Ok(Vec::new()), "another header");
        for wrong in [digest.as_str(), "sha-256=:AAAA:", "sha-256=7", "sha-256=(:AAAA:)", "?"] {
            assert_eq!(read("content-digest", wrong), Err(Kind::BadRequest), "{wrong}");
        }
    }
}
