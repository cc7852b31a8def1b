//! Reads records into values, and writes nothing.

use bus::{Inbound, Reader, Record, RecordBatch, RegistryError, Unreadable};
use events::breaker::BreakerNews;
use events::cancel::Cancel;
use events::dead_letter::{Class, Refused, RefusedRecord};
use events::flow_document::{FlowDocument, NotAFlow};
use events::header;
use events::trace::Trace;
use events::wait::{Resume, Signal, Unread, UnreadRest, Wait};
use events::{Writer, decode_cancel, decode_event, decode_wait_and_slip};
use flow::id::JobId;
use flow::slip::{Hold, HoldReason};
use service_kit::identity::Clock;
use service_kit::trace::{Message, Span, is_on};
use store::dead_letters::DeadLetter;
use store::holds::NewHold;
use store::jobs::ObservedEvent;
use store::signals::NewSignal;

use crate::breakers::Changed;
use crate::cancels::Met;
use crate::lanes::LongCalls;
use crate::later;
use crate::resume::Resumed;
use crate::trace::cause;

/// The values of one batch of records.
#[derive(Default)]
pub(crate) struct TakenIn {
    pub(crate) records: usize,
    pub(crate) events: Vec<ObservedEvent>,
    pub(crate) holds: Vec<NewHold>,
    pub(crate) long_calls: LongCalls,
    /// Tokens that an operator resumes. They rest already or are among these holds: holds and signals of a job
    /// come by one partition, in order.
    pub(crate) to_resume: Vec<Resume>,
    /// Signals for which flows wait.
    pub(crate) signals: Vec<NewSignal>,
    /// News of breakers.
    pub(crate) breakers: Vec<BreakerNews>,
    /// The breakers that changed; known after the write.
    pub(crate) changed: Changed,
    /// Jobs that somebody wants cancelled.
    pub(crate) cancels: Vec<Cancel>,
    /// The jobs of which a cancel was taken back, or that only name an echo.
    pub(crate) tombstones: Vec<JobId>,
    /// The spans of the holds; they end with the batch.
    pub(crate) spans: Vec<Span>,
    /// Dead letters that were read from their topic, for the index.
    pub(crate) indexed: Vec<DeadLetter>,
    /// Dead letters of this batch's refused records, for the outbox.
    pub(crate) dead_letters: Vec<Record>,
    /// The reasons, one for each of those dead letters.
    pub(crate) refused: Vec<RefusedRecord>,
    /// The number of tokens that were released by their signals; known after the write.
    pub(crate) signalled: u64,
    /// The changes that cancels made; known after the write.
    pub(crate) met: Met,
    /// The resumed tokens; known after the write.
    pub(crate) resumed: Resumed,
}

impl TakenIn {
    /// True if there is a new hold that is released at a time.
    pub(crate) fn has_new_due(&self) -> bool {
        !self.holds.is_empty() || self.long_calls.has_new_due()
    }

    fn unread(&mut self, unread: Unread) {
        let Unread { token, mut record, rest, .. } = unread;
        // The slip may carry the headers of an earlier turn.
        record.headers.retain(|(name, _)| name != header::TURN && name != header::TURN_PLACE);
        let mut hold = NewHold::new(token, HoldReason::Unread, record);
        match rest {
            UnreadRest::Until(after_ms) => {
                hold.release_after_ms = Some(after_ms);
                self.long_calls.holder(hold);
            }
            UnreadRest::Behind(token, place) => {
                hold.reason = HoldReason::Turn;
                self.long_calls.turn(hold, token, place);
            }
        }
    }
}

/// Counts and logs a refused record.
pub(crate) fn log_refused(record: &RefusedRecord) {
    let RefusedRecord { topic, partition, offset, refused: Refused { class, reason } } = record;
    let class = class.as_str();
    metrics::counter!("meanwhile_dead_letters_total", "role" => "orchestrator", "class" => class).increment(1);
    tracing::warn!(topic, partition, offset, class, reason, "record refused");
}

/// Reads records, and turns unreadable ones into dead letters.
pub(crate) struct TakeIn {
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    pub(crate) clock: Clock,
}

/// The reason for which a record has no effect.
enum NotTaken {
    Refused(Refused),
    /// A later version has written it.
    Newer(String),
    /// The registry does not answer.
    NotNow(RegistryError),
}

impl From<Refused> for NotTaken {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Unreadable> for NotTaken {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Never(reason) => Self::Refused(unreadable(reason)),
            Unreadable::Newer(what) => Self::Newer(what),
            Unreadable::NotNow(error) => Self::NotNow(error),
        }
    }
}

impl TakeIn {
    /// Reads the records of a batch, in their order.
    ///
    /// # Errors
    /// The registry does not answer: a record cannot be read yet, so it is not refused.
    pub(crate) async fn read(&self, batch: &RecordBatch) -> Result<TakenIn, RegistryError> {
        let mut taken_in = TakenIn { records: batch.len(), ..TakenIn::default() };
        for record in batch.parts.iter().flat_map(|part| &part.records) {
            match self.read_one(record, &mut taken_in).await {
                Ok(()) => {}
                Err(NotTaken::Refused(refused)) => self.refuse(record, refused, &mut taken_in),
                Err(NotTaken::Newer(what)) => {
                    taken_in.holds.extend(later::kept(&self.writer, record, &what, self.clock.now_ms()))
                }
                Err(NotTaken::NotNow(error)) => return Err(error),
            }
        }
        Ok(taken_in)
    }

    /// Turns the record into a dead letter.
    pub(crate) fn refuse(&self, record: &Inbound, refused: Refused, taken_in: &mut TakenIn) {
        taken_in.dead_letters.push(self.writer.refused(record, &refused, self.clock.now_ms()));
        taken_in.refused.push(RefusedRecord::new(record, refused));
    }

    async fn read_one(&self, record: &Inbound, taken_in: &mut TakenIn) -> Result<(), NotTaken> {
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
            let (wait, slip) = self.reader.read(value, decode_wait_and_slip).await?;
            let slip = slip.unwrap_or_default();
            match wait {
                Wait::Hold(hold) => {
                    let new = self.at_rest(record, &hold, slip, taken_in);
                    match hold.reason {
                        HoldReason::Room => taken_in.long_calls.holder(new),
                        _ => taken_in.holds.push(new),
                    }
                }
                Wait::Unread(unread) => taken_in.unread(unread),
                Wait::Running(call) => {
                    let hold = self.at_rest(record, &call.hold, slip, taken_in);
                    taken_in.long_calls.running(hold, call);
                }
                Wait::Turn(turn) => {
                    let hold = self.at_rest(record, &turn.hold, slip, taken_in);
                    taken_in.long_calls.turn(hold, turn.behind, turn.place);
                }
                Wait::Outcome(outcome) => taken_in.long_calls.outcome(outcome),
                Wait::Breaker(news) => taken_in.breakers.push(news),
                Wait::Alive(alive) => taken_in.long_calls.alive(&alive),
                Wait::Question(question) => taken_in.long_calls.question(&question),
                Wait::Signal(signal) if signal.is_for_flow() => taken_in.signals.push(new_signal(signal)),
                Wait::Signal(signal) => match signal.as_cancel() {
                    Some(cancel) => taken_in.cancels.push(cancel),
                    None => taken_in.to_resume.push(resume(&signal)?),
                },
            }
        } else if topic == self.writer.topics.dead_letters() {
            taken_in.indexed.push(self.index_entry(record).await.map_err(NotTaken::NotNow)?);
        } else if topic == self.writer.topics.flows() {
            if let Some(value) = value {
                match FlowDocument::parse(value).and_then(|document| document.definition()) {
                    // A later version may have written it: those that cannot read it say so, and wait.
                    Ok(_) | Err(NotAFlow::Problems(_)) => {}
                    Err(error) => return Err(unreadable(error.to_string()).into()),
                }
            }
        } else if value.is_some() {
            // Cancels are meant for workers; here they are only checked. A tombstone takes one back.
            self.reader.read(value, decode_cancel).await?;
        } else {
            let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
            taken_in.tombstones.extend(key.and_then(|key| key.parse::<JobId>().ok()));
        }
        Ok(())
    }

    /// `slip`: the hold's, as it is. It is sent on so, whatever this version knows of it.
    fn at_rest(&self, record: &Inbound, hold: &Hold, slip: Vec<u8>, taken_in: &mut TakenIn) -> NewHold {
        let span = self.span(record, hold);
        let new = self.hold(record, hold, slip, &span);
        if span.is_recorded() {
            taken_in.spans.push(span);
        }
        new
    }

    /// Begins the span `process <topic>`, in which a token comes to rest. It is the cause of the later release.
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
        let group = self.writer.topics.waits_group();
        let span = Span::process(&message, format_args!("{group}"), record.partition, record.offset);
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

    fn hold(&self, record: &Inbound, hold: &Hold, slip: Vec<u8>, span: &Span) -> NewHold {
        let mut trace = cause(&record.headers, hold.slip.job);
        if let Some(context) = span.point() {
            trace.context = context;
        }
        let record = self.writer.slip_as_it_is(&hold.queue, &hold.slip, slip, &trace);
        NewHold {
            release_after_ms: hold.release_after_ms,
            signal: hold.signal.clone(),
            downstream: hold.limit.clone(),
            step: Some(hold.slip.step.clone()),
            ..NewHold::new(hold.slip.token(), hold.reason, record)
        }
    }
}

fn unreadable(reason: String) -> Refused {
    Refused::new(Class::Unreadable, reason)
}

fn new_signal(signal: Signal) -> NewSignal {
    let payload = signal.payload_bytes();
    NewSignal { job: signal.job, name: signal.name, id: signal.id, payload }
}

/// The only signal of our own that this version knows beside a cancel.
fn resume(signal: &Signal) -> Result<Resume, NotTaken> {
    let resume = signal.as_resume().map_err(|error| unreadable(error.to_string()))?;
    let Some(resume) = resume else {
        let reason = format!("signals are not supported by this version (`{}`)", signal.name);
        return Err(Refused::new(Class::Unsupported, reason).into());
    };
    Ok(resume)
}
