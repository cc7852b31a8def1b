//! The issuer's public keys: read from a URL or a file, kept, and read again now and then, and when a token names a key
//! that is not among them. While they cannot be read, those that are known stay.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flow::decide::HttpAnswer;
use outbound::{Call, Client, Guard, Limits};
use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::jws::{PublicKey, public_keys};

/// The pause between two reads that nothing has caused.
const READ_EVERY: Duration = Duration::from_secs(600);
/// The pause after a read that has failed.
const RETRY: Duration = Duration::from_secs(5);
/// Tokens that name unknown keys cause one read in this time, at most: anybody can make such tokens up.
const CAUSED_EVERY: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const LIMITS: Limits = Limits {
    response_bytes_max: 256 * 1024,
    connect_timeout: READ_TIMEOUT,
    idle_connections_max: 1,
    idle_timeout: Duration::from_secs(60),
};

enum Source {
    Url(String, Client),
    File(PathBuf),
}

pub(super) struct Jwks {
    source: Source,
    /// None before they were read for the first time.
    keys: RwLock<Option<Arc<[PublicKey]>>>,
    /// When they were read last, or should have been.
    read_at: Mutex<Option<Instant>>,
}

impl Jwks {
    /// `at`: a URL, or the path of a file.
    pub(super) fn new(at: &str) -> anyhow::Result<Self> {
        let source = match at.starts_with("https://") || at.starts_with("http://") {
            // The operator has chosen it, so it may be anywhere.
            true => Source::Url(at.to_owned(), Client::new(&LIMITS, Guard::none())?),
            false => Source::File(at.into()),
        };
        Ok(Self { source, keys: RwLock::default(), read_at: Mutex::default() })
    }

    /// The keys; none before they were read.
    pub(super) fn known(&self) -> Option<Arc<[PublicKey]>> {
        self.keys.read().clone()
    }

    /// Reads them again, unless that was tried a moment ago. Of several callers one reads, and the others wait for it.
    pub(super) async fn refresh(&self) {
        let mut read_at = self.read_at.lock().await;
        if read_at.is_none_or(|read_at| read_at.elapsed() >= CAUSED_EVERY) {
            *read_at = Some(Instant::now());
            self.read().await;
        }
    }

    /// Reads them now and then.
    pub(super) async fn keep(&self) -> std::convert::Infallible {
        loop {
            let is_read = {
                let mut read_at = self.read_at.lock().await;
                *read_at = Some(Instant::now());
                self.read().await
            };
            tokio::time::sleep(if is_read { READ_EVERY } else { RETRY }).await;
        }
    }

    /// False where they cannot be read now.
    async fn read(&self) -> bool {
        match self.text().await.and_then(|text| public_keys(&text).map_err(|error| error.to_string())) {
            Ok(keys) => {
                if keys.is_empty() {
                    tracing::warn!("the issuer's JWKS has no key of RS256, ES256 or EdDSA; no token is taken");
                }
                *self.keys.write() = Some(keys.into());
                true
            }
            Err(reason) => {
                tracing::warn!(reason, "the issuer's JWKS cannot be read; the keys that are known stay");
                false
            }
        }
    }

    async fn text(&self) -> Result<Vec<u8>, String> {
        match &self.source {
            Source::File(path) => tokio::fs::read(path).await.map_err(|error| error.to_string()),
            Source::Url(url, client) => {
                let headers = vec![("accept", b"application/jwk-set+json, application/json".to_vec())];
                let call = Call { method: "GET", url, headers, body: None, timeout: READ_TIMEOUT };
                match client.send(call).await {
                    HttpAnswer::Response { status: 200, body, .. } => Ok(body),
                    HttpAnswer::Response { status, .. } => Err(format!("its address answers {status}")),
                    other => Err(format!("{other:?}")),
                }
            }
        }
    }
}
