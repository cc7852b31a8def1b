//! Permits: what the URL of a callback, or of a step's progress, carries. A permit certifies itself by a MAC, so it
//! works before anything about it is stored, and one that was guessed never does.
//!
//! Invariant: all attempts of one round have the same permit, byte for byte. They share an idempotency key, and a
//! service may compare the requests that come under one.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

use crate::id::JobId;

/// The shortest secret: as long as the MAC.
pub const SECRET_BYTES_MIN: usize = 32;
/// The path below which callbacks come in.
pub const PATH: &str = "/v1/callbacks/";
/// The path below which reports of progress come in.
pub const PROGRESS_PATH: &str = "/v1/progress/";
/// The beginning of the names of the signals that callbacks are. No flow waits for a signal with a colon in its name,
/// so nobody else can send one.
const SIGNAL: &str = "callback:";
/// The first byte of a permit: its form.
const FORM: u8 = 1;
const MAC_BYTES: usize = 32;
/// The longest text that is looked at.
const TEXT_BYTES_MAX: usize = 1024;

/// What a permit is for. A permit for one purpose is none for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To end the round.
    Callback,
    /// To tell how far the step is.
    Progress,
}

impl Purpose {
    /// What is certified, before the permit's own bytes: a MAC of something else is not one of a permit.
    const fn mark(self) -> &'static [u8] {
        match self {
            Self::Callback => b"meanwhile callback 1\0",
            Self::Progress => b"meanwhile progress 1\0",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Callback => PATH,
            Self::Progress => PROGRESS_PATH,
        }
    }
}

/// Says that whoever holds it may end one round of a step, or tell of its progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// The job.
    pub job: JobId,
    /// Its tenant.
    pub tenant: String,
    /// The step.
    pub step: String,
    /// The visit.
    pub visit: u32,
    /// The round: the attempts that end by one callback. Another one begins after a failure that may be retried.
    pub round: u32,
    /// The time from which on it is of no use, in milliseconds since the Unix epoch.
    pub end_ms: i64,
}

/// The secrets by which permits are certified: the first one signs, each of them is accepted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(Vec<String>);

/// A secret is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret has {0} bytes of at least {SECRET_BYTES_MIN}")]
pub struct TooShort(usize);

/// The means of a worker to make the URLs of callbacks and of progress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Callbacks {
    /// The address at which services reach the API, without a slash at its end; empty: not known here.
    pub api_url: String,
    /// The secrets; none: not known here.
    pub secrets: Secrets,
}

impl Permit {
    /// The name of the signal that the callback is.
    pub fn signal(&self) -> String {
        signal(&self.step, self.visit, self.round)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORM];
        bytes.extend(self.job.uuid().as_bytes());
        bytes.extend(self.visit.to_be_bytes());
        bytes.extend(self.round.to_be_bytes());
        bytes.extend(self.end_ms.to_be_bytes());
        // The name of a step is shorter than this.
        bytes.push(u8::try_from(self.step.len()).unwrap_or(u8::MAX));
        bytes.extend(self.step.bytes());
        bytes.extend(self.tenant.bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (form, rest) = bytes.split_first()?;
        let (job, rest) = rest.split_first_chunk::<16>()?;
        let (visit, rest) = rest.split_first_chunk::<4>()?;
        let (round, rest) = rest.split_first_chunk::<4>()?;
        let (end_ms, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first()?;
        let (step, tenant) = rest.split_at_checked(usize::from(*length))?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        (*form == FORM).then_some(())?;
        Some(Self {
            job: JobId::new(Uuid::from_bytes(*job)),
            tenant: text(tenant)?,
            step: text(step)?,
            visit: u32::from_be_bytes(*visit),
            round: u32::from_be_bytes(*round),
            end_ms: i64::from_be_bytes(*end_ms),
        })
    }
}

/// The name of the signal that ends this round of a step.
pub fn signal(step: &str, visit: u32, round: u32) -> String {
    format!("{SIGNAL}{step}:{visit}:{round}")
}

impl Secrets {
    /// # Errors
    /// One of them is too short.
    pub fn new(secrets: Vec<String>) -> Result<Self, TooShort> {
        match secrets.iter().map(String::len).find(|length| *length < SECRET_BYTES_MIN) {
            Some(length) => Err(TooShort(length)),
            None => Ok(Self(secrets)),
        }
    }

    /// True if there is none: nothing can be signed, and nothing is accepted.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text of a permit, as it stands in a URL; none without a secret.
    pub fn sign(&self, purpose: Purpose, permit: &Permit) -> Option<String> {
        let mut bytes = permit.to_bytes();
        let mac = mac(self.0.first()?, purpose, &bytes).finalize().into_bytes();
        bytes.extend(mac);
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The permit of a text that was signed for this purpose with one of these secrets. The comparison takes the same
    /// time wherever a MAC differs.
    pub fn verify(&self, purpose: Purpose, text: &str) -> Option<Permit> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (bytes, code) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        let certified = self.0.iter().any(|secret| mac(secret, purpose, bytes).verify_slice(code).is_ok());
        certified.then(|| Permit::from_bytes(bytes)).flatten()
    }
}

impl Callbacks {
    /// The URL for a permit of this purpose; none where the address or the secrets are not known.
    pub fn url(&self, purpose: Purpose, permit: &Permit) -> Option<String> {
        let text = self.secrets.sign(purpose, permit).filter(|_| !self.api_url.is_empty())?;
        Some(format!("{}{}{text}", self.api_url, purpose.path()))
    }
}

fn mac(secret: &str, purpose: Purpose, bytes: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(purpose.mark());
    mac.update(bytes);
    mac
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    fn secrets(of: &[&str]) -> Secrets {
        Secrets::new(of.iter().map(|secret| (*secret).to_owned()).collect()).unwrap()
    }

    fn permit() -> Permit {
        Permit {
            job: "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".parse().unwrap(),
            tenant: "default".to_owned(),
            step: "charge".to_owned(),
            visit: 2,
            round: 1,
            end_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn a_permit_is_read_as_it_was_signed_also_by_a_secret_that_is_going() {
        let text = secrets(&[OLD]).sign(Purpose::Callback, &permit()).unwrap();
        assert_eq!(secrets(&[OLD]).verify(Purpose::Callback, &text), Some(permit()));
        assert_eq!(secrets(&[NEW, OLD]).verify(Purpose::Callback, &text), Some(permit()));
        assert_eq!(secrets(&[NEW]).verify(Purpose::Callback, &text), None);
        assert_eq!(
            secrets(&[NEW, OLD]).sign(Purpose::Callback, &permit()),
            secrets(&[NEW]).sign(Purpose::Callback, &permit())
        );
        assert_eq!(permit().signal(), "callback:charge:2:1");
    }

    #[test]
    fn no_changed_bit_and_no_cut_is_accepted() {
        let secrets = secrets(&[OLD]);
        let text = secrets.sign(Purpose::Callback, &permit()).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(secrets.verify(Purpose::Callback, &URL_SAFE_NO_PAD.encode(&changed)), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(secrets.verify(Purpose::Callback, &URL_SAFE_NO_PAD.encode(&bytes[..length])), None);
        }
        for text in ["", "a", "not base64 at all", &"A".repeat(2_000), &format!("{text}=")] {
            assert_eq!(secrets.verify(Purpose::Callback, text), None);
        }
    }

    #[test]
    fn without_a_secret_nothing_is_signed_and_a_short_one_is_refused() {
        assert_eq!(Secrets::default().sign(Purpose::Callback, &permit()), None);
        assert_eq!(Callbacks::default().url(Purpose::Callback, &permit()), None);
        assert_eq!(
            Secrets::new(vec!["short".to_owned()]).unwrap_err().to_string(),
            "a secret has 5 bytes of at least 32"
        );
        assert!(!format!("{:?}", secrets(&[OLD])).contains(OLD));
    }

    #[test]
    fn a_permit_to_tell_of_progress_ends_no_step_and_the_reverse() {
        let secrets = secrets(&[OLD]);
        for (purpose, other) in [(Purpose::Callback, Purpose::Progress), (Purpose::Progress, Purpose::Callback)] {
            let text = secrets.sign(purpose, &permit()).unwrap();
            assert_eq!(secrets.verify(purpose, &text), Some(permit()));
            assert_eq!(secrets.verify(other, &text), None);
        }
    }

    #[test]
    fn the_url_is_the_apis() {
        let callbacks = Callbacks { api_url: "http://api".to_owned(), secrets: secrets(&[OLD]) };
        let url = callbacks.url(Purpose::Callback, &permit()).unwrap();
        let text = url.strip_prefix("http://api/v1/callbacks/").unwrap();
        assert_eq!(callbacks.secrets.verify(Purpose::Callback, text), Some(permit()));
    }
}
