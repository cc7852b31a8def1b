//! From records to values. Nothing is written here.

use bus::{Inbound, Reader, Record, RecordBatch, RegistryError, Unreadable};
use events::dead_letter::{self, Class, Refused, RefusedRecord};
use events::flow_document::FlowDocument;
use events::trace::Trace;
use events::wait::{Resume, Signal, Wait};
use events::{Writer, decode_cancel, decode_event, decode_wait};
use flow::id::TokenId;
use flow::slip::Hold;
use service_kit::identity::Clock;
use service_kit::trace::{Message, Span, is_on};
use store::dead_letters::{DeadLetter, Original};
use store::holds::NewHold;
use store::jobs::ObservedEvent;

use crate::lanes::LongCalls;
use crate::resume::Resumed;
use crate::trace::cause;

/// Everything that the records of one batch mean.
#[derive(Default)]
pub(crate) struct TakenIn {
    pub(crate) records: usize,
    pub(crate) events: Vec<ObservedEvent>,
    pub(crate) holds: Vec<NewHold>,
    pub(crate) long_calls: LongCalls,
    /// Tokens that an operator resumes. They rest already or are among these holds: both come by one partition, in
    /// order.
    pub(crate) to_resume: Vec<TokenId>,
    /// The spans of the holds; they end with the batch.
    pub(crate) spans: Vec<Span>,
    /// Dead letters of anybody, for the index.
    pub(crate) indexed: Vec<DeadLetter>,
    /// Dead letters of these records, for the outbox.
    pub(crate) dead_letters: Vec<Record>,
    /// Why, one for each of them.
    pub(crate) refused: Vec<RefusedRecord>,
    /// The tokens that were taken; known once they are.
    pub(crate) resumed: Resumed,
}

/// Counts and logs a refused record.
pub(crate) fn log_refused(record: &RefusedRecord) {
    let RefusedRecord { topic, partition, offset, refused: Refused { class, reason } } = record;
    let class = class.as_str();
    metrics::counter!("meanwhile_dead_letters_total", "role" => "orchestrator", "class" => class).increment(1);
    tracing::warn!(topic, partition, offset, class, reason, "record refused");
}

/// Reads records; keeps the one door for each topic's unreadable ones.
pub(crate) struct TakeIn {
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    pub(crate) clock: Clock,
}

/// Why a record has no effect.
enum Unread {
    Refused(Refused),
    /// The registry does not answer.
    NotNow(RegistryError),
}

impl From<Refused> for Unread {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Unreadable> for Unread {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Never(reason) => Self::Refused(unreadable(reason)),
            Unreadable::NotNow(error) => Self::NotNow(error),
        }
    }
}

impl TakeIn {
    /// Reads the records of a batch, in their order.
    ///
    /// # Errors
    /// The registry does not answer; nothing is known about the record then, so nothing is refused.
    pub(crate) async fn read(&self, batch: &RecordBatch) -> Result<TakenIn, RegistryError> {
        let mut taken_in = TakenIn { records: batch.len(), ..TakenIn::default() };
        for record in batch.parts.iter().flat_map(|part| &part.records) {
            match self.read_one(record, &mut taken_in).await {
                Ok(()) => {}
                Err(Unread::Refused(refused)) => self.refuse(record, refused, &mut taken_in),
                Err(Unread::NotNow(error)) => return Err(error),
            }
        }
        Ok(taken_in)
    }

    /// The record becomes a dead letter.
    pub(crate) fn refuse(&self, record: &Inbound, refused: Refused, taken_in: &mut TakenIn) {
        taken_in.dead_letters.push(self.writer.refused(record, &refused, self.clock.now_ms()));
        taken_in.refused.push(RefusedRecord::new(record, refused));
    }

    async fn read_one(&self, record: &Inbound, taken_in: &mut TakenIn) -> Result<(), Unread> {
        let topic = record.topic.as_str();
        let value = record.value.as_deref();
        if topic == self.writer.topics.events() {
            let event = self.reader.read(value, decode_event).await?;
            taken_in.events.push(ObservedEvent {
                partition: record.partition,
                cursor: record.offset,
                trace_id: Trace::from_headers(&record.headers).map(|trace| trace.context.trace_id),
                event,
            });
        } else if topic == self.writer.topics.waits() {
            match self.reader.read(value, decode_wait).await? {
                Wait::Hold(hold) => {
                    let hold = self.at_rest(record, &hold, taken_in)?;
                    taken_in.holds.push(hold);
                }
                Wait::Running(call) => {
                    let hold = self.at_rest(record, &call.hold, taken_in)?;
                    taken_in.long_calls.running(hold, call);
                }
                Wait::Turn(turn) => {
                    let hold = self.at_rest(record, &turn.hold, taken_in)?;
                    taken_in.long_calls.turn(hold, turn);
                }
                Wait::Outcome(outcome) => taken_in.long_calls.outcome(outcome),
                Wait::Alive(alive) => taken_in.long_calls.alive(&alive),
                Wait::Question(question) => taken_in.long_calls.question(&question),
                Wait::Signal(signal) => taken_in.to_resume.push(token(&signal)?),
            }
        } else if topic == self.writer.topics.dead_letters() {
            taken_in.indexed.push(index_entry(record));
        } else if topic == self.writer.topics.flows() {
            if let Some(value) = value {
                let flow = FlowDocument::parse(value).and_then(|document| document.definition());
                flow.map_err(|error| unreadable(error.to_string()))?;
            }
        } else if value.is_some() {
            // Cancels are the workers' to act on; here they are only checked. A tombstone takes one back.
            self.reader.read(value, decode_cancel).await?;
        }
        Ok(())
    }

    fn at_rest(&self, record: &Inbound, hold: &Hold, taken_in: &mut TakenIn) -> Result<NewHold, Unread> {
        let span = self.span(record, hold);
        let new = self.hold(record, hold, &span)?;
        if span.is_recorded() {
            taken_in.spans.push(span);
        }
        Ok(new)
    }

    /// `process <topic>`: the token comes to rest. What is released later is caused by this.
    fn span(&self, record: &Inbound, hold: &Hold) -> Span {
        if !is_on() {
            return Span::none();
        }
        let job = hold.slip.job.to_string();
        let message = Message {
            topic: &record.topic,
            key: record.key.as_deref(),
            job: Some(&job),
            cause: Some(cause(&record.headers, hold.slip.job).context),
        };
        let group = format_args!("{}-orchestrator", self.writer.topics.prefix());
        let span = Span::process(&message, group, record.partition, record.offset);
        span.text("meanwhile.flow", &hold.slip.flow)
            .text("meanwhile.step", &hold.slip.step)
            .text("meanwhile.phase", hold.slip.phase.as_str())
            .number("meanwhile.visit", i64::from(hold.slip.visit))
            .text("meanwhile.hold.reason", hold.reason.as_str());
        if let Some(delay_ms) = hold.release_after_ms {
            span.number("meanwhile.hold.release_after_ms", i64::try_from(delay_ms).unwrap_or(i64::MAX));
        }
        span
    }

    fn hold(&self, record: &Inbound, hold: &Hold, span: &Span) -> Result<NewHold, Unread> {
        let mut trace = cause(&record.headers, hold.slip.job);
        if let Some(context) = span.point() {
            trace.context = context;
        }
        let slip_record = self.writer.slip(&hold.queue, &hold.slip, &trace);
        Ok(NewHold {
            token: hold.slip.token(),
            reason: hold.reason,
            release_after_ms: hold.release_after_ms,
            record: slip_record.map_err(|error| unreadable(error.to_string()))?,
            worker: None,
            place: None,
        })
    }
}

fn unreadable(reason: String) -> Refused {
    Refused::new(Class::Unreadable, reason)
}

/// The only signal that this version knows.
fn token(signal: &Signal) -> Result<TokenId, Unread> {
    let resume = signal.as_resume().map_err(|error| unreadable(error.to_string()))?;
    let Some(Resume { token, .. }) = resume else {
        let reason = format!("signals are not supported by this version (`{}`)", signal.name);
        return Err(Refused::new(Class::Unsupported, reason).into());
    };
    Ok(token)
}

fn index_entry(record: &Inbound) -> DeadLetter {
    let burial = dead_letter::burial(record);
    let (class, reason, attempts) = match &burial {
        Some(burial) => (burial.failure.class.clone(), burial.failure.reason.clone(), burial.failure.attempts),
        None => ("foreign".to_owned(), "the record has no failure headers".to_owned(), 0),
    };
    let original =
        burial.map(|burial| Original { topic: burial.topic, partition: burial.partition, offset: burial.offset });
    // Postgres' text takes no zero characters, and these headers may come from anybody.
    let plain = |text: String| text.replace('\0', "\u{fffd}");
    DeadLetter {
        topic: record.topic.clone(),
        partition: record.partition,
        offset: record.offset,
        original: original.map(|original| Original { topic: plain(original.topic), ..original }),
        class: plain(class),
        reason: plain(reason),
        attempts,
        key: record.key.clone(),
        headers: record.headers.clone(),
        value_bytes: u32::try_from(record.value.as_ref().map_or(0, Vec::len)).unwrap_or(u32::MAX),
        at_ms: record.timestamp_ms,
    }
}
