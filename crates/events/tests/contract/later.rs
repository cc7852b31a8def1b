//! Tokens of later versions are neither lost nor taken by half: who does not know something about one leaves it as it
//! is.

use apache_avro::types::Value as Avro;
use events::wait::Wait;
use events::{DecodeError, RecordKind, decode_event, decode_slip, decode_wait, decode_wait_and_slip, peek_slip};
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::slip::{HoldReason, Slip};
use serde_json::{Value, json};

use crate::answered::{answered, resting};
use crate::evolution::{OTHER_ID, generic, latest, write};
use crate::sample::{Any, IDS, carrying_slip, samples, schemas, slip};

/// The sample of this name, with other values in some of its fields.
fn changed(kind: RecordKind, name: &str, changes: &[(&str, Avro)]) -> Vec<u8> {
    let of_name = |(known, sample): &(&str, Any)| *known == name && sample.kind() == kind;
    let (_, sample) = samples().into_iter().find(of_name).unwrap();
    let Avro::Record(mut fields) = generic(kind, &sample.encode().unwrap()) else { unreachable!("a record") };
    for (name, value) in changes {
        fields.iter_mut().find(|(field, _)| field == name).unwrap().1 = value.clone();
    }
    write(&latest(kind), IDS.of(kind), Avro::Record(fields))
}

fn text(text: &str) -> Avro {
    Avro::String(text.to_owned())
}

fn some(value: Avro) -> Avro {
    Avro::Union(1, Box::new(value))
}

fn newer<T: std::fmt::Debug>(read: Result<T, DecodeError>) -> String {
    match read.unwrap_err() {
        DecodeError::Newer(what) => what,
        other => panic!("{other}"),
    }
}

#[test]
fn a_slip_that_requires_what_this_version_lacks_is_left_as_it_is() {
    let requires = ("requires", Avro::Array(vec![text("goto")]));
    let bytes = changed(RecordKind::Slip, "forward", &[requires]);
    assert_eq!(newer(decode_slip(&schemas(), &bytes)), "it requires `goto`");
    let known = peek_slip(&schemas(), &bytes).unwrap();
    assert_eq!(known, Slip { requires: vec!["goto".to_owned()], ..slip() });
    let bytes = changed(RecordKind::Slip, "forward", &[("phase", text("check"))]);
    assert_eq!(newer(decode_slip(&schemas(), &bytes)), "phase `check`");
    let noise = changed(RecordKind::Slip, "forward", &[("phase", text("No Phase"))]);
    assert!(matches!(decode_slip(&schemas(), &noise), Err(DecodeError::Field { field: "phase", .. })));
}

#[test]
fn a_field_within_a_completed_step_is_kept_too() {
    let mut later = latest(RecordKind::Slip);
    let fields = later["fields"].as_array_mut().unwrap();
    let done = fields.iter_mut().find(|field| field["name"] == "done").unwrap();
    let cost = json!({"name": "cost", "type": "long", "default": 0});
    done["type"]["items"]["fields"].as_array_mut().unwrap().push(cost);
    let of_cost = |costs: [i64; 3]| {
        let Avro::Record(mut fields) = generic(RecordKind::Slip, &Any::Slip(slip()).encode().unwrap()) else {
            unreachable!("a record")
        };
        let done = fields.iter_mut().find(|(name, _)| name == "done").unwrap();
        let Avro::Array(steps) = &mut done.1 else { unreachable!("a list") };
        for (step, cost) in steps.iter_mut().zip(costs) {
            let Avro::Record(fields) = step else { unreachable!("a record") };
            fields.push(("cost".to_owned(), Avro::Long(cost)));
        }
        let schemas = schemas();
        schemas.insert(OTHER_ID, &later.to_string());
        decode_slip(&schemas, &write(&later, OTHER_ID, Avro::Record(fields)))
    };
    assert_eq!(of_cost([0, 0, 0]).unwrap(), slip());
    assert_eq!(newer(of_cost([0, 0, 5])), "it has `done.cost`");
}

#[test]
fn what_nothing_uses_yet_survives_this_version() {
    let of_step = resting();
    let answers = answered().answers;
    let of_step = Slip { step_state: of_step.step_state, step_left_ms: of_step.step_left_ms, ..carrying_slip() };
    let slip_of_all = Slip { answers, ..of_step };
    let written = Any::Slip(slip_of_all).encode().unwrap();
    let read = decode_slip(&schemas(), &written).unwrap();
    assert_eq!(Any::Slip(read).encode().unwrap(), written);
    let json = events::decode_json(&schemas(), RecordKind::Slip, &written).unwrap();
    let unset = events::decode_json(&schemas(), RecordKind::Slip, &Any::Slip(slip()).encode().unwrap()).unwrap();
    let later = json.as_object().unwrap().keys().skip_while(|name| *name != "missing");
    let same: Vec<&String> = later.filter(|name| json[*name] == unset[*name]).collect();
    assert_eq!(same, Vec::<&String>::new(), "the sample sets every later field");
}

#[test]
fn an_event_of_a_later_kind_and_status_is_read_by_its_words() {
    let changes = [("kind", text("step.checked")), ("status", text("checking")), ("phase", text("check"))];
    let event: JobEvent = decode_event(&schemas(), &changed(RecordKind::JobEvent, "retrying", &changes)).unwrap();
    assert_eq!((event.kind.as_str(), event.status.as_str()), ("step.checked", "checking"));
    assert!(!event.status.is_final() && !event.kind.ends_job());
    assert!(matches!((event.kind, event.status), (EventKind::Other(_), JobStatus::Other(_))));
    let again = Any::JobEvent(event.clone()).encode().unwrap();
    assert_eq!(decode_event(&schemas(), &again).unwrap(), event);
    let noise = changed(RecordKind::JobEvent, "retrying", &[("kind", text("No Kind"))]);
    assert!(decode_event(&schemas(), &noise).is_err());
}

#[test]
fn a_hold_of_a_later_reason_is_a_hold() {
    let bytes = changed(RecordKind::Wait, "backoff", &[("reason", some(text("budget")))]);
    let Wait::Hold(hold) = decode_wait(&schemas(), &bytes).unwrap() else { panic!("a hold") };
    assert_eq!((hold.reason.as_str(), hold.release_after_ms), ("budget", Some(30_000)));
    assert!(matches!(hold.reason, HoldReason::Other(_)));
}

#[test]
fn a_hold_gives_the_slip_of_a_later_version_as_it_is() {
    let slip = changed(RecordKind::Slip, "forward", &[("requires", Avro::Array(vec![text("goto")]))]);
    let bytes = changed(RecordKind::Wait, "backoff", &[("slip", some(Avro::Bytes(slip.clone())))]);
    let (wait, inside) = decode_wait_and_slip(&schemas(), &bytes).unwrap();
    assert_eq!((inside, wait.hold().unwrap().slip.requires.as_slice()), (Some(slip), &["goto".to_owned()][..]));
}

#[test]
fn a_wait_that_says_more_than_this_version_heeds_is_left_as_it_is() {
    let of = |change| newer(decode_wait(&schemas(), &changed(RecordKind::Wait, "backoff", &[change])));
    assert_eq!(of(("kind", text("join"))), "kind `join`");
    assert_eq!(of(("requires", Avro::Array(vec![text("joins")]))), "it requires `joins`");
    let fields: Value = latest(RecordKind::Wait);
    let fields = fields["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap());
    for field in fields.skip_while(|name| *name != "requires").skip(1).filter(|name| *name != "limit") {
        let value = match field {
            "data" => Avro::Bytes(b"1".to_vec()),
            "join_count" | "expires_at_ms" => Avro::Long(1),
            _ => text("x"),
        };
        assert_eq!(of((field, some(value))), format!("it says `{field}`"));
    }
}
