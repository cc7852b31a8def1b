//! Tells a relay that polls that rows were committed: a notification on a connection of its own, never inside the
//! writing transaction, whose commits it would put in a row. Where relays read the log, nothing is sent.
//!
//! A notification that is lost costs time only: relays look every now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::reader::Way;

/// The channel on which relays that poll listen.
pub(crate) const CHANNEL: &str = "meanwhile_outbox";

/// A notification need not be on disk.
const NOTIFY: &str = "begin; set local synchronous_commit = off; notify meanwhile_outbox; commit";
/// The way of reading is looked up anew after this time.
const WAY_KNOWN: Duration = Duration::from_secs(30);
/// The longest time that a writer spends on it.
const WITHIN: Duration = Duration::from_secs(1);

/// Of one pool. Clones share their knowledge.
#[derive(Debug, Clone)]
pub(crate) struct Announcer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    opened_at: Instant,
    /// Until this time after the opening it is known that relays read the log.
    is_log_until_ms: AtomicU64,
    /// Somebody is about to send a notification, which will be of all rows that are committed by now.
    is_pending: AtomicBool,
    sending: Mutex<Sending>,
}

#[derive(Debug, Default)]
struct Sending {
    is_polling_until: Option<Instant>,
}

/// Takes the promise of a notification back when dropped.
struct Pending<'a>(&'a AtomicBool);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Announcer {
    pub(crate) fn new(pool: PgPool) -> Self {
        let (is_log_until_ms, is_pending) = (AtomicU64::new(0), AtomicBool::new(false));
        Self(Arc::new(Shared {
            pool,
            opened_at: Instant::now(),
            is_log_until_ms,
            is_pending,
            sending: Mutex::default(),
        }))
    }

    /// Tells of rows that were committed before; at most one call sends and one waits, for all others too. Errors are
    /// none of the caller's: its rows are committed. Returns whether relays poll, as far as known.
    pub(crate) async fn announce(&self) -> bool {
        let Shared { opened_at, is_log_until_ms, is_pending, sending, .. } = &*self.0;
        if opened_at.elapsed().as_millis() < u128::from(is_log_until_ms.load(Ordering::Relaxed)) {
            return false;
        }
        if is_pending.swap(true, Ordering::SeqCst) {
            return true;
        }
        let pending = Pending(is_pending);
        let announcing = async {
            let mut sending = sending.lock().await;
            drop(pending);
            self.send(&mut sending).await
        };
        tokio::time::timeout(WITHIN, announcing).await.is_ok_and(|sent| sent.unwrap_or(false))
    }

    async fn send(&self, sending: &mut Sending) -> Result<bool, sqlx::Error> {
        if sending.is_polling_until.is_none_or(|until| until <= Instant::now()) {
            let way = sqlx::query_scalar!("select way from outbox.reader").fetch_optional(&self.0.pool).await?;
            if way.as_deref() != Some(Way::Polling.as_str()) {
                let until = self.0.opened_at.elapsed() + WAY_KNOWN;
                let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
                self.0.is_log_until_ms.store(until_ms, Ordering::Relaxed);
                sending.is_polling_until = None;
                return Ok(false);
            }
            sending.is_polling_until = Some(Instant::now() + WAY_KNOWN);
        }
        sqlx::raw_sql(NOTIFY).execute(&self.0.pool).await?;
        Ok(true)
    }
}
