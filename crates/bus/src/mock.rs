//! The in-process broker of dev mode: librdkafka's mock cluster, on a thread of its own.
//!
//! It keeps at most 5 MiB or 100,000 records per partition, in memory, and knows neither CreateTopics nor isolation nor
//! committed offsets; see `BrokerKind::InProcess` for what this crate does about that.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};

use rdkafka::mocking::MockCluster;

use crate::Error;

/// The topics of every broker of this process, by address: how `admin` creates topics here.
static BROKERS: Mutex<BTreeMap<String, mpsc::Sender<CreateTopic>>> = Mutex::new(BTreeMap::new());

struct CreateTopic {
    topic: String,
    partitions: i32,
    created: mpsc::Sender<Result<(), String>>,
}

/// A running broker; dropping it ends it.
#[derive(Debug)]
pub struct Broker {
    address: String,
}

impl Broker {
    /// Starts one on 127.0.0.1, at a port of its own choice.
    pub fn start() -> Result<Self, Error> {
        let (commands, inbox) = mpsc::channel::<CreateTopic>();
        let (started, address) = mpsc::channel();
        std::thread::Builder::new()
            .name("mock-broker".to_owned())
            .spawn(move || {
                // The cluster is bound to one thread; it lives as long as this loop.
                let cluster = match MockCluster::new(1) {
                    Ok(cluster) => cluster,
                    Err(error) => {
                        let _ = started.send(Err(error.to_string()));
                        return;
                    }
                };
                let _ = started.send(Ok(cluster.bootstrap_servers()));
                for CreateTopic { topic, partitions, created } in inbox {
                    let result = cluster.create_topic(&topic, partitions, 1).map_err(|error| error.to_string());
                    let _ = created.send(result);
                }
            })
            .map_err(|error| Error::Settings(format!("no thread for the in-process broker: {error}")))?;
        let address = address
            .recv()
            .map_err(|error| Error::Settings(error.to_string()))?
            .map_err(|error| Error::Settings(format!("in-process broker: {error}")))?;
        BROKERS.lock().unwrap_or_else(PoisonError::into_inner).insert(address.clone(), commands);
        Ok(Self { address })
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Creates a topic; one that exists already stays as it is.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        create_topic(&self.address, topic, partitions)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        BROKERS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.address);
        crate::room::forget(&self.address);
    }
}

/// Creates a topic on the broker of this process with that address.
pub(crate) fn create_topic(address: &str, topic: &str, partitions: i32) -> Result<(), Error> {
    let (created, answer) = mpsc::channel();
    let command = CreateTopic { topic: topic.to_owned(), partitions, created };
    let sent = {
        let brokers = BROKERS.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.get(address).is_some_and(|broker| broker.send(command).is_ok())
    };
    if !sent {
        return Err(Error::Unavailable(format!("no in-process broker at {address}")));
    }
    match answer.recv() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.to_lowercase().contains("exists") => Ok(()),
        Ok(Err(error)) => Err(Error::Refused(error)),
        Err(_) => Err(Error::Unavailable(format!("the in-process broker at {address} has ended"))),
    }
}
