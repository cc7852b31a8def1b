//! The answer of a job that succeeded, as its caller sees it: status, headers and body. It is decided once, by the
//! worker that ends the job, and carried by the job's last event.
//!
//! A body that follows from the job's result is not carried beside it. One that differs is: as a value, or byte for
//! byte as a service has sent it.

use serde_json::{Value, json};

use crate::body::{Payload, payload};
use crate::document::{Document, StoredDocument, UNKNOWN};

/// The media type of values that say nothing else.
const JSON: &str = "application/json";
const CONTENT_TYPE: &str = "content-type";

/// The answer of a job that succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers, names in lower case, each at most once.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// The job's result, written as the answer's content type says.
    OfResult,
    /// This value in place of the result.
    Value(Value),
    /// These bytes, as a service has sent them.
    Bytes(Vec<u8>),
}

/// The answer with which a step was done, without its body, which is the step's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepAnswer {
    /// The step's id.
    pub step: String,
    /// The visit in which it was done.
    pub visit: u32,
    /// The HTTP status.
    pub status: u16,
    /// The headers that the step keeps, by the names that expressions have for them.
    pub headers: Vec<(String, String)>,
}

/// A body to be served, and its media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The media type, as a header has it.
    pub media_type: String,
    /// The bytes, or where they lie.
    pub payload: Payload,
}

impl Content {
    const fn of_bytes(media_type: String, bytes: Vec<u8>) -> Self {
        Self { media_type, payload: Payload::Bytes(bytes) }
    }
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Everything but bytes, as the event carries it: `{status, headers: [[name, value], …], body?}`.
    pub fn head(&self) -> Value {
        let mut head = json!({ "status": self.status, "headers": self.headers });
        if let Body::Value(value) = &self.body {
            head["body"] = value.clone();
        }
        head
    }

    /// The bytes that the event carries beside it.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Bytes(bytes) => Some(bytes),
            Body::OfResult | Body::Value(_) => None,
        }
    }

    /// The reverse of [`Answer::head`] and [`Answer::bytes`]; none where it cannot be read.
    pub fn from_parts(head: &Value, bytes: Option<Vec<u8>>) -> Option<Self> {
        let header = |pair: &Value| Some((pair.get(0)?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()));
        Some(Self {
            status: head.get("status")?.as_u64().and_then(|status| u16::try_from(status).ok())?,
            headers: head.get("headers")?.as_array()?.iter().map(header).collect::<Option<_>>()?,
            body: match (bytes, head.get("body")) {
                (Some(bytes), _) => Body::Bytes(bytes),
                (None, Some(value)) => Body::Value(value.clone()),
                (None, None) => Body::OfResult,
            },
        })
    }
}

/// The body of a job's answer. Without an answer it is the result: a document as its bytes, anything else as JSON.
pub fn content(answer: Option<&Answer>, result: &Value) -> Content {
    let declared = answer.and_then(|answer| answer.header(CONTENT_TYPE));
    let value = match answer.map(|answer| &answer.body) {
        None | Some(Body::OfResult) => result,
        Some(Body::Value(value)) => value,
        Some(Body::Bytes(bytes)) => {
            return Content::of_bytes(declared.unwrap_or(UNKNOWN).to_owned(), bytes.clone());
        }
    };
    if let Some(document) = Document::of(value) {
        let media_type = declared.unwrap_or(document.media_type()).to_owned();
        return Content::of_bytes(media_type, document.into_bytes());
    }
    if let Some(document) = StoredDocument::of(value) {
        let media_type = declared.unwrap_or(&document.media_type).to_owned();
        return Content { media_type, payload: Payload::Stored(document) };
    }
    // The worker has seen that it can be written so.
    match payload(declared, value) {
        Ok(payload) => Content { media_type: declared.unwrap_or(JSON).to_owned(), payload },
        Err(_) => Content::of_bytes(JSON.to_owned(), value.to_string().into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(content_type: Option<&str>, body: Body) -> Answer {
        let headers = content_type.map(|content_type| (CONTENT_TYPE.to_owned(), content_type.to_owned()));
        Answer { status: 201, headers: headers.into_iter().collect(), body }
    }

    #[test]
    fn an_answer_reads_back_from_its_parts() {
        for body in [Body::OfResult, Body::Value(Value::Null), Body::Value(json!([1])), Body::Bytes(vec![0, 255])] {
            let answer = answer(Some("text/csv"), body);
            assert_eq!(Answer::from_parts(&answer.head(), answer.bytes().map(<[u8]>::to_vec)), Some(answer));
        }
        for broken in [json!(null), json!({ "status": 201 }), json!({ "status": 70_000, "headers": [] })] {
            assert_eq!(Answer::from_parts(&broken, None), None, "{broken}");
        }
    }

    #[test]
    fn a_body_is_written_as_its_content_type_says() {
        let document = Document::new("application/pdf", vec![0, 255]).to_json();
        let of = |content_type: Option<&str>, body: Body, result: &Value| {
            let content = content(Some(&answer(content_type, body)), result);
            (content.media_type, content.payload.bytes().expect("they are here").to_vec())
        };
        let expect = |media_type: &str, bytes: &[u8]| (media_type.to_owned(), bytes.to_vec());
        let json = json!({ "a": 1.50 });
        assert_eq!(of(None, Body::OfResult, &json), expect(JSON, b"{\"a\":1.5}"));
        assert_eq!(of(Some("text/csv"), Body::OfResult, &json!("a,b")), expect("text/csv", b"a,b"));
        assert_eq!(of(None, Body::OfResult, &json!("a,b")), expect(JSON, b"\"a,b\""));
        assert_eq!(of(None, Body::OfResult, &document), expect("application/pdf", &[0, 255]));
        assert_eq!(of(Some("image/png"), Body::OfResult, &document), expect("image/png", &[0, 255]));
        assert_eq!(of(None, Body::Value(json!(7)), &json), expect(JSON, b"7"));
        assert_eq!(of(None, Body::Bytes(b" {} ".to_vec()), &json), expect(UNKNOWN, b" {} "));
        assert_eq!(of(Some("text/csv"), Body::OfResult, &json!([1])), expect(JSON, b"[1]"), "it cannot be written so");
        assert_eq!(content(None, &document), Content::of_bytes("application/pdf".to_owned(), vec![0, 255]));
        assert_eq!(content(None, &Value::Null), Content::of_bytes(JSON.to_owned(), b"null".to_vec()));
        let stored = StoredDocument::new("image/png", 2, "0".repeat(64), "render-1".to_owned());
        let served = content(Some(&answer(Some("image/x-own"), Body::OfResult)), &stored.to_json());
        assert_eq!(served, Content { media_type: "image/x-own".to_owned(), payload: Payload::Stored(stored) });
    }
}
