//! `asyncapi.yaml` and the code say the same, in both directions: topics and their settings, headers, schemas, kinds of
//! events. Its examples are read by the code, which writes the same headers and keys.

use events::headers::Headers;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use events::asyncapi::DOCUMENT;
use events::breaker::Breaker;
use events::command::Command;
use events::dead_letter::{self, Failure};
use events::flow_document::FlowDocument;
use events::lane::{self, Freed, HeldLane, LaneNews, lost_worker_record, lost_worker_tombstone, turn_headers};
use events::position::{LastRow, Partial, Position};
use events::time::parse_rfc3339;
use events::topic::Topics;
use events::trace::Trace;
use events::{Inbound, Record, RecordKind, cancel_tombstone, flow_record, flow_tombstone, header, limit, release};
use flow::event::EventKind;
use flow::slip::ReleasedBy;
use serde_json::{Value, json};

use crate::records::record_of;
use crate::sample::{Any, IDS, schemas};

const QUEUE: &str = "default";

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn document() -> Value {
    serde_saphyr::from_str(DOCUMENT).unwrap()
}

fn object(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn keys(value: &Value) -> BTreeSet<&str> {
    object(value).map(|(name, _)| name).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// What stands at a reference within the document; what is none stands for itself.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => document.pointer(pointer).unwrap_or_else(|| panic!("nothing at {pointer}")),
        None => value,
    }
}

/// A message: its channel, its own name, and what the document says of it.
struct Message<'a> {
    document: &'a Value,
    channel: &'a str,
    name: &'a str,
    said: &'a Value,
}

fn messages(document: &Value) -> Vec<Message<'_>> {
    let all = object(&document["channels"]).flat_map(|(channel, said)| {
        object(&said["messages"]).map(move |(name, said)| Message { document, channel, name, said })
    });
    all.collect()
}

impl<'a> Message<'a> {
    /// What the message and its traits say under a name.
    fn parts(&self, name: &'static str) -> impl Iterator<Item = &'a Value> {
        let traits = self.said["traits"].as_array().into_iter().flatten().map(|one| resolve(self.document, one));
        traits.chain([self.said]).map(move |part| resolve(self.document, &part[name]))
    }

    fn headers(&self) -> BTreeSet<&'a str> {
        self.parts("headers").flat_map(|headers| keys(&headers["properties"])).collect()
    }

    fn required_headers(&self) -> BTreeSet<&'a str> {
        self.parts("headers").filter_map(|headers| headers["required"].as_array()).flatten().map(text).collect()
    }

    fn key(&self) -> &'a Value {
        self.parts("bindings").map(|bindings| &bindings["kafka"]["key"]).filter(|key| !key.is_null()).last().unwrap()
    }

    fn kind(&self) -> Option<RecordKind> {
        let topic = text(&self.document["channels"][self.channel]["address"]).replace("{queue}", QUEUE);
        RecordKind::of_topic(&Topics::default(), &topic)
    }

    fn examples(&self) -> &'a [Value] {
        self.said["examples"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The example as the code reads it and would write it.
    fn record(&self, example: &Value, trace: &Trace) -> Record {
        let topics = Topics::default();
        let payload = &example["payload"];
        let value = serde_json::to_vec(payload).unwrap();
        let bare = |topic, headers| Record { topic, headers, ..Record::default() };
        match (self.channel, self.kind()) {
            ("steps", _) if self.name == "lane-free" => {
                freed(&example["headers"]).record(topics.steps(QUEUE), lane_key())
            }
            ("steps", Some(kind)) if self.name == "slip-released" => {
                let mut record = record_of(&decode(self.document, kind, payload), QUEUE, trace);
                let [by, payload] =
                    [header::RELEASED_BY, header::RELEASED_PAYLOAD].map(|name| text(&example["headers"][name]));
                release::mark(&mut record, ReleasedBy::read(by).unwrap(), Some(payload.into()));
                record
            }
            ("steps", Some(kind)) if self.name == "slip-in-turn" => {
                let mut record = record_of(&decode(self.document, kind, payload), QUEUE, trace);
                let [holder, place] = [header::TURN, header::TURN_PLACE].map(|name| text(&example["headers"][name]));
                record.headers.append(&turn_headers(&holder.parse().unwrap(), place.parse().unwrap()));
                record
            }
            ("breakers", None) => serde_json::from_slice::<Breaker>(&value).unwrap().record(&topics, trace),
            ("lanes", None) => lane_record(self.name, &value),
            ("cancels", _) if self.name == "ended" => cancel_tombstone(&topics, slip_of(self.document).job, trace),
            (_, Some(kind)) => record_of(&decode(self.document, kind, payload), QUEUE, trace),
            ("commands", None) => {
                Command::parse(Some(&value)).unwrap();
                let mut headers = Headers::default();
                trace.write(&mut headers);
                bare(topics.commands(), headers)
            }
            ("flows", None) if self.name == "retired" => flow_tombstone(&topics, "order", "3f9ac1d2e4b7"),
            ("flows", None) => flow_record(&topics, &FlowDocument::parse(&value).unwrap(), trace),
            ("relay", None) => {
                Position::parse(&value).unwrap();
                let header = |name: &str| (name.to_owned(), Some(Vec::new()));
                bare(
                    topics.relay(),
                    [header::RELAY_ROWS, header::RELAY_PUBLICATION, header::RELAY_UNSETTLED].map(header).into(),
                )
            }
            ("dead-letters", None) => dead_letter(&example["headers"]),
            (channel, None) => panic!("what does {channel} hold?"),
        }
    }
}

fn lane_key() -> Vec<u8> {
    b"default/order/ada".to_vec()
}

fn freed(headers: &Value) -> Freed {
    let headers = Headers::from([(header::LANE_FREE, Some(text(&headers[header::LANE_FREE])))]);
    Freed::read(&Inbound { headers, ..Inbound::default() }).unwrap()
}

/// The record of `meanwhile.lanes` as the code reads it and would write it.
fn lane_record(name: &str, value: &[u8]) -> Record {
    let (topics, worker) = (Topics::default(), "w-1/01a21895c0007cc0");
    let lane = || {
        let document = document();
        let held = &document["channels"]["lanes"]["messages"]["held"]["examples"][0]["payload"];
        serde_json::from_value::<HeldLane>(held.clone()).unwrap()
    };
    let read = |record: Record| {
        let (key, value) = (record.key.clone(), Some(value.to_vec()));
        lane::read(&Inbound { key, value, ..Inbound::default() }).unwrap().unwrap()
    };
    match name {
        "held" => {
            assert_eq!(read(lane().record(&topics)), LaneNews::Held(lane()));
            lane().record(&topics)
        }
        "free" => lane().tombstone(&topics),
        "lost" => {
            let record = lost_worker_record(&topics, worker);
            assert_eq!(read(record.clone()), LaneNews::Lost(worker.to_owned()));
            record
        }
        "known" => lost_worker_tombstone(&topics, worker),
        other => panic!("what is {other}?"),
    }
}

fn slip_of(document: &Value) -> flow::slip::Slip {
    let payload = &document["channels"]["steps"]["messages"]["slip"]["examples"][0]["payload"];
    let Any::Slip(slip) = decode(document, RecordKind::Slip, payload) else { unreachable!("a slip was asked for") };
    slip
}

fn decode(document: &Value, kind: RecordKind, payload: &Value) -> Any {
    let field = |(name, value): (&str, &Value)| (name.to_owned(), Avro::try_from(value.clone()).unwrap());
    let mut fields: HashMap<String, Avro> = object(payload).map(field).collect();
    let schema = Schema::parse_str(kind.latest()).unwrap();
    let Schema::Record(record) = &schema else { panic!("{kind:?} is no record") };
    for name in fields.keys() {
        assert!(record.lookup.contains_key(name), "{kind:?} has no field {name}");
    }
    // In the document stands a word in place of these bytes.
    if kind == RecordKind::Wait && payload["kind"] == "hold" {
        fields.insert("slip".to_owned(), Avro::Bytes(Any::Slip(slip_of(document)).encode().unwrap()));
    }
    let value = Avro::Map(fields).resolve(&schema).unwrap();
    let datum = GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap();
    Any::decode(kind, &schemas(), &[&[0][..], &IDS.of(kind).to_be_bytes(), &datum].concat()).unwrap()
}

fn dead_letter(headers: &Value) -> Record {
    let header = |name: &str| text(&headers[format!("meanwhile-failure-{name}")]);
    let (partition, offset) = (header("partition").parse().unwrap(), header("offset").parse().unwrap());
    let original = Inbound { topic: header("topic").to_owned(), partition, offset, ..Inbound::default() };
    let first_at_ms = parse_rfc3339(header("first-at")).unwrap();
    dead_letter::record(&Topics::default(), &original, &Failure::once(header("class"), header("reason"), first_at_ms))
}

#[test]
fn every_topic_is_in_the_document_and_no_other() {
    let document = document();
    let described: BTreeSet<&str> =
        object(&document["channels"]).map(|(_, channel)| text(&channel["address"])).collect();
    let all = Topics::default().all("{queue}");
    assert_eq!(described, all.iter().map(String::as_str).collect());
}

#[test]
fn partitions_and_settings_are_those_that_topics_are_created_with() {
    let document = document();
    let declared = std::fs::read_to_string(root().join("deploy/kafka/topics.yaml")).unwrap();
    let declared: Value = serde_saphyr::from_str(&declared).unwrap();
    let names: BTreeSet<&str> = keys(&declared["topics"]).into_iter().map(|name| name.trim_end_matches(".*")).collect();
    assert_eq!(names, keys(&document["channels"]));
    for (name, topic) in object(&declared["topics"]) {
        let binding = &document["channels"][name.trim_end_matches(".*")]["bindings"]["kafka"];
        let partitions = topic.get("partitions").unwrap_or(&declared["partitions"]);
        assert_eq!(&binding["partitions"], partitions, "{name}");
        let settings = [&declared["config"], &topic["config"]].into_iter().flat_map(object);
        let mut settings: BTreeMap<&str, Value> = settings.map(|(name, value)| (name, value.clone())).collect();
        settings.entry("cleanup.policy").and_modify(|policy| *policy = json!([policy]));
        let described = object(&binding["topicConfiguration"]).map(|(name, value)| (name, value.clone())).collect();
        assert_eq!(settings, described, "{name}");
    }
}

#[test]
fn every_kind_of_event_is_in_the_document_with_its_life_and_no_other() {
    let document = document();
    let version = |value: &Value| -> Option<[u32; 3]> {
        let parts: Vec<u32> = value.as_str()?.split('.').map(|part| part.parse().unwrap()).collect();
        Some(parts.try_into().unwrap())
    };
    let ours = version(&json!(env!("CARGO_PKG_VERSION")));
    let mut living = BTreeSet::new();
    for message in messages(&document).into_iter().filter(|message| message.channel == "events") {
        let (name, life) = (message.name, &message.said["x-lifecycle"]);
        assert_eq!(keys(life), BTreeSet::from(["added", "deprecated", "removed"]), "{name}");
        let [added, deprecated, removed] = ["added", "deprecated", "removed"].map(|stage| version(&life[stage]));
        assert!(added.is_some() && added <= ours, "{name} is added in a version that is still to come");
        assert!(deprecated.is_none() || deprecated > added, "{name} is deprecated before it is added");
        assert!(removed.is_none() || (deprecated.is_some() && removed > deprecated), "{name} is removed at once");
        if removed.is_none() {
            living.insert(name);
        }
        assert_eq!(message.said["headers"]["properties"]["ce_type"]["const"], name);
        for example in message.examples() {
            assert_eq!(example["payload"]["kind"], name);
        }
    }
    assert_eq!(living, EventKind::ALL.iter().map(EventKind::as_str).collect());
}

#[test]
fn every_schema_is_referred_to_at_its_latest_version_and_no_other() {
    let document = document();
    let referred: BTreeSet<&str> =
        DOCUMENT.lines().filter_map(|line| line.split_once("$ref: ./")?.1.split(' ').next()).collect();
    let published = RecordKind::ALL.map(RecordKind::latest_path);
    assert_eq!(referred, published.iter().map(String::as_str).collect());
    let folders = std::fs::read_dir(root().join("schemas")).unwrap().map(|entry| entry.unwrap().path());
    let folders: BTreeSet<_> =
        folders.filter(|path| path.is_dir()).map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(folders, RecordKind::ALL.map(|kind| kind.folder().into()).into());
    for message in messages(&document) {
        let payload = resolve(&document, &message.said["payload"]);
        let wanted = message
            .kind()
            .filter(|_| !["ended", "lane-free"].contains(&message.name))
            .map(|kind| format!("./{}", kind.latest_path()));
        assert_eq!(payload["schema"]["$ref"].as_str(), wanted.as_deref(), "{}: {}", message.channel, message.name);
    }
}

#[test]
fn headers_and_keys_are_those_that_the_code_writes() {
    let document = document();
    for message in messages(&document) {
        let at = format!("{}: {}", message.channel, message.name);
        assert!(!message.examples().is_empty(), "{at} has no example");
        for example in message.examples() {
            let parent = example["headers"]["traceparent"].as_str();
            let trace = Trace::parse(parent.or(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")), None);
            let record = message.record(example, &Trace { state: Some("vendor=1".into()), ..trace.unwrap() });
            assert_eq!(record.topic, text(&document["channels"][message.channel]["address"]).replace("{queue}", QUEUE));
            let written: BTreeSet<&str> = record.headers.iter().map(|(name, _)| name).collect();
            assert_eq!(message.headers(), written, "{at}");
            let optional = |name: &str| name == "tracestate" || ["commands", "relay"].contains(&message.channel);
            let required = written.into_iter().filter(|name| !optional(name));
            assert_eq!(message.required_headers(), required.collect(), "{at}");
            for (name, value) in object(&example["headers"]) {
                assert_eq!(record.header(name), Some(text(value).as_bytes()), "{at}: {name}");
            }
            if let Some(key) = record.key {
                assert_eq!(message.key()["examples"][0], String::from_utf8(key).unwrap(), "{at}");
            }
        }
    }
}

#[test]
fn every_header_that_has_a_name_is_in_the_document() {
    let document = document();
    let described: BTreeSet<&str> = messages(&document).iter().flat_map(Message::headers).collect();
    let constants = include_str!("../../src/header.rs").lines().filter(|line| line.starts_with("pub const "));
    let values = constants.map(|line| line.split('"').nth(1).unwrap());
    let names: BTreeSet<&str> = values.filter(|value| !value.contains('/') && !value.ends_with('-')).collect();
    assert_eq!(described, names);
}

#[test]
fn the_json_of_commands_flows_and_positions_has_the_fields_that_the_code_knows() {
    let document = document();
    let schema = |name: &str| &document["components"]["schemas"][name];
    let fields = |name: &str| keys(&schema(name)["properties"]);

    let refusal = Command::parse(Some(br#"{"":1}"#)).unwrap_err().to_string();
    let known: BTreeSet<&str> = refusal.split('`').skip(3).step_by(2).collect();
    assert_eq!(fields("Command"), known, "{refusal}");
    for (field, bytes_max) in [("id", limit::COMMAND_ID_BYTES_MAX), ("correlation_id", limit::CORRELATION_ID_BYTES_MAX)]
    {
        assert_eq!(schema("Command")["properties"][field]["maxLength"], bytes_max);
    }

    let example = |channel: &str, message: &str| {
        serde_json::to_vec(&document["channels"][channel]["messages"][message]["examples"][0]["payload"]).unwrap()
    };
    let written = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
    let flow = written(FlowDocument::parse(&example("flows", "flow")).unwrap().to_json());
    assert_eq!(fields("FlowDocument"), keys(&flow));
    let position = Position::parse(&example("relay", "position")).unwrap();
    let partial = Partial { commit_lsn: position.end_lsn, rows: 1 };
    let position = Position { partial: Some(partial), last_row: Some(LastRow::default()), ..position };
    let position = written(position.to_json());
    assert_eq!(fields("Position"), keys(&position));
    assert_eq!(keys(&schema("Position")["properties"]["partial"]["properties"]), keys(&position["partial"]));
    assert_eq!(keys(&schema("Position")["properties"]["last_row"]["properties"]), keys(&position["last_row"]));
}

#[test]
fn the_document_has_the_version_of_what_it_describes() {
    assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
}
