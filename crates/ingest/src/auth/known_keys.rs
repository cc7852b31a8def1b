//! All API keys, as this instance knows them: read from Postgres at the start, at every notification, and now and then,
//! beside the requests. An unknown key costs no question.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use store::Pool;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use web::caller::{Caller, Scope};
use web::problem::Problem;

use super::api_key::{HashKey, id_of};
use super::{Auth, refused, unready};
use crate::followed;

const NOTE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two writes of when keys were used.
const NOTE_EVERY: Duration = Duration::from_secs(10);

/// A key that is valid, or was when it was read.
pub(crate) struct KnownKey {
    pub(crate) caller: Caller,
    pub(crate) expires_at_ms: Option<i64>,
    /// Cancelled when the key is revoked.
    pub(crate) ended: CancellationToken,
    hash: Vec<u8>,
    /// Since the last write; 0: not.
    used_ms: AtomicI64,
}

pub(crate) struct KnownKeys {
    hashes: HashKey,
    by_id: RwLock<HashMap<String, Arc<KnownKey>>>,
    is_read: AtomicBool,
    /// When the latest of the rows was changed that were read, by Postgres' clock. Held while more are read, so that no
    /// earlier state is taken in after a later one.
    read_to_us: Mutex<i64>,
}

impl KnownKeys {
    pub(super) fn new(hashes: HashKey) -> Self {
        Self { hashes, by_id: RwLock::default(), is_read: AtomicBool::new(false), read_to_us: Mutex::new(0) }
    }

    /// The hash under which a key is stored.
    pub(crate) fn hash(&self, key: &str) -> Vec<u8> {
        self.hashes.hash(key)
    }

    /// The key that a caller shows, or the problem 401.
    pub(crate) fn find(&self, key: &str, now_ms: i64) -> Result<Arc<KnownKey>, Problem> {
        if !self.is_read.load(Ordering::Acquire) {
            return Err(unready("API keys"));
        }
        let known = id_of(key).and_then(|id| self.by_id.read().get(id).cloned());
        let known = known.filter(|known| self.hashes.fits(key, &known.hash));
        let known = known.filter(|known| known.expires_at_ms.is_none_or(|expires_at_ms| now_ms < expires_at_ms));
        let known = known.ok_or_else(|| refused("The API key is unknown, revoked or expired."))?;
        known.used_ms.store(now_ms, Ordering::Relaxed);
        Ok(known)
    }

    /// Reads what has changed.
    pub(crate) async fn refresh(&self, pool: &Pool) -> Result<(), store::Error> {
        let mut read_to_us = self.read_to_us.lock().await;
        let rows = store::api_keys::changed_since(pool, *read_to_us).await?;
        for row in rows {
            *read_to_us = row.changed_at_us.max(*read_to_us);
            self.learn(row);
        }
        self.is_read.store(true, Ordering::Release);
        Ok(())
    }

    /// Of a key that is known already, only its end is news.
    fn learn(&self, row: store::api_keys::KnownKey) {
        let store::api_keys::KnownKey { id, tenant, hash, scopes, expires_at_ms, is_revoked, .. } = row;
        let mut by_id = self.by_id.write();
        if is_revoked {
            if let Some(known) = by_id.remove(&id) {
                known.ended.cancel();
                tracing::info!(key = id, tenant, "an API key is revoked");
            }
            return;
        }
        by_id.entry(id).or_insert_with_key(|id| {
            let subject = format!("key:{id}");
            let scopes = scopes.iter().filter_map(|word| Scope::parse(word)).collect();
            Arc::new(KnownKey {
                caller: Caller { tenant, scopes, subject },
                expires_at_ms,
                ended: CancellationToken::new(),
                hash,
                used_ms: AtomicI64::new(0),
            })
        });
    }

    /// Drops the keys that have expired, and writes when the others were used.
    async fn note_used(&self, pool: &Pool, now_ms: i64) -> Result<(), store::Error> {
        let is_over = |known: &KnownKey| known.expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms <= now_ms);
        self.by_id.write().retain(|_, known| !is_over(known));
        let used = |(id, known): (&String, &Arc<KnownKey>)| match known.used_ms.swap(0, Ordering::Relaxed) {
            0 => None,
            used_ms => Some((id.clone(), used_ms)),
        };
        let used: Vec<(String, i64)> = self.by_id.read().iter().filter_map(used).collect();
        match used.is_empty() {
            true => Ok(()),
            // A use that cannot be written is told by the next one.
            false => store::api_keys::note_used(pool, &used).await,
        }
    }
}

/// Keeps the keys, and which tenants are disabled, up to date until shutdown. `listening` gives one connection away for
/// good. `look_every`: the pause between two looks without a notification.
pub(crate) async fn keep(
    auth: &Auth,
    (pool, listening): (&Pool, &Pool),
    look_every: Duration,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let listen = || store::api_keys::listen(listening);
    followed::keep("API keys", listen, || auth.refresh(pool), look_every, shutdown).await;
    Ok(())
}

/// Writes when keys were used until shutdown, and what is left at its end.
pub(crate) async fn note(
    known: &KnownKeys,
    pool: &Pool,
    clock: &service_kit::Clock,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let noting = tokio::time::timeout(NOTE_TIMEOUT, known.note_used(pool, clock.now_ms()));
        if let Ok(Err(error)) = noting.await {
            tracing::debug!(%error, "the use of API keys cannot be noted");
        }
        if shutdown.is_cancelled() {
            return Ok(());
        }
        let _ = shutdown.run_until_cancelled(tokio::time::sleep(NOTE_EVERY)).await;
    }
}

#[cfg(test)]
mod tests {
    use service_kit::identity::Ids;

    use super::super::api_key::draw;
    use super::*;

    fn row(keys: &KnownKeys, key: &str, is_revoked: bool) -> store::api_keys::KnownKey {
        store::api_keys::KnownKey {
            id: id_of(key).unwrap().to_owned(),
            tenant: "acme".to_owned(),
            hash: keys.hash(key),
            scopes: vec!["jobs:read".to_owned(), "of a later version".to_owned()],
            expires_at_ms: Some(1_000),
            is_revoked,
            changed_at_us: 1,
        }
    }

    impl KnownKeys {
        pub(crate) fn learn_all(&self, keys: &[String]) {
            keys.iter().for_each(|key| self.learn(row(self, key, false)));
            self.is_read.store(true, Ordering::Release);
        }
    }

    #[test]
    fn a_key_opens_until_it_expires_or_is_revoked_and_a_wrong_secret_never_does() {
        let keys = KnownKeys::new(HashKey::new(""));
        let key = draw(&Ids::seeded(1));
        let status = |key: &str, now_ms: i64| keys.find(key, now_ms).err().map(|problem| problem.status().as_u16());
        assert_eq!(status(&key, 1), Some(503), "nothing is read yet");
        keys.is_read.store(true, Ordering::Release);
        assert_eq!(status(&key, 1), Some(401));
        keys.learn(row(&keys, &key, false));
        let known = keys.find(&key, 999).unwrap();
        assert_eq!(
            (known.caller.tenant.as_str(), known.caller.subject.as_str()),
            ("acme", &*format!("key:{}", &key[3..19]))
        );
        assert!(known.caller.scopes.contains(Scope::JobsRead) && !known.caller.scopes.contains(Scope::Operate));
        let forged = format!("{}{}", &key[..83], if key.ends_with('0') { '1' } else { '0' });
        assert_eq!((status(&key, 1_000), status(&forged, 1)), (Some(401), Some(401)));
        keys.learn(row(&keys, &key, true));
        assert_eq!(status(&key, 1), Some(401));
        assert!(known.ended.is_cancelled(), "what goes on under it hears of it");
    }
}
