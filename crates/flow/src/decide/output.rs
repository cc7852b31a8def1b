//! The output of a step: the body of its answer, read as the answer says of itself.

use encoding_rs::{Encoding, UTF_8};
use serde_json::Value;

use crate::document::{Document, UNKNOWN};
use crate::media_type::{Form, MediaType, encoding_of_xml};

/// JSON where the answer says so, or says nothing and is JSON; a text as it was written where it is text; null where
/// there is nothing; a document where it is neither. Or the reason for which it cannot be read.
pub(super) fn decode(content_type: Option<&str>, body: &[u8]) -> Result<Value, String> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let media_type = MediaType::parse(content_type.unwrap_or_default());
    let charset = media_type.charset()?;
    match media_type.form() {
        Form::Json => {
            let text = text(body, charset.unwrap_or(UTF_8))?;
            json(&text).map_err(|error| format!("it is no JSON: {error}"))
        }
        Form::Text | Form::Urlencoded => text(body, charset.unwrap_or(UTF_8)).map(Value::String),
        Form::Xml => {
            let encoding = charset.map_or_else(|| encoding_of_xml(body), Ok)?;
            text(body, encoding).map(Value::String)
        }
        Form::Multipart | Form::Binary => Ok(document(content_type, body)),
        Form::Other => Ok(match text(body, charset.unwrap_or(UTF_8)) {
            Ok(text) => json(&text).unwrap_or(Value::String(text)),
            Err(_) => document(content_type, body),
        }),
    }
}

/// True where `decode` gives a document.
pub fn is_document(content_type: Option<&str>, body: &[u8]) -> bool {
    let media_type = MediaType::parse(content_type.unwrap_or_default());
    let Ok(charset) = media_type.charset() else { return false };
    !body.is_empty()
        && match media_type.form() {
            Form::Multipart | Form::Binary => true,
            Form::Other => text(body, charset.unwrap_or(UTF_8)).is_err(),
            Form::Json | Form::Text | Form::Urlencoded | Form::Xml => false,
        }
}

fn json(text: &str) -> Result<Value, serde_json::Error> {
    if text.bytes().all(|byte| byte.is_ascii_whitespace()) { Ok(Value::Null) } else { serde_json::from_str(text) }
}

fn document(content_type: Option<&str>, body: &[u8]) -> Value {
    Document::new(content_type.unwrap_or(UNKNOWN), body.to_vec()).to_json()
}

/// A byte order mark says more than a header.
fn text(body: &[u8], encoding: &'static Encoding) -> Result<String, String> {
    let (text, used, has_errors) = encoding.decode(body);
    if has_errors { Err(format!("it is no text in {}", used.name())) } else { Ok(text.into_owned()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_read_as_it_says_of_itself() {
        for (content_type, body, output) in [
            (None, &b"{\"b\":1,\"a\":2}"[..], json!({ "b": 1, "a": 2 })),
            (None, b"plain", json!("plain")),
            (None, b" \n", Value::Null),
            (None, b"", Value::Null),
            (Some("text/plain"), b"", Value::Null),
            (Some("text/plain"), b"1e5", json!("1e5")),
            (Some("text/plain"), b" 007\n", json!(" 007\n")),
            (Some("Text/HTML; Charset=\"iso-8859-1\""), b"caf\xe9", json!("café")),
            (Some("text/csv;charset=windows-1252"), b"\x80", json!("€")),
            (Some("text/plain"), b"\xef\xbb\xbfa", json!("a")),
            (Some("text/plain; charset=utf-16"), b"\xfe\xff\0a", json!("a")),
            (Some("application/json"), b"\xef\xbb\xbf[1]", json!([1])),
            (Some("application/json; charset=iso-8859-1"), b"\"\xe9\"", json!("é")),
            (Some("application/problem+json"), b"{}", json!({})),
            (
                Some("application/xml"),
                b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>",
                json!("<?xml version='1.0' encoding='ISO-8859-1'?><a>é</a>"),
            ),
            (Some("text/xml; charset=utf-8"), "<a>é</a>".as_bytes(), json!("<a>é</a>")),
            (Some("application/octet-stream"), b"{\"a\":1}", json!({ "a": 1 })),
        ] {
            assert_eq!(decode(content_type, body), Ok(output), "{content_type:?} {body:?}");
        }
    }

    #[test]
    fn an_answer_that_is_neither_json_nor_text_is_a_document() {
        for (content_type, body, media_type) in [
            (None, &b"\xff\x00"[..], UNKNOWN),
            (Some("image/png"), b"\x89PNG", "image/png"),
            (Some("application/pdf"), b"%PDF-1.4 only ASCII", "application/pdf"),
            (Some("image/jpeg"), b"{}", "image/jpeg"),
            (Some("application/x-own"), b"\xff", "application/x-own"),
            (Some("multipart/mixed; boundary=x"), b"--x--", "multipart/mixed; boundary=x"),
        ] {
            let output = Document::new(media_type, body.to_vec()).to_json();
            assert_eq!(decode(content_type, body), Ok(output), "{content_type:?}");
        }
        assert_eq!(decode(Some("image/svg+xml"), b"<svg/>"), Ok(json!("<svg/>")));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for (content_type, body, reason) in [
            (Some("text/plain"), &b"caf\xe9"[..], "it is no text in UTF-8"),
            (Some("text/plain; charset=klingon"), b"a", "there is no charset `klingon`"),
            (Some("application/json"), b"OK", "it is no JSON: expected value at line 1 column 1"),
            (Some("application/xml"), b"<?xml encoding=\"klingon\"?><a/>", "there is no charset `klingon`"),
        ] {
            assert_eq!(decode(content_type, body), Err(reason.to_owned()), "{content_type:?}");
        }
    }
}
