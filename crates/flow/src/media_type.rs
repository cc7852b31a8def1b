//! Media types (RFC 9110 section 8.3.1), as far as bodies are written and read by them.

use encoding_rs::{Encoding, UTF_8};

/// A media type: `text/plain; charset=iso-8859-1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MediaType {
    /// In lower case, without parameters.
    essence: String,
    charset: Option<String>,
}

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    /// `application/x-www-form-urlencoded`
    Urlencoded,
    /// A type that is text by its name.
    Text,
    Xml,
    /// Parts with a boundary between them.
    Multipart,
    /// A type that is no text by its name.
    Binary,
    /// Anything else: its name does not say.
    Other,
}

/// True for a token (RFC 9110 section 5.6.2): the name of a header, or of a part of a media type.
pub(crate) fn is_token(text: &str) -> bool {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_sign)
}

impl MediaType {
    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = text.split(';');
        let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let charset = parts.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_owned())
        });
        Self { essence, charset }
    }

    pub(crate) fn essence(&self) -> &str {
        &self.essence
    }

    pub(crate) fn form(&self) -> Form {
        match self.essence.as_str() {
            "application/json" | "text/json" => Form::Json,
            "application/x-www-form-urlencoded" => Form::Urlencoded,
            "application/xml" | "text/xml" => Form::Xml,
            essence if essence.ends_with("+json") => Form::Json,
            essence if essence.ends_with("+xml") => Form::Xml,
            essence if essence.starts_with("text/") => Form::Text,
            essence if essence.starts_with("multipart/") => Form::Multipart,
            essence if is_binary(essence) => Form::Binary,
            _ => Form::Other,
        }
    }

    /// The encoding that its `charset` names, if it names one.
    pub(crate) fn charset(&self) -> Result<Option<&'static Encoding>, String> {
        self.charset.as_deref().map(encoding).transpose()
    }
}

/// True for types whose content is never a text, whatever its bytes are: the value that a flow sees of an answer does
/// not depend on chance.
fn is_binary(essence: &str) -> bool {
    let families = ["image/", "audio/", "video/", "font/", "application/vnd.openxmlformats", "application/vnd.ms-"];
    let types = ["pdf", "zip", "gzip", "zstd", "x-tar", "x-7z-compressed", "msword", "wasm", "vnd.rar"];
    families.iter().any(|family| essence.starts_with(family))
        || essence.strip_prefix("application/").is_some_and(|name| types.contains(&name))
}

/// The encoding of that name.
pub(crate) fn encoding(name: &str) -> Result<&'static Encoding, String> {
    Encoding::for_label(name.as_bytes()).ok_or_else(|| format!("there is no charset `{name}`"))
}

/// The encoding that an XML declaration names; UTF-8 without one.
pub(crate) fn encoding_of_xml(bytes: &[u8]) -> Result<&'static Encoding, String> {
    let start = String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes)).into_owned();
    let declaration =
        start.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")).map(|(declaration, _)| declaration);
    let named = declaration.and_then(|declaration| declaration.split_once("encoding")).and_then(|(_, rest)| {
        let rest = rest.trim_start().strip_prefix('=')?.trim_start();
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        rest[1..].split_once(quote).map(|(name, _)| name)
    });
    named.map_or(Ok(UTF_8), encoding)
}
