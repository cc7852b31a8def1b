//! The list of dead letters and parked jobs, newest first, and the form of each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bus::Inbound;
use events::dead_letter::burial;
use events::headers::Headers;
use events::time::rfc3339;
use events::{RecordKind, decode_json};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::letters::{self, After, Choice, Letter, ParkedChoice, ParkedToken, Whose};
use web::problem::{Kind, Problem};

use super::id::{Id, cursor, parse_cursor};
use super::in_time;
use crate::query::{self, text, time};
use crate::state::Api;

/// Entries of one answer, where the caller asks for no other number, and at most.
const LIMIT: u32 = 100;
pub(super) const LIMIT_MAX: u32 = 1_000;
/// The class of parked jobs.
const PARKED: &str = "parked";

/// The choice, as callers write it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    /// A class of refusals, or `parked`.
    pub(super) class: Option<String>,
    /// The topic in which the record failed.
    pub(super) topic: Option<String>,
    /// The flow that they are about.
    pub(super) flow: Option<String>,
    /// The step that a record is about, or that a job is parked at.
    pub(super) step: Option<String>,
    /// RFC 3339.
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
    /// Those that were redriven or dropped, too.
    #[serde(default)]
    pub(super) settled: bool,
    pub(super) limit: Option<u32>,
    pub(super) after: Option<String>,
}

impl Filter {
    fn letters(&self, topic: String, whose: Whose) -> Result<Option<Choice>, Problem> {
        if self.class.as_deref() == Some(PARKED) {
            return Ok(None);
        }
        Ok(Some(Choice {
            topic,
            whose,
            class: text("class", self.class.as_ref())?,
            original_topic: text("topic", self.topic.as_ref())?,
            flow: text("flow", self.flow.as_ref())?,
            step: text("step", self.step.as_ref())?,
            since_ms: time("since", self.since.as_deref())?,
            until_ms: time("until", self.until.as_deref())?,
            settled_too: self.settled,
        }))
    }

    fn parked(&self) -> Result<Option<ParkedChoice>, Problem> {
        if self.topic.is_some() || self.class.as_deref().is_some_and(|class| class != PARKED) {
            return Ok(None);
        }
        Ok(Some(ParkedChoice {
            flow: text("flow", self.flow.as_ref())?,
            step: text("step", self.step.as_ref())?,
            since_ms: time("since", self.since.as_deref())?,
            until_ms: time("until", self.until.as_deref())?,
        }))
    }

    fn after(&self) -> Result<Option<After>, Problem> {
        let Some(text) = self.after.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let wrong =
            || Problem::new(Kind::BadRequest, format!("`after` is the `next` of an earlier answer, not `{text}`."));
        parse_cursor(text).map(Some).ok_or_else(wrong)
    }
}

/// One entry of the list.
#[derive(Debug)]
pub(super) enum Entry {
    Letter(Box<Letter>),
    Parked(ParkedToken),
}

impl Entry {
    /// Newest first; of one time, letters come before tokens.
    fn after(&self) -> After {
        match self {
            Self::Letter(letter) => After::Letter(letter.at_us, Id::of(letter).0),
            Self::Parked(token) => After::Token(token.at_us, token.job),
        }
    }

    /// As callers know it.
    pub(super) fn id(&self) -> String {
        match self {
            Self::Letter(letter) => Id::of(letter).to_string(),
            Self::Parked(token) => token.job.to_string(),
        }
    }

    const fn at_us(&self) -> i64 {
        match self {
            Self::Letter(letter) => letter.at_us,
            Self::Parked(token) => token.at_us,
        }
    }
}

/// A page of the list.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    /// Where the next page begins; none at the end.
    pub(super) next: Option<String>,
}

impl Listing {
    pub(super) async fn read(api: &Api, whose: Whose, filter: &Filter) -> Result<Self, Problem> {
        let tenant = whose.tenant.clone();
        let (limit, after) = (query::limit(filter.limit, LIMIT, LIMIT_MAX)?, filter.after()?);
        let mut entries = Vec::new();
        if let Some(choice) = filter.letters(api.planner()?.writer.topics.dead_letters(), whose)? {
            let found = in_time(letters::list(&api.pool, &choice, after, limit + 1)).await?;
            entries.extend(found.into_iter().map(|letter| Entry::Letter(Box::new(letter))));
        }
        if let Some(choice) = filter.parked()? {
            let found = in_time(letters::parked(&api.pool, &tenant, &choice, after, limit + 1)).await?;
            entries.extend(found.into_iter().map(Entry::Parked));
        }
        // Stable: each kind is in its own order already, and letters were put first.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.at_us()));
        let next = query::cut(&mut entries, limit).map(|entry| cursor(entry.after()));
        Ok(Self { entries, next })
    }

    /// The answer; its first page counts by class.
    pub(super) async fn document(&self, api: &Api, whose: Whose, filter: &Filter) -> Result<Value, Problem> {
        let entries: Vec<Value> = self.entries.iter().map(|entry| entry_document(api, entry)).collect();
        let mut document = json!({ "dead_letters": entries, "next": self.next });
        if filter.after.is_none() {
            let choice = filter.letters(api.planner()?.writer.topics.dead_letters(), whose)?;
            let counts = match choice {
                Some(choice) => in_time(letters::counts(&api.pool, &choice)).await?,
                None => vec![],
            };
            let chosen = |class: &String| filter.class.as_ref().is_none_or(|wanted| wanted == class);
            let counts = counts.into_iter().filter(|(class, _)| chosen(class));
            document["counts"] = counts.map(|(class, count)| (class, count.into())).collect::<Map<_, _>>().into();
        }
        Ok(document)
    }
}

fn entry_document(api: &Api, entry: &Entry) -> Value {
    match entry {
        Entry::Letter(letter) => document(letter),
        Entry::Parked(token) => parked_document(api, token),
    }
}

fn parked_document(api: &Api, token: &ParkedToken) -> Value {
    let mut document = json!({
        "id": token.job.to_string(),
        "kind": "job",
        "class": PARKED,
        "flow": token.flow,
        "correlation_id": token.correlation_id,
        "at": rfc3339(token.at_us / 1_000),
        "status": "open",
        "links": { "job": format!("{}/v1/jobs/{}", api.public_url.prefix(), token.job) },
    });
    if let Some(step) = &token.step {
        document["step"] = step.as_str().into();
    }
    document
}

/// A dead letter without its record.
pub(super) fn document(letter: &Letter) -> Value {
    let Letter { letter: inner, settled, .. } = letter;
    let mut document = json!({
        "id": Id::of(letter).to_string(),
        "kind": "record",
        "class": inner.class,
        "reason": inner.reason,
        "attempts": inner.attempts,
        "redrives": redrives(&inner.headers),
        "at": rfc3339(inner.at_ms),
        "value_bytes": inner.value_bytes,
        "status": settled.as_ref().map_or("open", |settled| settled.action.as_str()),
    });
    for (name, value) in [("flow", &inner.flow), ("step", &inner.step)] {
        if let Some(value) = value {
            document[name] = value.as_str().into();
        }
    }
    if let Some(original) = &inner.original {
        let (topic, partition, offset) = (&original.topic, original.partition, original.offset);
        document["failed_in"] = json!({ "topic": topic, "partition": partition, "offset": offset });
    }
    if let Some(settled) = settled {
        document["settled"] = json!({ "at": rfc3339(settled.at_ms), "reason": settled.reason });
    }
    document
}

/// The number of times that a record with these headers was redriven before it came here.
pub(super) fn redrives(headers: &Headers) -> u32 {
    burial(&Inbound { headers: headers.clone(), ..Inbound::default() }).map_or(0, |burial| burial.redrives)
}

/// The record of a dead letter: bytes as base64, and as a reader of its topic sees them where that can be told.
pub(super) async fn record_document(api: &Api, letter: &Letter, record: &Inbound) -> Value {
    let bytes = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(|bytes| BASE64.encode(bytes));
    let headers = record.headers.iter().map(|(name, value)| match value {
        Some(value) => match std::str::from_utf8(value) {
            Ok(text) => json!({ "name": name, "value": text }),
            Err(_) => json!({ "name": name, "value_base64": BASE64.encode(value) }),
        },
        None => json!({ "name": name, "value": null }),
    });
    let mut document = json!({
        "key_base64": bytes(&record.key),
        "value_base64": bytes(&record.value),
        "headers": headers.collect::<Vec<_>>(),
    });
    if let Some(key) = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) {
        document["key"] = key.into();
    }
    if let Some(decoded) = decoded(api, letter, record).await {
        document["value"] = decoded;
    }
    document
}

async fn decoded(api: &Api, letter: &Letter, record: &Inbound) -> Option<Value> {
    let value = record.value.as_deref()?;
    let topic = &letter.letter.original.as_ref()?.topic;
    let topics = &api.planner().ok()?.writer.topics;
    match RecordKind::of_topic(topics, topic) {
        Some(kind) => api.reader.read(Some(value), |schemas, value| decode_json(schemas, kind, value)).await.ok(),
        None => serde_json::from_slice(value).ok(),
    }
}
