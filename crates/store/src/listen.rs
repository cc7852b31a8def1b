//! Notifications of Postgres: whoever waits for a change is told of it.

use std::time::Duration;

use sqlx::postgres::PgListener;

use crate::{Error, Pool};

/// Hears of what is notified on one channel.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Listener {
    /// Begins to listen. Whatever was changed before must be read after that.
    pub(crate) async fn on(pool: &Pool, channel: &str) -> Result<Self, Error> {
        let mut listener = PgListener::connect_with(pool.raw()).await?;
        listener.ignore_pool_close_event(true);
        listener.listen(channel).await?;
        Ok(Self(listener))
    }

    /// Waits for a change. False when the connection was lost: changes may have been missed since. The next call
    /// connects anew.
    pub async fn heard(&mut self) -> Result<bool, Error> {
        Ok(self.0.try_recv().await?.is_some())
    }

    /// The same for whoever looks now and then all the same: true also when that time has passed.
    pub async fn heard_within(&mut self, time: Duration) -> Result<bool, Error> {
        tokio::time::timeout(time, self.heard()).await.unwrap_or(Ok(true))
    }
}
