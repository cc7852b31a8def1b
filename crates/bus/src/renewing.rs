//! A client that is made anew, in place, when it has heard nothing of Kafka for long. While Kafka is away, that happens
//! once in [`DEAF_AFTER`] at most, and only as often as the client is used.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rdkafka::consumer::BaseConsumer;
use rdkafka::{ClientConfig, config::FromClientConfigAndContext};

use crate::connection::{Connection, DEAF_AFTER, greet, serve_events};
use crate::{Error, Settings};

/// The time that a client has to be heard for the first time, before it is asked all the same.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// A client, and how to make another.
pub(crate) struct Renewing<C> {
    make: Box<dyn Fn(Connection) -> Result<C, Error> + Send + Sync>,
    connection: Connection,
    client: RwLock<Arc<C>>,
}

impl<C> Renewing<C> {
    /// Makes the first client.
    pub(crate) fn new(
        role: &'static str,
        make: impl Fn(Connection) -> Result<C, Error> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let connection = Connection::new(role);
        let client = RwLock::new(Arc::new(make(connection.clone())?));
        Ok(Self { make: Box::new(make), connection, client })
    }

    /// The present client.
    pub(crate) fn client(&self) -> Arc<C> {
        Arc::clone(&self.client.read())
    }

    /// Notes the outcome of a request that began then. If there was no answer for long, the next one finds another
    /// client.
    pub(crate) fn heard<T>(&self, began: Instant, outcome: Result<T, impl Into<Error>>) -> Result<T, Error> {
        let outcome = outcome.map_err(Into::into);
        match &outcome {
            Ok(_) => self.connection.alive(),
            Err(Error::Unavailable(_)) => {
                self.connection.unanswered(began);
                self.renew_if(|_| self.is_deaf())?;
                if let Some(refusal) = self.connection.refusal() {
                    return Err(Error::Denied(refusal.into()));
                }
            }
            Err(_) => {}
        }
        outcome
    }

    /// Makes another client where the present one is useless. True if it did.
    pub(crate) fn renew_if(&self, is_useless: impl Fn(&C) -> bool) -> Result<bool, Error> {
        if !is_useless(&self.client()) {
            return Ok(false);
        }
        let mut client = self.client.write();
        // Another caller may have been faster.
        if !is_useless(&client) {
            return Ok(false);
        }
        let made = Arc::new((self.make)(self.connection.clone())?);
        let old = std::mem::replace(&mut *client, made);
        self.connection.begin_anew();
        drop(client);
        drop(old);
        Ok(true)
    }

    /// True if it should make room for another one before it is used again.
    pub(crate) fn is_deaf(&self) -> bool {
        self.connection.is_silent_for(DEAF_AFTER)
    }
}

/// A client that is only asked, and never polled.
pub(crate) type Lookup = Renewing<BaseConsumer<Connection>>;

impl Lookup {
    /// Connects in the background; fails only for settings that make no client.
    pub(crate) fn connect(role: &'static str, settings: &Settings, own: &[(&str, &str)]) -> Result<Self, Error> {
        let config: ClientConfig = settings.client_config(own);
        Self::new(role, move |connection| Ok(BaseConsumer::from_config_and_context(&config, connection)?))
    }

    /// Asks; blocks.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&BaseConsumer<Connection>) -> Result<T, Error>) -> Result<T, Error> {
        let (began, client) = (Instant::now(), self.client());
        greet(&client, GREETING_TIMEOUT);
        let found = match self.connection.refusal() {
            Some(_) => Err(Error::unavailable("refused")),
            None => look(&client),
        };
        serve_events(&client);
        self.heard(began, found)
    }
}
