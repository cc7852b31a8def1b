//! Documents: bytes with a media type, as values of a flow. One is a JSON object with exactly one key,
//! `{"$document": {"media_type", "size", "sha256", "base64"}}`, so it travels as any other value does. A large one has
//! `ref` in place of `base64`: its bytes lie in the store of documents, under this name within its job (a claim check).
//!
//! Promise: what is taken for a document is one: its bytes have the size and the digest that it says. Anything else
//! that looks like it is plain JSON. Of a stored one this is seen when its bytes are read. A `ref` never leads to bytes
//! of another job, whoever has written it.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::media_type::is_token;

/// The one key of a document.
pub const KEY: &str = "$document";
/// The member that holds its bytes.
const BASE64: &str = "base64";
/// Digits of a digest that people are shown.
const DIGITS_SHOWN: usize = 8;
/// The member that names its bytes in the store.
const REF: &str = "ref";
/// The member that tells callers the address of its bytes.
pub const HREF: &str = "href";
/// Bytes of such a name.
const REF_BYTES_MAX: usize = 128;
/// Digits of a SHA-256.
const SHA256_DIGITS: usize = 64;
/// Bytes of a media type with its parameters.
const MEDIA_TYPE_BYTES_MAX: usize = 255;
/// The media type of bytes that say nothing of themselves (RFC 9110 section 8.3).
pub const UNKNOWN: &str = "application/octet-stream";

/// Bytes with a media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    media_type: String,
    sha256: String,
    bytes: Vec<u8>,
}

impl Document {
    /// A media type that is none counts as [`UNKNOWN`].
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        let media_type = if is_media_type(media_type.trim()) { media_type.trim() } else { UNKNOWN };
        Self { media_type: media_type.to_owned(), sha256: sha256(&bytes), bytes }
    }

    /// The document that a value is; none: it is plain JSON.
    pub fn of(value: &Value) -> Option<Self> {
        let members = members(value)?;
        let text = |name: &str| members.get(name)?.as_str();
        let (media_type, digest) = (text("media_type").filter(|text| is_media_type(text))?, text("sha256")?);
        let bytes = STANDARD.decode(text(BASE64)?).ok()?;
        let is_whole = members.get("size")?.as_u64() == u64::try_from(bytes.len()).ok();
        let document = Self { media_type: media_type.to_owned(), sha256: sha256(&bytes), bytes };
        (is_whole && document.sha256 == digest).then_some(document)
    }

    /// The value that it is in a flow.
    pub fn to_json(&self) -> Value {
        let size = self.bytes.len();
        json!({ KEY: {
            "media_type": self.media_type, "size": size, "sha256": self.sha256, BASE64: STANDARD.encode(&self.bytes),
        } })
    }

    /// Its media type, with parameters, as a header has it.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, without copying them.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A document whose bytes lie in the store of documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// Its media type, with parameters, as a header has it.
    pub media_type: String,
    /// Its bytes.
    pub size: u64,
    /// Their SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// Its name among the documents of its job.
    pub name: String,
}

impl StoredDocument {
    /// A media type that is none counts as [`UNKNOWN`].
    pub fn new(media_type: &str, size: u64, sha256: String, name: String) -> Self {
        let media_type = if is_media_type(media_type.trim()) { media_type.trim() } else { UNKNOWN };
        Self { media_type: media_type.to_owned(), size, sha256, name }
    }

    /// The stored document that a value is; none: it is something else.
    pub fn of(value: &Value) -> Option<Self> {
        let members = members(value).filter(|members| members.len() == 4)?;
        let text = |name: &str| members.get(name)?.as_str().map(str::to_owned);
        Some(Self {
            media_type: text("media_type").filter(|text| is_media_type(text))?,
            size: members.get("size")?.as_u64()?,
            sha256: text("sha256").filter(|text| is_sha256(text))?,
            name: text(REF).filter(|text| is_name(text))?,
        })
    }

    /// The value that it is in a flow.
    pub fn to_json(&self) -> Value {
        let Self { media_type, size, sha256, name } = self;
        json!({ KEY: { "media_type": media_type, "size": size, "sha256": sha256, REF: name } })
    }
}

/// Lower case, digits, `_` and `-`: no part of a path that leads elsewhere.
fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=REF_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
}

fn is_sha256(text: &str) -> bool {
    text.len() == SHA256_DIGITS && text.bytes().all(|byte| matches!(byte, b'a'..=b'f' | b'0'..=b'9'))
}

/// The value with every document in it told by its description: without the bytes, and without their name.
pub fn described(value: &Value) -> Cow<'_, Value> {
    if !holds_bytes(value) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(match value {
        Value::Array(items) => items.iter().map(|item| described(item).into_owned()).collect(),
        Value::Object(entries) => {
            let is_document = members(value).is_some();
            let entry = |(name, inner): (&String, &Value)| {
                let mut inner = described(inner).into_owned();
                if let (true, Some(inner)) = (is_document, inner.as_object_mut()) {
                    inner.shift_remove(BASE64);
                    inner.shift_remove(REF);
                }
                (name.clone(), inner)
            };
            entries.iter().map(entry).collect()
        }
        plain => plain.clone(),
    })
}

/// The value for people: every document in it is a text, such as `application/pdf, 12,345 bytes, sha256 ab12cd34…`.
/// None: there is none in it.
pub fn in_words(value: &Value) -> Option<Value> {
    if let Some(words) = members(value).and_then(words) {
        return Some(Value::String(words));
    }
    let (mut value, mut is_changed) = (value.clone(), false);
    let inner: Box<dyn Iterator<Item = &mut Value>> = match &mut value {
        Value::Array(items) => Box::new(items.iter_mut()),
        Value::Object(entries) => Box::new(entries.values_mut()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    for inner in inner {
        if let Some(words) = in_words(inner) {
            (*inner, is_changed) = (words, true);
        }
    }
    is_changed.then_some(value)
}

/// The value with the address of each stored document within it in place of its name, which says nothing to callers.
/// `address` makes it of the name. None: there is none within it. A value that is a document stays as it is.
pub fn linked(value: &Value, address: &dyn Fn(&str) -> String) -> Option<Value> {
    if members(value).is_some() {
        return None;
    }
    let mut linked_value = value.clone();
    let inner: Box<dyn Iterator<Item = &mut Value>> = match &mut linked_value {
        Value::Array(items) => Box::new(items.iter_mut()),
        Value::Object(entries) => Box::new(entries.values_mut()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    let mut is_changed = false;
    for inner in inner {
        if let Some(document) = StoredDocument::of(inner) {
            let StoredDocument { media_type, size, sha256, name } = document;
            let href = address(&name);
            *inner = json!({ KEY: { "media_type": media_type, "size": size, "sha256": sha256, HREF: href } });
            is_changed = true;
        } else if let Some(value) = linked(inner, address) {
            (*inner, is_changed) = (value, true);
        }
    }
    is_changed.then_some(linked_value)
}

/// The stored document of this name that the value is, or has within it.
pub fn stored_in(value: &Value, name: &str) -> Option<StoredDocument> {
    if let Some(document) = StoredDocument::of(value) {
        return Some(document).filter(|document| document.name == name);
    }
    match value {
        Value::Array(items) => items.iter().find_map(|item| stored_in(item, name)),
        Value::Object(entries) => entries.values().find_map(|entry| stored_in(entry, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// The words for a document with these members.
fn words(members: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| members.get(name)?.as_str();
    let digest = text("sha256")?.get(..DIGITS_SHOWN)?;
    let size = members.get("size")?.as_u64()?.to_string();
    let groups: Vec<&str> = size.as_bytes().rchunks(3).rev().filter_map(|digits| str::from_utf8(digits).ok()).collect();
    Some(format!("{}, {} bytes, sha256 {digest}…", text("media_type")?, groups.join(",")))
}

fn holds_bytes(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(holds_bytes),
        Value::Object(entries) => {
            let is_held = |members: &Map<String, Value>| members.contains_key(BASE64) || members.contains_key(REF);
            members(value).is_some_and(is_held) || entries.values().any(holds_bytes)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// What stands under the one key, if that is the only one.
fn members(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object().filter(|entries| entries.len() == 1)?.get(KEY)?.as_object()
}

/// The SHA-256 of these bytes in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    sha256_of(&[bytes])
}

/// The same of several parts, one behind the other.
pub fn sha256_of(parts: &[&[u8]]) -> String {
    hexadecimal(&parts.iter().fold(Sha256::new(), |digest, part| digest.chain_update(part)).finalize())
}

/// A digest in hexadecimal digits.
pub fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(SHA256_DIGITS), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// True for a type and a subtype, with parameters or not, that a header can hold.
pub(crate) fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let parts = essence.split_once('/');
    text.len() <= MEDIA_TYPE_BYTES_MAX && is_plain && parts.is_some_and(|(one, two)| is_token(one) && is_token(two))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PDF: &[u8] = b"%PDF-1.7\r\n\x00\xff\xfe\x80";

    #[test]
    fn a_document_reads_back_as_it_was_written() {
        let document = Document::new(" application/pdf ", PDF.to_vec());
        let value = document.to_json();
        assert_eq!(value["$document"]["media_type"], "application/pdf");
        assert_eq!(value["$document"]["size"], 14);
        assert_eq!(value["$document"]["sha256"], sha256(PDF));
        assert_eq!(Document::of(&value), Some(document));
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn what_only_looks_like_a_document_is_plain_json() {
        let real = Document::new("application/pdf", PDF.to_vec()).to_json();
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut value = real.clone();
            change(&mut value);
            Document::of(&value)
        };
        assert!(changed(&|_| {}).is_some());
        assert_eq!(changed(&|value| value["more"] = 1.into()), None, "exactly one key");
        assert_eq!(changed(&|value| value[KEY]["size"] = 13.into()), None);
        assert_eq!(changed(&|value| value[KEY]["sha256"] = "0".into()), None);
        assert_eq!(changed(&|value| value[KEY][BASE64] = "?".into()), None);
        for wrong in ["text/html\r\nset-cookie: a=b", "html", "/html", "a b/c", "text/ä"] {
            assert_eq!(changed(&|value| value[KEY]["media_type"] = wrong.into()), None, "{wrong:?}");
            assert_eq!(Document::new(wrong, Vec::new()).media_type(), UNKNOWN, "{wrong:?}");
        }
        assert_eq!(Document::of(&json!("$document")), None);
    }

    #[test]
    fn a_stored_document_reads_back_and_names_nothing_outside_of_its_job() {
        let document = StoredDocument::new(" application/pdf ", 14, sha256(PDF), "render-0190a6f2".to_owned());
        let value = document.to_json();
        assert_eq!(value[KEY]["ref"], "render-0190a6f2");
        assert_eq!((StoredDocument::of(&value), Document::of(&value)), (Some(document), None));
        for name in ["", "../other", "a/b", "a.b", "A", "a%2f", &"x".repeat(129)] {
            let mut forged = value.clone();
            forged[KEY]["ref"] = name.into();
            assert_eq!(StoredDocument::of(&forged), None, "{name}");
        }
        let mut both = value.clone();
        both[KEY]["base64"] = "".into();
        assert_eq!(StoredDocument::of(&both), None, "exactly these members");
        let told = json!({ KEY: { "media_type": "application/pdf", "size": 14, "sha256": sha256(PDF) } });
        assert_eq!(*described(&value), told);
    }

    #[test]
    fn a_stored_document_within_a_value_is_told_by_its_address_and_found_by_its_name() {
        let stored = |name: &str| StoredDocument::new("application/pdf", 14, sha256(PDF), name.to_owned());
        let (one, other) = (stored("one"), stored("other"));
        let small = Document::new("image/png", PDF.to_vec()).to_json();
        let value = json!({ "a": [1, one.to_json()], "b": { "c": other.to_json() }, "d": small });
        let told = |name: &str| {
            let href = format!("/documents/{name}");
            json!({ KEY: { "media_type": "application/pdf", "size": 14, "sha256": sha256(PDF), "href": href } })
        };
        let address = |name: &str| format!("/documents/{name}");
        let expected = json!({ "a": [1, told("one")], "b": { "c": told("other") }, "d": small });
        assert_eq!(linked(&value, &address), Some(expected));
        for same in [one.to_json(), small, json!([1, { "ref": "one" }]), json!("one")] {
            assert_eq!(linked(&same, &address), None, "{same}");
        }
        assert_eq!((stored_in(&value, "one"), stored_in(&value, "other")), (Some(one.clone()), Some(other)));
        assert_eq!((stored_in(&value, "third"), stored_in(&one.to_json(), "one")), (None, Some(one)));
    }

    #[test]
    fn a_description_has_no_bytes_wherever_the_document_is() {
        let document = Document::new("image/png", PDF.to_vec()).to_json();
        let told = json!({ KEY: { "media_type": "image/png", "size": 14, "sha256": sha256(PDF) } });
        assert_eq!(*described(&document), told);
        let nested = json!({ "a": [1, document], "base64": "kept" });
        assert_eq!(*described(&nested), json!({ "a": [1, told], "base64": "kept" }));
        let digest = sha256(PDF);
        let words = format!("image/png, 14 bytes, sha256 {}…", &digest[..8]);
        assert_eq!(in_words(&nested), Some(json!({ "a": [1, words], "base64": "kept" })));
        assert_eq!(in_words(&described(&nested)), in_words(&nested));
        let large = Document::new("text/csv", vec![b'x'; 1_234_567]).to_json();
        let words = in_words(&large).unwrap();
        assert!(words.as_str().unwrap().starts_with("text/csv, 1,234,567 bytes, sha256 "), "{words}");
        let plain = json!({ "a": [1, "x"], "base64": "kept" });
        assert_eq!(in_words(&plain), None);
        assert!(matches!(described(&plain), Cow::Borrowed(same) if *same == plain), "nothing is copied for nothing");
    }
}
