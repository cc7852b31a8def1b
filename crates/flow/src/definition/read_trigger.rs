//! From `on` in a document to its [`Trigger`].

use super::node::Node;
use super::read_value::{required, template, text_template};
use super::reader::{Fields, Reader};
use super::schedule::{Missed, Schedule};
use super::trigger::{Format, Picks, ReadFrom, Scheme, Topic, Trigger, Webhook};
use super::visible::{self, Visible};
use super::{input, key, limit};
use crate::expression::Template;
use crate::media_type::is_token;

/// The kinds of triggers, each by its key, with the keys that belong to it.
const KINDS: [(&str, &[&str]); 3] =
    [("webhook", &[]), ("cron", &["timezone", "missed"]), ("topic", &["format", "from", "filter", "id"])];
const INPUT: Visible<'static> = Visible { roots: visible::KEY, steps: &[], own: None, when: None };

/// `on`, of all keys of a flow.
pub(super) fn trigger(reader: &mut Reader<'_>, flow: &Fields<'_>, schema: Option<&input::Input>) -> Option<Trigger> {
    let node = flow.get("on")?;
    if flow.get("upload").is_some() {
        reader.problem(flow.place_of("on"), "a flow with `upload` has no `on`: its input is a document").expected =
            Some("one of the two".to_owned());
    }
    let fields = reader.fields(node, "`on`", key::ON)?;
    let kinds: Vec<_> = KINDS.iter().filter(|(kind, _)| fields.get(kind).is_some()).collect();
    let [(kind, own)] = kinds.as_slice() else {
        let message = format!("`on` has {} of `webhook`, `cron` and `topic`", kinds.len());
        reader.problem(node.place, message).expected = Some("exactly one of them".to_owned());
        return None;
    };
    for (other, of_other) in KINDS.iter().filter(|(other, _)| other != kind) {
        for word in of_other.iter().filter(|word| fields.get(word).is_some() && !own.contains(word)) {
            reader.problem(fields.place_of(word), format!("`{word}` belongs to `{other}`, not to `{kind}`"));
        }
    }
    match *kind {
        "webhook" => fields.get("webhook").and_then(|node| webhook(reader, node)).map(Trigger::Webhook),
        "cron" => schedule(reader, &fields, schema).map(Trigger::Schedule),
        _ => topic(reader, &fields).map(Trigger::Topic),
    }
}

fn webhook(reader: &mut Reader<'_>, node: &Node) -> Option<Webhook> {
    let fields = reader.fields(node, "`webhook`", key::WEBHOOK)?;
    let words = Scheme::ALL.map(Scheme::as_str);
    let word = required(reader, &fields, "`webhook`", "verify").and_then(|node| reader.word(node, "`verify`", &words));
    let secrets = required(reader, &fields, "`webhook`", "secrets").map(|node| secrets(reader, node));
    let named = fields.get("headers").map(|node| headers(reader, node)).unwrap_or_default();
    let signature = fields.get("signature").and_then(|node| header(reader, node));
    let range = limit::TOLERANCE_MS_MIN..=limit::TOLERANCE_MS_MAX;
    let tolerance_ms = fields.get("tolerance").and_then(|node| reader.duration_ms(node, "`tolerance`", range));
    let picks = picks(reader, &fields);
    let verify = Scheme::ALL.into_iter().find(|scheme| Some(scheme.as_str()) == word)?;
    let hmac_only = ["signature", "id"].into_iter().filter(|_| verify != Scheme::Hmac);
    let timed_only = ["tolerance"].into_iter().filter(|_| !verify.signs_time());
    for word in hmac_only.chain(timed_only).filter(|word| fields.get(word).is_some()) {
        let message = format!("`{word}` is not of use with `verify: {}`", verify.as_str());
        reader.problem(fields.place_of(word), message);
    }
    Some(Webhook {
        verify,
        secrets: secrets?,
        signature: signature.unwrap_or_else(|| limit::SIGNATURE_HEADER_DEFAULT.to_owned()),
        tolerance_ms: verify.signs_time().then(|| tolerance_ms.unwrap_or(limit::TOLERANCE_MS_DEFAULT)),
        headers: named,
        picks,
    })
}

fn secrets(reader: &mut Reader<'_>, node: &Node) -> Vec<String> {
    let items = reader.list(node, "`secrets`").unwrap_or_default();
    if items.is_empty() || items.len() > limit::WEBHOOK_SECRETS_MAX {
        let message = format!("`secrets` has {} entries", items.len());
        reader.problem(node.place, message).expected = Some(format!("1 to {}", limit::WEBHOOK_SECRETS_MAX));
    }
    items.iter().filter_map(|item| secret(reader, item)).collect()
}

/// The name of a secret. A secret itself is hardly one.
fn secret(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node, "a secret's name")?;
    let is_name = text.len() <= limit::NAME_BYTES_MAX
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase())
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    if is_name {
        return Some(text.to_owned());
    }
    // What stands there may be the secret: it is not repeated.
    let problem = reader.problem(node.place, "this is not the name of a secret");
    problem.expected =
        Some("upper case letters, digits and `_`: GITHUB is the value of MEANWHILE_SECRET_GITHUB".into());
    None
}

fn headers(reader: &mut Reader<'_>, node: &Node) -> Vec<String> {
    let items = reader.list(node, "`headers`").unwrap_or_default();
    if items.len() > limit::KEEP_HEADERS_MAX {
        let message = format!("`headers` has {} entries", items.len());
        reader.problem(node.place, message).expected = Some(format!("at most {}", limit::KEEP_HEADERS_MAX));
    }
    items.iter().filter_map(|item| header(reader, item)).collect()
}

fn header(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let name = reader.text(node, "a header's name")?.to_ascii_lowercase();
    if is_token(&name) {
        return Some(name);
    }
    reader.problem(node.place, format!("`{name}` is no name of a header")).expected =
        Some("one such as x-github-event".to_owned());
    None
}

fn schedule(reader: &mut Reader<'_>, fields: &Fields<'_>, schema: Option<&input::Input>) -> Option<Schedule> {
    let node = fields.get("cron")?;
    let cron = reader.text(node, "`cron`")?;
    let zone = match fields.get("timezone") {
        Some(node) => reader.text(node, "`timezone`")?,
        None => "UTC",
    };
    let words = Missed::WORDS.map(|(word, _)| word);
    let missed = fields.get("missed").and_then(|node| reader.word(node, "`missed`", &words));
    let missed = Missed::WORDS.into_iter().find(|(word, _)| Some(*word) == missed).map_or(Missed::Last, |it| it.1);
    let schedule = match Schedule::new(cron, zone, missed) {
        Ok(schedule) => schedule,
        Err(message) => {
            let place = fields.get(if message.starts_with("`timezone`") { "timezone" } else { "cron" })?.place;
            reader.problem(place, message).expected =
                Some("a pattern such as `0 6 * * MON-FRI`, and a zone such as Europe/Berlin".to_owned());
            return None;
        }
    };
    let Some(input) = schedule.sample() else {
        reader.problem(node.place, format!("`cron`: `{cron}` never comes"));
        return None;
    };
    let errors = schema.map(|schema| schema.validate(&input)).unwrap_or_default();
    if let Some(error) = errors.first() {
        let message = format!("`input` does not take the input of a schedule: `{}`: {}", error.pointer, error.detail);
        reader.problem(node.place, message).expected = Some("{ tick, scheduled_at }, both instants as texts".into());
    }
    Some(schedule)
}

fn topic(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Topic> {
    let node = fields.get("topic")?;
    let name = reader.text(node, "`topic`")?;
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty()
        || name.len() > limit::TOPIC_BYTES_MAX
        || [".", ".."].contains(&name)
        || !name.bytes().all(is_sign)
    {
        reader.problem(node.place, format!("`topic` cannot be `{name}`")).expected =
            Some(format!("letters, digits, `.`, `_` and `-`; at most {} bytes", limit::TOPIC_BYTES_MAX));
    }
    let format = fields.get("format").and_then(|node| reader.word(node, "`format`", &["json", "avro"]));
    let from = fields.get("from").and_then(|node| reader.word(node, "`from`", &["applied", "beginning"]));
    Some(Topic {
        name: name.to_owned(),
        format: if format == Some("avro") { Format::Avro } else { Format::Json },
        from: if from == Some("beginning") { ReadFrom::Beginning } else { ReadFrom::Applied },
        picks: picks(reader, fields),
    })
}

fn picks(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Picks {
    let filter = fields.get("filter").and_then(|node| {
        let filter = template(reader, node, &INPUT)?;
        if !matches!(filter, Template::Expression(_)) {
            reader.problem(node.place, "`filter` is not an expression").expected =
                Some("exactly one `{{ }}` that gives true or false, over `input`".to_owned());
        }
        Some(filter)
    });
    let id = fields.get("id").and_then(|node| text_template(reader, node, "`id`", &INPUT));
    Picks { filter, id }
}
