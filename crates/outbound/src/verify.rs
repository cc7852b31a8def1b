//! The other side of [`crate::signature`]: requests that others have signed, by the schemes of Standard Webhooks,
//! GitHub, Stripe and Slack, and by a plain HMAC. Pure: the present is handed in.
//!
//! Signatures are compared in constant time. Of several secrets one must have signed.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::STANDARD as BASE64};
use flow::definition::Scheme;
use ring::hmac;
use ring::signature::{ED25519, UnparsedPublicKey};

/// Signatures that are looked at: a request has a few, while a secret is exchanged.
const SIGNATURES_MAX: usize = 16;
/// Bytes of a header that is looked at.
const HEADER_BYTES_MAX: usize = 4_096;
/// Bytes of an id.
const ID_BYTES_MAX: usize = 255;
/// Base64 as others write it, with its padding or without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A signed request.
pub struct Signed<'a> {
    /// Finds a header by its name in lower case; none where it is absent, stands twice or is not ASCII.
    pub header: &'a (dyn Fn(&str) -> Option<&'a str> + Sync),
    /// Byte for byte as it came.
    pub body: &'a [u8],
}

/// The conditions of a scheme.
pub struct Terms<'a> {
    pub scheme: Scheme,
    /// The header of the signature, of [`Scheme::Hmac`] only.
    pub signature: &'a str,
    /// Of schemes that sign the time.
    pub tolerance_ms: Option<u64>,
    pub secrets: &'a [&'a str],
}

/// The reason for which a request is not taken for that of its sender. Tells nothing of the secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A header that the scheme wants is absent, or has another form.
    #[error("the header `{0}` is absent or malformed")]
    Header(&'static str),
    /// There is no signature, or none that can be read.
    #[error("there is no signature in the header that the scheme has for it")]
    NoSignature,
    /// Signed too long ago, or too far ahead.
    #[error("the signature's time is too far from now")]
    Time,
    /// None of the secrets has signed this.
    #[error("none of the secrets has signed this body")]
    Signature,
}

impl Refusal {
    /// A short stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header(_) | Self::NoSignature => "unsigned",
            Self::Time => "time",
            Self::Signature => "signature",
        }
    }
}

const STANDARD_ID: &str = "webhook-id";
const STANDARD_TIME: &str = "webhook-timestamp";
const STANDARD_SIGNATURE: &str = "webhook-signature";
const GITHUB_SIGNATURE: &str = "x-hub-signature-256";
const STRIPE_SIGNATURE: &str = "stripe-signature";
const SLACK_SIGNATURE: &str = "x-slack-signature";
const SLACK_TIME: &str = "x-slack-request-timestamp";

/// Checks that one of the secrets has signed this body, at a time that is near enough.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(terms: &Terms<'_>, signed: &Signed<'_>, now_ms: i64) -> Result<(), Refusal> {
    match terms.scheme {
        Scheme::Standard => standard(terms, signed, now_ms),
        Scheme::Github => hex_of_body(terms, signed, GITHUB_SIGNATURE, "sha256="),
        Scheme::Stripe => stripe(terms, signed, now_ms),
        Scheme::Slack => slack(terms, signed, now_ms),
        Scheme::Hmac => plain(terms, signed),
    }
}

/// The id of a request that all its repetitions have, where it stands in a header.
pub fn id_in_header<'a>(scheme: Scheme, signed: &Signed<'a>) -> Option<&'a str> {
    let name = match scheme {
        Scheme::Standard => STANDARD_ID,
        Scheme::Github => "x-github-delivery",
        Scheme::Stripe | Scheme::Slack | Scheme::Hmac => return None,
    };
    header(signed, name).filter(|id| id.len() <= ID_BYTES_MAX)
}

fn header<'a>(signed: &Signed<'a>, name: &str) -> Option<&'a str> {
    (signed.header)(name).filter(|value| !value.is_empty() && value.len() <= HEADER_BYTES_MAX)
}

fn standard(terms: &Terms<'_>, signed: &Signed<'_>, now_ms: i64) -> Result<(), Refusal> {
    let id = header(signed, STANDARD_ID).ok_or(Refusal::Header(STANDARD_ID))?;
    let time = header(signed, STANDARD_TIME).ok_or(Refusal::Header(STANDARD_TIME))?;
    let given = header(signed, STANDARD_SIGNATURE).ok_or(Refusal::NoSignature)?;
    check_time(time, STANDARD_TIME, terms, now_ms)?;
    let message = [id.as_bytes(), b".", time.as_bytes(), b".", signed.body].concat();
    let signatures: Vec<(&str, Vec<u8>)> = given
        .split(' ')
        .take(SIGNATURES_MAX)
        .filter_map(|part| part.split_once(','))
        .filter_map(|(version, text)| Some((version, BASE64.decode(text).ok()?)))
        .collect();
    if signatures.is_empty() {
        return Err(Refusal::NoSignature);
    }
    let has_signed = |secret: &&str| match secret.strip_prefix("whpk_") {
        Some(public) => LENIENT.decode(public).is_ok_and(|public| {
            let of = |(version, mac): &(&str, Vec<u8>)| {
                *version == "v1a" && UnparsedPublicKey::new(&ED25519, &public).verify(&message, mac).is_ok()
            };
            signatures.iter().any(of)
        }),
        // The key is what the text stands for; a text that is no Base64 is a key itself.
        None => {
            let text = secret.strip_prefix("whsec_").unwrap_or(secret);
            let key = LENIENT.decode(text).unwrap_or_else(|_| text.as_bytes().to_vec());
            let of = |(version, mac): &(&str, Vec<u8>)| *version == "v1" && is_mac(&key, &message, mac);
            signatures.iter().any(of)
        }
    };
    signed_by_one(terms.secrets.iter().any(has_signed))
}

/// `t=1492774577,v1=5257...,v1=6ffb...,v0=...`
fn stripe(terms: &Terms<'_>, signed: &Signed<'_>, now_ms: i64) -> Result<(), Refusal> {
    let given = header(signed, STRIPE_SIGNATURE).ok_or(Refusal::NoSignature)?;
    let parts = || given.split(',').filter_map(|part| part.trim().split_once('='));
    let time = parts().find(|(name, _)| *name == "t").map(|(_, time)| time);
    let time = time.ok_or(Refusal::Header(STRIPE_SIGNATURE))?;
    check_time(time, STRIPE_SIGNATURE, terms, now_ms)?;
    let message = [time.as_bytes(), b".", signed.body].concat();
    let signatures: Vec<Vec<u8>> =
        parts().filter(|(name, _)| *name == "v1").take(SIGNATURES_MAX).filter_map(|(_, mac)| from_hex(mac)).collect();
    if signatures.is_empty() {
        return Err(Refusal::NoSignature);
    }
    let has_signed = |secret: &&str| signatures.iter().any(|mac| is_mac(secret.as_bytes(), &message, mac));
    signed_by_one(terms.secrets.iter().any(has_signed))
}

fn slack(terms: &Terms<'_>, signed: &Signed<'_>, now_ms: i64) -> Result<(), Refusal> {
    let time = header(signed, SLACK_TIME).ok_or(Refusal::Header(SLACK_TIME))?;
    let given = header(signed, SLACK_SIGNATURE).and_then(|text| from_hex(text.strip_prefix("v0=")?));
    let mac = given.ok_or(Refusal::NoSignature)?;
    check_time(time, SLACK_TIME, terms, now_ms)?;
    let message = [b"v0:", time.as_bytes(), b":", signed.body].concat();
    signed_by_one(terms.secrets.iter().any(|secret| is_mac(secret.as_bytes(), &message, &mac)))
}

fn hex_of_body(terms: &Terms<'_>, signed: &Signed<'_>, name: &str, prefix: &str) -> Result<(), Refusal> {
    let mac = header(signed, name).and_then(|text| from_hex(text.strip_prefix(prefix)?)).ok_or(Refusal::NoSignature)?;
    signed_by_one(terms.secrets.iter().any(|secret| is_mac(secret.as_bytes(), signed.body, &mac)))
}

/// The MAC of the body, in hexadecimal digits or Base64, after `sha256=` or nothing.
fn plain(terms: &Terms<'_>, signed: &Signed<'_>) -> Result<(), Refusal> {
    let text = header(signed, terms.signature).ok_or(Refusal::NoSignature)?;
    let text = text.strip_prefix("sha256=").unwrap_or(text);
    // 32 bytes have 64 digits, or 44 signs: no text is both.
    let mac = from_hex(text).or_else(|| LENIENT.decode(text).ok()).ok_or(Refusal::NoSignature)?;
    signed_by_one(terms.secrets.iter().any(|secret| is_mac(secret.as_bytes(), signed.body, &mac)))
}

const fn signed_by_one(is_signed: bool) -> Result<(), Refusal> {
    if is_signed { Ok(()) } else { Err(Refusal::Signature) }
}

fn check_time(text: &str, name: &'static str, terms: &Terms<'_>, now_ms: i64) -> Result<(), Refusal> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let time_s = text.parse::<i64>().ok().filter(|_| is_number).ok_or(Refusal::Header(name))?;
    let apart_ms = now_ms.abs_diff(time_s.saturating_mul(1_000));
    if terms.tolerance_ms.is_none_or(|most_ms| apart_ms <= most_ms) { Ok(()) } else { Err(Refusal::Time) }
}

/// In constant time. An empty key is that of nobody.
fn is_mac(key: &[u8], message: &[u8], mac: &[u8]) -> bool {
    !key.is_empty() && hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), message, mac).is_ok()
}

/// The 32 bytes of a MAC.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests;
