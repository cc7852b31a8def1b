//! The body of a request, written as its content type says.

use form_urlencoded::Serializer;
use serde_json::Value;

use crate::document::{Document, StoredDocument};
use crate::media_type::{Form, MediaType};

/// The content of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The bytes of a document, which lie in the store.
    Stored(StoredDocument),
}

impl Payload {
    /// The bytes that are here.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Stored(_) => None,
        }
    }
}

/// The content of a body that is this value: a stored document is what it stands for.
pub(crate) fn payload(content_type: Option<&str>, body: &Value) -> Result<Payload, String> {
    match StoredDocument::of(body) {
        Some(document) => Ok(Payload::Stored(document)),
        None => encode(content_type, body).map(Payload::Bytes),
    }
}

/// The bytes of a body that is no stored document. Without a content type it is JSON. A document is sent as its bytes,
/// whatever the type.
pub(crate) fn encode(content_type: Option<&str>, body: &Value) -> Result<Vec<u8>, String> {
    if let Some(document) = Document::of(body) {
        return Ok(document.into_bytes());
    }
    let media_type = MediaType::parse(content_type.unwrap_or("application/json"));
    let refused = |reason: &str| {
        let (kind, essence) = (kind(body), media_type.essence());
        Err(format!("`body` is {kind}, which cannot be sent as `{essence}`: {reason}"))
    };
    match (media_type.form(), body) {
        (Form::Json, _) => Ok(body.to_string().into_bytes()),
        (Form::Multipart, _) => refused("bodies of several parts are not supported"),
        (Form::Urlencoded, Value::Object(fields)) => urlencoded(fields)
            .or_else(|field| refused(&format!("its `{field}` is no text, number, boolean or list of them"))),
        (_, Value::String(text)) => text_bytes(text, &media_type).or_else(|reason| refused(&reason)),
        (Form::Text | Form::Xml | Form::Binary | Form::Other, Value::Number(_) | Value::Bool(_)) => {
            Ok(body.to_string().into_bytes())
        }
        (Form::Urlencoded, _) => refused("it has to be a mapping, or a text that is encoded already"),
        (Form::Text | Form::Xml | Form::Binary | Form::Other, _) => refused("it has to be a text"),
    }
}

fn text_bytes(text: &str, media_type: &MediaType) -> Result<Vec<u8>, String> {
    let Some(encoding) = media_type.charset()? else { return Ok(text.as_bytes().to_vec()) };
    let (bytes, used, has_lost) = encoding.encode(text);
    if has_lost || used != encoding {
        return Err(format!("it cannot be written in `{}`", encoding.name()));
    }
    Ok(bytes.into_owned())
}

/// The fields as `name=value&…`; a list is a name that stands several times. Or the name of a field that has no text.
fn urlencoded(fields: &serde_json::Map<String, Value>) -> Result<Vec<u8>, String> {
    let mut form = Serializer::new(String::new());
    for (name, value) in fields {
        let values = match value {
            Value::Array(items) => items.as_slice(),
            other => std::slice::from_ref(other),
        };
        for value in values {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return Err(name.clone()),
            };
            form.append_pair(name, &text);
        }
    }
    Ok(form.finish().into_bytes())
}

const fn kind(body: &Value) -> &'static str {
    match body {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent(content_type: &str, body: Value) -> Result<Vec<u8>, String> {
        encode(Some(content_type), &body)
    }

    #[test]
    fn a_body_is_written_as_its_content_type_says() {
        let fields = json!({ "a b": "ä&=", "n": 1.5, "yes": true, "list": [1, "x y"] });
        for (content_type, body, bytes) in [
            (
                "application/x-www-form-urlencoded",
                fields.clone(),
                &b"a+b=%C3%A4%26%3D&n=1.5&yes=true&list=1&list=x+y"[..],
            ),
            ("Application/X-WWW-Form-Urlencoded; charset=utf-8", json!("a=1&b=2"), b"a=1&b=2"),
            ("text/plain", json!("a \"b\""), b"a \"b\""),
            ("text/plain; charset=\"ISO-8859-1\"", json!("é"), b"\xe9"),
            ("text/csv", json!(5), b"5"),
            ("application/soap+xml", json!("<a/>"), b"<a/>"),
            ("application/octet-stream", json!("raw"), b"raw"),
            ("application/json", json!("text"), b"\"text\""),
            ("application/vnd.api+json; charset=utf-8", json!({ "a": 1 }), b"{\"a\":1}"),
        ] {
            assert_eq!(sent(content_type, body), Ok(bytes.to_vec()), "{content_type}");
        }
        assert_eq!(encode(None, &json!({ "a": 1 })), Ok(b"{\"a\":1}".to_vec()));
        let document = Document::new("image/png", vec![0, 255]).to_json();
        assert_eq!(encode(None, &document), Ok(vec![0, 255]));
        assert_eq!(sent("text/plain", document), Ok(vec![0, 255]));
    }

    #[test]
    fn a_body_that_its_content_type_cannot_hold_is_refused() {
        for (content_type, body, reason) in [
            ("text/plain", json!({ "a": 1 }), "`body` is a mapping, which cannot be sent as `text/plain`"),
            ("application/xml", json!([1]), "`body` is a list, which cannot be sent as `application/xml`"),
            ("application/octet-stream", json!(null), "has to be a text"),
            ("application/x-www-form-urlencoded", json!([1]), "has to be a mapping"),
            ("application/x-www-form-urlencoded", json!({ "a": { "b": 1 } }), "its `a` is no text"),
            ("application/x-www-form-urlencoded", json!({ "a": [null] }), "its `a` is no text"),
            ("multipart/form-data; boundary=x", json!("x"), "several parts are not supported"),
            ("text/plain; charset=iso-8859-2", json!("日"), "cannot be written in `ISO-8859-2`"),
            ("text/plain; charset=utf-16", json!("a"), "cannot be written in `UTF-16LE`"),
            ("text/plain; charset=klingon", json!("a"), "there is no charset `klingon`"),
        ] {
            let error = sent(content_type, body).unwrap_err();
            assert!(error.contains(reason), "{content_type}: {error}");
        }
    }
}
