//! Signatures of webhooks: Standard Webhooks 1.0.0, <https://www.standardwebhooks.com>.
//!
//! The signed bytes are `{id}.{timestamp}.{body}`. `v1` is HMAC with SHA-256 of a secret that both sides know, `v1a`
//! ed25519.

use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// Random bytes of a secret: of HMAC's key, or of ed25519's seed.
pub const SECRET_BYTES: usize = 32;
/// Bytes of an HMAC key that somebody brings.
pub const HMAC_BYTES: RangeInclusive<usize> = 24..=64;

/// The bytes are no seed of ed25519.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a secret that can sign")]
pub struct NotASecret;

/// The secret of one side.
#[derive(Clone, Copy)]
pub enum Secret<'a> {
    Hmac(&'a [u8]),
    /// The seed: the first half of what a `whsk_` key holds.
    Ed25519(&'a [u8]),
}

impl Secret<'_> {
    /// One signature, with its version: `v1,...`.
    ///
    /// # Errors
    /// The bytes are no seed.
    pub fn sign(self, id: &str, timestamp_s: i64, body: &[u8]) -> Result<String, NotASecret> {
        let signed = [id.as_bytes(), b".", timestamp_s.to_string().as_bytes(), b".", body].concat();
        Ok(match self {
            Self::Hmac(key) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, key);
                format!("v1,{}", BASE64.encode(hmac::sign(&key, &signed)))
            }
            Self::Ed25519(seed) => format!("v1a,{}", BASE64.encode(pair(seed)?.sign(&signed))),
        })
    }

    /// The secret as its owner keeps it: `whsec_...`, or `whsk_...` with the seed and the public key.
    ///
    /// # Errors
    /// The bytes are no seed.
    pub fn text(self) -> Result<String, NotASecret> {
        Ok(match self {
            Self::Hmac(key) => format!("whsec_{}", BASE64.encode(key)),
            Self::Ed25519(seed) => {
                let pair = pair(seed)?;
                format!("whsk_{}", BASE64.encode([seed, pair.public_key().as_ref()].concat()))
            }
        })
    }

    /// The public key, `whpk_...`, where there is one.
    ///
    /// # Errors
    /// The bytes are no seed.
    pub fn public_key(self) -> Result<Option<String>, NotASecret> {
        Ok(match self {
            Self::Hmac(_) => None,
            Self::Ed25519(seed) => Some(format!("whpk_{}", BASE64.encode(pair(seed)?.public_key().as_ref()))),
        })
    }
}

fn pair(seed: &[u8]) -> Result<Ed25519KeyPair, NotASecret> {
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NotASecret)
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn the_check_value_of_the_standard_comes_out() {
        let secret = BASE64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            Secret::Hmac(&secret).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}");
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(Secret::Hmac(&secret).text().unwrap(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    }

    #[test]
    fn a_public_key_verifies_what_its_secret_signed() {
        let seed = [7; SECRET_BYTES];
        let secret = Secret::Ed25519(&seed);
        let public = secret.public_key().unwrap().unwrap();
        let public = BASE64.decode(public.strip_prefix("whpk_").unwrap()).unwrap();
        let signature = secret.sign("msg_1", 5, b"{}").unwrap();
        let signature = BASE64.decode(signature.strip_prefix("v1a,").unwrap()).unwrap();
        UnparsedPublicKey::new(&ED25519, &public).verify(b"msg_1.5.{}", &signature).unwrap();
        UnparsedPublicKey::new(&ED25519, &public).verify(b"msg_1.6.{}", &signature).unwrap_err();
        let whole = BASE64.decode(secret.text().unwrap().strip_prefix("whsk_").unwrap()).unwrap();
        assert_eq!(whole, [&seed[..], &public].concat());
    }

    #[test]
    fn ed25519_signs_as_rfc_8032_says() {
        // Section 7.1, test 1: the secret and the public key.
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let told = Secret::Ed25519(&seed).public_key().unwrap().unwrap();
        assert_eq!(told, format!("whpk_{}", BASE64.encode(public)));
        assert_eq!(Secret::Ed25519(&[0; 5]).sign("", 0, b""), Err(NotASecret));
    }
}
