//! Dead letters for the index: what their headers say, and whom their records are about.

use bus::{Inbound, RegistryError, Unreadable};
use events::wait::Wait;
use events::{command, dead_letter};
use events::{decode_event, decode_wait, peek_slip};
use flow::facts::JobFacts;
use store::dead_letters::{DeadLetter, Original};

use crate::take_in::TakeIn;

/// The tenant, the flow and the step that a record is about.
type About = (Option<String>, Option<String>, Option<String>);

impl TakeIn {
    /// # Errors
    /// The registry does not answer.
    pub(crate) async fn index_entry(&self, record: &Inbound) -> Result<DeadLetter, RegistryError> {
        let burial = dead_letter::burial(record);
        let (class, reason, attempts) = match &burial {
            Some(burial) => (burial.failure.class.clone(), burial.failure.reason.clone(), burial.failure.attempts),
            None => ("foreign".to_owned(), "the record has no failure headers".to_owned(), 0),
        };
        let (tenant, flow, step) = match &burial {
            Some(burial) => self.about(&burial.topic, record).await?,
            None => (None, None, None),
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
            tenant,
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
            slip.map(|slip| (Some(slip.facts.tenant), Some(slip.facts.flow), Some(slip.step)))
        } else if topic == topics.events() {
            let event = self.reader.read(value, decode_event).await;
            event.map(|event| (Some(event.facts.tenant), Some(event.facts.flow), event.step))
        } else if topic == topics.waits() {
            self.reader.read(value, decode_wait).await.map(|wait| about_wait(&wait))
        } else if topics.is_commands(topic) {
            let tenant = topics.tenant_of_commands(topic).map(str::to_owned);
            Ok((tenant, value.and_then(command::flow_named), None))
        } else {
            Ok((None, None, None))
        };
        match read {
            Ok(about) => Ok(about),
            Err(Unreadable::NotNow(error)) => Err(error),
            Err(Unreadable::Never(_) | Unreadable::Newer(_)) => Ok(about_key(record.key.as_deref())),
        }
    }
}

fn about_wait(wait: &Wait) -> About {
    let slip = wait.hold().map(|hold| &hold.slip);
    let facts = slip.map(|slip| &slip.facts);
    let of = |name: fn(&JobFacts) -> &String| facts.map(|facts| name(facts).clone());
    (of(|facts| &facts.tenant), of(|facts| &facts.flow), slip.map(|slip| slip.step.clone()))
}

/// The tenant and the flow in the key of a slip that cannot be read: `tenant/flow/ordering key`.
fn about_key(key: Option<&[u8]>) -> About {
    let parts = key.and_then(|key| std::str::from_utf8(key).ok()).map(|key| key.splitn(3, '/').collect::<Vec<_>>());
    match parts.as_deref() {
        Some([tenant, flow, _]) if !tenant.is_empty() && !flow.is_empty() => {
            (Some((*tenant).to_owned()), Some((*flow).to_owned()), None)
        }
        _ => (None, None, None),
    }
}
