//! The exported span of a redrive: a trace of its own, linked to the one in which the record failed.

use bus::{Producer, Record};
use client::{Choice, Redrive};
use events::headers::Headers;
use serde_json::json;
use test_kit::{Receiver, eventually};

use crate::client::order;
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

const FAILED_TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;

/// The length-delimited fields of a Protobuf message, by their numbers.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(message: &mut &[u8]) -> Option<u64> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = message.split_first()?;
            *message = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    }
    let mut fields = Vec::new();
    while let Some(tag) = varint(&mut message) {
        let length = match tag & 7 {
            0 => {
                varint(&mut message).unwrap();
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message).unwrap()).unwrap(),
            5 => 4,
            other => panic!("no wire type: {other}"),
        };
        let (field, rest) = message.split_at(length);
        message = rest;
        fields.push((tag >> 3, field));
    }
    fields
}

fn all(messages: Vec<&[u8]>, number: u64) -> Vec<&[u8]> {
    let of = |message| fields(message).into_iter().filter(move |(field, _)| *field == number).map(|(_, bytes)| bytes);
    messages.into_iter().flat_map(of).collect()
}

/// The trace of the span with this name, and those that it is linked to (`ExportTraceServiceRequest` of OTLP).
fn span(body: &[u8], name: &str) -> Option<(u128, Vec<u128>)> {
    let trace_id = |message| u128::from_be_bytes(all(vec![message], 1)[0].try_into().unwrap());
    let spans = all(all(all(vec![body], 1), 2), 2);
    let found = spans.into_iter().find(|span| all(vec![span], 5) == [name.as_bytes()])?;
    Some((trace_id(found), all(vec![found], 13).into_iter().map(trace_id).collect()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redriven_record_begins_a_trace_that_is_linked_to_the_one_in_which_it_failed() {
    let _turn = beside_others().await;
    let collector = Receiver::start().await;
    let mut stage = Stage::start_with(|builder| {
        builder.variable("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()).variable("OTEL_BSP_SCHEDULE_DELAY", "100")
    })
    .await;
    let topic = stage.system.topics().commands();
    let producer = Producer::new(&stage.system.settings()).unwrap();
    let traceparent = format!("00-{FAILED_TRACE:032x}-b7ad6b7169203331-01").into_bytes();
    let record = Record {
        topic: topic.clone(),
        key: Some(b"c-1".to_vec()),
        value: Some(b"no command".to_vec()),
        headers: Headers::from([("traceparent", Some(traceparent))]),
    };
    producer.send(&record).await.unwrap();
    let client = stage.system.client();
    let letter = eventually(PATIENCE, "the record is a dead letter", async || {
        client.dead_letters(&Choice::default(), None, 1).await.unwrap().dead_letters.pop()
    })
    .await;
    let value = Some(json!({ "flow": "order", "input": order("c-1", json!({})) }));
    client.redrive(&letter.id, &Redrive { value, ..Redrive::default() }).await.unwrap();

    let name = format!("redrive {topic}");
    let (trace, linked) = eventually(PATIENCE, "the span is exported", async || {
        collector.requests().iter().find_map(|request| span(&request.body, &name))
    })
    .await;
    assert_ne!(trace, FAILED_TRACE);
    assert_eq!(linked, [FAILED_TRACE]);
    let job = eventually(PATIENCE, "the record is a job", async || {
        let job = test_kit::psql(stage.system.database_url(), "select job from ingest.acceptances").unwrap();
        job.parse::<flow::id::JobId>().ok()
    })
    .await;
    stage.system.note_accepted([job]);
    let status = stage.status_at_end(job).await;
    assert_eq!(status["trace_id"], format!("{trace:032x}"), "what follows belongs to the redrive's trace");
    stage.finish().await;
}
