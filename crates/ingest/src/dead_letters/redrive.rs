//! One dead letter goes back to where it failed, as it is or edited.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use events::dead_letter;
use events::header::FAILURE_REDRIVES;
use events::topic::Topics;
use events::trace::Trace;
use events::{Inbound, Record};
use flow::definition::limit::KEY_BYTES_MAX;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use store::letters::{Action, Letter, Settlement};
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use super::id::Id;
use super::{find, list, record, settled};
use crate::spans;
use crate::state::Api;
use crate::submit::schema_violation;

/// A record that came back so often is redriven once more only where somebody insists: it would come back again.
pub(crate) const REDRIVES_MAX: u32 = 5;

pub(super) const FORM: &str =
    r#"The body is `{"value"?: ..., "value_base64"?: "...", "key"?: "...", "force"?: true}`, or there is none"#;

/// The body of a redrive; all of it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    /// Another value in place of the record's: JSON, for a topic of JSON.
    value: Option<Value>,
    /// Another value in place of the record's, as bytes.
    value_base64: Option<String>,
    /// Another key in place of the record's.
    key: Option<String>,
    /// Send it however often it has come back.
    #[serde(default)]
    force: bool,
}

impl Order {
    /// The record goes back as it is.
    pub(super) fn unchanged(force: bool) -> Self {
        Self { force, ..Self::default() }
    }

    const fn is_edited(&self) -> bool {
        self.value.is_some() || self.value_base64.is_some() || self.key.is_some()
    }

    /// Tells one edit from another; none if the record goes back as it is.
    fn digest(&self) -> Option<[u8; 32]> {
        let edit = json!([self.value, self.value_base64, self.key]);
        self.is_edited().then(|| Sha256::digest(edit.to_string()).into())
    }
}

/// Refuses a record that has come back too often. An edited one is another record: its count begins anew.
fn refuse_loop(letter: &Letter, order: &Order) -> Result<(), Problem> {
    let redrives = list::redrives(&letter.letter.headers);
    if redrives < REDRIVES_MAX || order.force || order.is_edited() {
        return Ok(());
    }
    let detail = format!("The record was redriven {redrives} times and has come back each time.");
    Err(Problem::new(Kind::RedriveLimit, detail))
}

/// [`refuse_loop`]; and refuses a record of a topic that is not Meanwhile's: others read it there, too.
pub(super) fn check(api: &Api, letter: &Letter, order: &Order) -> Result<(), Problem> {
    let own = format!("{}.", api.planner()?.writer.topics.prefix());
    let original = letter.letter.original.as_ref();
    if let Some(foreign) = original.filter(|original| !original.topic.starts_with(&own)) {
        let detail = format!("The record was read in `{}`, which is not a topic of Meanwhile's.", foreign.topic);
        let remedy = "Send it there yourself, or start its job by `POST /v1/flows/{flow}/jobs`; then drop this.";
        return Err(Problem::new(Kind::BadRequest, detail).with_remediation(remedy));
    }
    refuse_loop(letter, order)
}

/// Sends a dead letter back. Returns the answer, which is the same for a repetition of the same order.
pub(super) async fn one(api: &Api, context: &RequestContext, letter: &Letter, order: &Order) -> Result<Value, Problem> {
    if letter.settled.is_some() {
        return already(letter, order);
    }
    check(api, letter, order)?;
    if order.is_edited() {
        // The record is then the caller's word, the tenant of its job too.
        api.require_deployment(&context.caller, "Another value or key in a record")?;
    }
    let Some(mut dead) = record(api, letter).await? else {
        let detail = format!("Kafka does not keep the record of dead letter `{}` any more.", Id::of(letter));
        return Err(Problem::new(Kind::Gone, detail));
    };
    let topics = &api.planner()?.writer.topics;
    match edited(api, topics, letter, order)? {
        Some(value) => dead.value = Some(value),
        None => refuse_notice(letter, &dead)?,
    }
    if let Some(key) = edited_key(topics, letter, order)? {
        dead.key = Some(key);
    }
    if order.is_edited() {
        dead.headers.retain(|(name, _)| name != FAILURE_REDRIVES);
    }
    let original = letter.letter.original.as_ref().map_or("", |original| original.topic.as_str());
    let span = spans::redrive(&dead, original, &letter.letter.class, &context.trace);
    let sent = sent(&dead, &span.carry_on(Some(context.trace.clone()), &api.ids))?;
    let topic = sent.topic.clone();
    let edit = order.digest();
    let redriven = Settlement { action: Action::Redriven, reason: None, edit: edit.as_ref().map(<[u8; 32]>::as_slice) };
    if !settled(api, letter, redriven, &[sent]).await? {
        // Somebody else was faster, with this or with another end.
        return already(&find(api, context, &Id::of(letter).to_string()).await?, order);
    }
    metrics::counter!("meanwhile_redrives_total", "class" => letter.letter.class.clone()).increment(1);
    tracing::info!(id = %Id::of(letter), class = letter.letter.class, topic, "dead letter redriven");
    Ok(answer(letter, &topic))
}

fn sent(dead: &Inbound, trace: &Trace) -> Result<Record, Problem> {
    dead_letter::redrive(dead, trace).ok_or_else(|| {
        let detail = "The record does not say where it failed: another producer wrote it to the dead letters' topic.";
        Problem::new(Kind::Gone, detail).with_remediation("Read it with `meanwhile tail`, and drop it.")
    })
}

fn already(letter: &Letter, order: &Order) -> Result<Value, Problem> {
    refuse_other_end(letter, Action::Redriven)?;
    let before = letter.settled.as_ref().and_then(|settled| settled.edit.as_deref());
    if order.digest().is_some_and(|edit| before != Some(&edit)) {
        let detail = format!(
            "Dead letter `{}` was redriven before, as another record: this `value` or `key` had no effect.",
            Id::of(letter)
        );
        return Err(Problem::new(Kind::AlreadySettled, detail));
    }
    let topic = letter.letter.original.as_ref().map_or("", |original| original.topic.as_str());
    Ok(answer(letter, topic))
}

/// The problem 409 for a dead letter that had another end.
pub(super) fn refuse_other_end(letter: &Letter, wanted: Action) -> Result<(), Problem> {
    match &letter.settled {
        Some(settled) if settled.action != wanted.as_str() => {
            let detail = format!("Dead letter `{}` was {} before.", Id::of(letter), settled.action);
            Err(Problem::new(Kind::AlreadySettled, detail))
        }
        _ => Ok(()),
    }
}

fn answer(letter: &Letter, topic: &str) -> Value {
    json!({ "id": Id::of(letter).to_string(), "status": Action::Redriven.as_str(), "topic": topic })
}

/// The value that the caller wants to send in place of the record's. A command is held to its flow's schema.
fn edited(api: &Api, topics: &Topics, letter: &Letter, order: &Order) -> Result<Option<Vec<u8>>, Problem> {
    let is_command = is_command(topics, letter);
    let bytes = match (&order.value, &order.value_base64) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(Problem::new(Kind::BadRequest, "Give `value` or `value_base64`, not both."));
        }
        (Some(value), None) if is_command => value.to_string().into_bytes(),
        (Some(_), None) => {
            let detail = "Records of this topic are not JSON: give their bytes as `value_base64`.";
            return Err(Problem::new(Kind::BadRequest, detail));
        }
        (None, Some(text)) => BASE64.decode(text).map_err(|error| {
            Problem::new(Kind::BadRequest, format!("`value_base64` is not base64 (RFC 4648): {error}."))
        })?,
    };
    if is_command {
        check_command(api, &bytes)?;
    }
    Ok(Some(bytes))
}

/// The key that the caller wants in place of the record's. A command's may be an ordering key.
fn edited_key(topics: &Topics, letter: &Letter, order: &Order) -> Result<Option<Vec<u8>>, Problem> {
    let Some(key) = &order.key else { return Ok(None) };
    if is_command(topics, letter) && (key.len() > KEY_BYTES_MAX || key.contains('\0')) {
        let detail = format!("`key` has {} bytes of at most {KEY_BYTES_MAX}, none of them NUL.", key.len());
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    Ok(Some(key.clone().into_bytes()))
}

fn is_command(topics: &Topics, letter: &Letter) -> bool {
    letter.letter.original.as_ref().is_some_and(|original| topics.is_commands(&original.topic))
}

/// The problem 410 for a notice: a row of the outbox that was too large for the dead letters' topic, too. Its value is
/// not there, and a record without one would mean something else.
fn refuse_notice(letter: &Letter, dead: &Inbound) -> Result<(), Problem> {
    let never_came = letter.letter.original.as_ref().is_some_and(|original| original.offset < 0);
    if !never_came || dead.value.is_some() {
        return Ok(());
    }
    let detail = "The dead letter is only a notice: its record was too large for the dead letters' topic, too.";
    let remedy = "Read the value in the outbox (`outbox.messages`), and send one that fits as `value_base64`.";
    Err(Problem::new(Kind::Gone, detail).with_remediation(remedy))
}

fn check_command(api: &Api, bytes: &[u8]) -> Result<(), Problem> {
    let bad = |detail: String| Problem::new(Kind::BadRequest, detail);
    let command: Value = serde_json::from_slice(bytes).map_err(|error| bad(format!("`value`: {error}.")))?;
    let Some(flow) = command["flow"].as_str() else {
        return Err(bad("`value` is not a command: it names no `flow`.".to_owned()));
    };
    let Some(definition) = api.catalog.active(flow) else {
        return Err(Problem::new(Kind::UnknownFlow, api.catalog.no_such_flow(flow)));
    };
    let errors = definition.validate_input(&command["input"]);
    if errors.is_empty() { Ok(()) } else { Err(schema_violation(crate::plan::BadInput(errors))) }
}
