//! `meanwhile tail`: the records of a topic, decoded.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bus::{Inbound, Reader, Registry, Table, Tail};
use events::headers::Header;
use events::{RecordKind, decode_json};
use flow::document::in_words;
use process::Base;
use serde_json::{Value, json};
use service_kit::config::Sources;
use service_kit::telemetry;

use crate::cli::TailArgs;

/// The time that Kafka may hold a fetch.
const FETCH_WAIT_MAX: Duration = Duration::from_millis(100);

/// `meanwhile tail`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(args: TailArgs, sources: &Sources) -> anyhow::Result<ExitCode> {
    let Base { shared, bus: settings, topics } = Base::load(sources)?;
    telemetry::init(&shared.log)?;
    let reader = Reader::new(Registry::of(&settings)?);
    let kind = RecordKind::of_topic(&topics, &args.topic);
    let mut left = args.count.unwrap_or(usize::MAX);
    let mut show = async |records: Vec<Inbound>| {
        for record in records {
            if left == 0 {
                return false;
            }
            let line = line(&reader, kind, &record).await;
            println!("{}", if args.json { line } else { for_people(line) });
            left -= 1;
        }
        left > 0
    };
    if args.from_beginning {
        let (there, mut news) = Table::load(&settings, &args.topic).await.context("reading the topic")?;
        if !show(there).await {
            return Ok(ExitCode::SUCCESS);
        }
        while let Some(records) = news.next().await {
            if !show(records).await {
                break;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut tail = Tail::start(&settings, &args.topic, FETCH_WAIT_MAX).await.context("reading the topic")?;
    while let Some(records) = tail.next().await {
        if !show(records).await {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The line with documents in words.
fn for_people(mut line: Value) -> Value {
    if let Some(words) = in_words(&line["value"]) {
        line["value"] = words;
    }
    line
}

async fn line(reader: &Reader, kind: Option<RecordKind>, record: &Inbound) -> Value {
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes));
    let value = match (&record.value, kind) {
        (None, _) => Value::Null,
        (Some(bytes), Some(kind)) => {
            let decoded = reader.read(Some(bytes), |schemas, bytes| decode_json(schemas, kind, bytes)).await;
            decoded.unwrap_or_else(|error| json!({ "unreadable": error.to_string(), "bytes": bytes.len() }))
        }
        (Some(bytes), None) => serde_json::from_slice(bytes).unwrap_or_else(|_| text(bytes)),
    };
    let header = |(name, value): Header<'_>| (name.to_owned(), value.map_or(Value::Null, text));
    json!({
        "partition": record.partition,
        "offset": record.offset,
        "key": record.key.as_deref().map_or(Value::Null, text),
        "headers": record.headers.iter().map(header).collect::<serde_json::Map<_, _>>(),
        "value": value,
    })
}
