//! Dead letters for the index: what their headers say, and whom their records are about.

use bus::{Inbound, RegistryError, Unreadable};
use events::wait::Wait;
use events::{command, dead_letter};
use events::{decode_event, decode_wait, peek_slip};
use store::dead_letters::{DeadLetter, Original};

use crate::take_in::TakeIn;

/// The flow and the step that a record is about.
type About = (Option<String>, Option<String>);

impl TakeIn {
    /// # Errors
    /// The registry does not answer.
    pub(crate) async fn index_entry(&self, record: &Inbound) -> Result<DeadLetter, RegistryError> {
        let burial = dead_letter::burial(record);
        let (class, reason, attempts) = match &burial {
            Some(burial) => (burial.failure.class.clone(), burial.failure.reason.clone(), burial.failure.attempts),
            None => ("foreign".to_owned(), "the record has no failure headers".to_owned(), 0),
        };
        let (flow, step) = match &burial {
            Some(burial) => self.about(&burial.topic, record).await?,
            None => (None, None),
        };
        let original =
            burial.map(|burial| Original { topic: burial.topic, partition: burial.partition, offset: burial.offset });
        // Postgres' text takes no zero characters, and any producer may have written these headers.
        let plain = |text: String| text.replace('\0', "\u{fffd}");
        Ok(DeadLetter {
            topic: record.topic.clone(),
            partition: record.partition,
            offset: record.offset,
            original: original.map(|original| Original { topic: plain(original.topic), ..original }),
            class: plain(class),
            reason: plain(reason),
            flow,
            step,
            attempts,
            key: record.key.clone(),
            headers: record.headers.clone(),
            value_bytes: u32::try_from(record.value.as_ref().map_or(0, Vec::len)).unwrap_or(u32::MAX),
            at_ms: record.timestamp_ms,
        })
    }

    /// `topic`: where the record failed.
    async fn about(&self, topic: &str, record: &Inbound) -> Result<About, RegistryError> {
        let (topics, value) = (&self.writer.topics, record.value.as_deref());
        let read = if topics.queue_of(topic).is_some() {
            let slip = self.reader.read(value, peek_slip).await;
            slip.map(|slip| (Some(slip.facts.flow), Some(slip.step)))
        } else if topic == topics.events() {
            self.reader.read(value, decode_event).await.map(|event| (Some(event.facts.flow), event.step))
        } else if topic == topics.waits() {
            self.reader.read(value, decode_wait).await.map(|wait| about_wait(&wait))
        } else if topic == topics.commands() {
            Ok((value.and_then(command::flow_named), None))
        } else {
            Ok((None, None))
        };
        match read {
            Ok(about) => Ok(about),
            Err(Unreadable::NotNow(error)) => Err(error),
            Err(Unreadable::Never(_) | Unreadable::Newer(_)) => Ok((flow_of_key(record.key.as_deref()), None)),
        }
    }
}

fn about_wait(wait: &Wait) -> About {
    let slip = wait.hold().map(|hold| &hold.slip);
    (slip.map(|slip| slip.facts.flow.clone()), slip.map(|slip| slip.step.clone()))
}

/// The flow in the key of a slip that cannot be read: `tenant/flow/ordering key`.
fn flow_of_key(key: Option<&[u8]>) -> Option<String> {
    let mut parts = std::str::from_utf8(key?).ok()?.splitn(3, '/');
    let flow = parts.nth(1).filter(|flow| !flow.is_empty())?;
    parts.next().map(|_| flow.to_owned())
}
