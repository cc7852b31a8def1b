//! librdkafka's mock cluster, which is bound to one thread and lives as long as that.

use std::sync::mpsc;

use rdkafka::mocking::MockCluster;

use crate::Error;

struct CreateTopic {
    topic: String,
    partitions: i32,
    created: mpsc::Sender<Result<(), String>>,
}

/// The thread's address and its inbox; dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Broker {
    address: String,
    commands: mpsc::Sender<CreateTopic>,
}

impl Broker {
    pub(super) fn start() -> Result<Self, Error> {
        let (commands, inbox) = mpsc::channel::<CreateTopic>();
        let (started, address) = mpsc::channel();
        std::thread::Builder::new()
            .name("in-process-broker".to_owned())
            .spawn(move || {
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
            .map_err(|error| Error::settings(format!("no thread for the in-process broker: {error}")))?;
        let address = address
            .recv()
            .map_err(|error| Error::settings(error.to_string()))?
            .map_err(|error| Error::settings(format!("in-process broker: {error}")))?;
        Ok(Self { address, commands })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        let (created, answer) = mpsc::channel();
        let sent = self.commands.send(CreateTopic { topic: topic.to_owned(), partitions, created });
        match sent.ok().and_then(|()| answer.recv().ok()) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) if error.to_lowercase().contains("exists") => Ok(()),
            Some(Err(error)) => Err(Error::refused(error)),
            None => Err(Error::unavailable(format!("the in-process broker at {} has ended", self.address))),
        }
    }
}
