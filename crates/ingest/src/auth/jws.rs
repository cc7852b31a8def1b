//! Signed tokens in their compact form (RFC 7515), and public keys (RFC 7517). Pure.
//!
//! Only three algorithms are known, each with a public key of its own kind; a token cannot choose another: `none` and
//! HMAC, to which public keys would be secrets, do not exist here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256};
use ring::signature::{RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Keys of one issuer that are kept.
const KEYS_MAX: usize = 100;

/// A way of signing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "RS256" => Self::Rs256,
            "ES256" => Self::Es256,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// A public key of the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublicKey {
    pub(super) kid: Option<String>,
    algorithm: Algorithm,
    /// The modulus of RSA, the point of the curve.
    bytes: Vec<u8>,
    /// The exponent of RSA.
    exponent: Vec<u8>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of a set that can verify. Others are of no concern here, whatever they are.
pub(super) fn public_keys(text: &[u8]) -> Result<Vec<PublicKey>, serde_json::Error> {
    let JwkSet { keys } = serde_json::from_slice(text)?;
    let jwk = |value: Value| serde_json::from_value::<Jwk>(value).ok();
    Ok(keys.into_iter().filter_map(jwk).filter_map(public_key).take(KEYS_MAX).collect())
}

fn public_key(jwk: Jwk) -> Option<PublicKey> {
    let decoded = |text: Option<&String>| BASE64.decode(text?).ok();
    let signs = jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        && jwk.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
    let (algorithm, bytes, exponent) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => (Algorithm::Rs256, decoded(jwk.n.as_ref())?, decoded(jwk.e.as_ref())?),
        ("EC", Some("P-256")) => {
            let (x, y) = (decoded(jwk.x.as_ref())?, decoded(jwk.y.as_ref())?);
            // An uncompressed point (SEC 1, section 2.3.3).
            (Algorithm::Es256, [&[4], &x[..], &y[..]].concat(), Vec::new())
        }
        ("OKP", Some("Ed25519")) => (Algorithm::EdDsa, decoded(jwk.x.as_ref())?, Vec::new()),
        _ => return None,
    };
    let is_for_it = jwk.alg.as_deref().is_none_or(|word| Algorithm::parse(word) == Some(algorithm));
    (signs && is_for_it).then_some(PublicKey { kid: jwk.kid, algorithm, bytes, exponent })
}

/// A token whose signature nobody has looked at.
pub(super) struct Unverified<'a> {
    algorithm: Algorithm,
    pub(super) kid: Option<String>,
    signed: &'a str,
    signature: Vec<u8>,
    claims: Map<String, Value>,
}

/// The reason for which a token is not taken, for its sender.
pub(super) type Why = &'static str;

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl<'a> Unverified<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, Why> {
        let no_token = "The credential is neither an API key nor a token.";
        let (signed, signature) = token.rsplit_once('.').ok_or(no_token)?;
        let (header, claims) = signed.split_once('.').ok_or(no_token)?;
        let decoded = |part: &str| BASE64.decode(part).map_err(|_| no_token);
        let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| no_token)?;
        let algorithm = Algorithm::parse(&header.alg).ok_or("The token is not signed with RS256, ES256 or EdDSA.")?;
        if header.crit.is_some() {
            return Err("The token has critical headers (`crit`), of which none is known here.");
        }
        let claims = serde_json::from_slice(&decoded(claims)?).map_err(|_| no_token)?;
        Ok(Self { algorithm, kid: header.kid, signed, signature: decoded(signature)?, claims })
    }

    /// True for a key that may have signed it: the one that it names, or any where it names none.
    pub(super) fn may_be_of(&self, key: &PublicKey) -> bool {
        key.algorithm == self.algorithm && (self.kid.is_none() || self.kid == key.kid)
    }

    /// The claims, if this key has signed them.
    pub(super) fn verified(&mut self, key: &PublicKey) -> Option<Map<String, Value>> {
        if !self.may_be_of(key) {
            return None;
        }
        let (signed, signature) = (self.signed.as_bytes(), self.signature.as_slice());
        let verified = match self.algorithm {
            Algorithm::Rs256 => {
                let key = RsaPublicKeyComponents { n: &key.bytes, e: &key.exponent };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
            }
            Algorithm::Es256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.bytes).verify(signed, signature),
            Algorithm::EdDsa => UnparsedPublicKey::new(&ED25519, &key.bytes).verify(signed, signature),
        };
        verified.is_ok().then(|| std::mem::take(&mut self.claims))
    }
}
