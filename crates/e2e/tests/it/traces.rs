//! One trace from the request to every call at the shop: forward, again after a hold, and undo.

use serde_json::json;
use shop::{Op, Trade};

use crate::client::{order, send};
use crate::stage::Stage;
use crate::turn::beside_others;

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callers_trace_and_correlation_reach_every_call() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let input = order("c-1", json!({ "inventory": "busy:2", "payment": "declined" }));
    let request = test_kit::http_client()
        .post(format!("{}/orders", stage.system.api()))
        .header("traceparent", format!("00-{TRACE_ID}-b7ad6b7169203331-01"))
        .header("x-correlation-id", "shopping-trip-7")
        .json(&input);
    let accepted = send(request).await;
    let job = accepted.job();
    stage.system.note_accepted([job]);
    assert_eq!(accepted.header("x-correlation-id"), "shopping-trip-7");
    assert_eq!(accepted.body["trace_id"], TRACE_ID);
    let end = stage.end_of(job).await;
    assert_eq!(end.correlation_id, "shopping-trip-7");
    let status = stage.status_at_end(job).await;
    assert_eq!((&status["trace_id"], &status["correlation_id"]), (&json!(TRACE_ID), &json!("shopping-trip-7")));
    let topics = stage.system.topics();
    let brokers = stage.system.brokers().to_owned();
    for topic in [topics.steps("default"), topics.events(), topics.waits()] {
        let records = test_kit::read_topic(&brokers, &topic).await.unwrap();
        // A worker's sign of life at its start belongs to no job.
        for record in records.iter().filter(|record| record.header(events::header::JOB_ID).is_some()) {
            let headers: Vec<_> = record.headers.iter().filter(|header| header.0 == "traceparent").collect();
            assert_eq!(headers.len(), 1, "{topic}: {record:?}");
            let value = String::from_utf8_lossy(headers[0].1.unwrap_or_default()).into_owned();
            assert_eq!(value.split('-').nth(1), Some(TRACE_ID), "{topic}: {value}");
        }
    }
    let left = stage.finish().await;
    let calls = |trade, op| {
        let log = left.shop.log_after(trade, 0);
        log.into_iter().filter(|line| line.op == op).map(|line| line.traceparent).collect::<Vec<_>>()
    };
    let forward = calls(Trade::Inventory, Op::CreateCalled);
    assert_eq!(forward.len(), 2, "again after the hold");
    let undo = calls(Trade::Inventory, Op::UndoCalled);
    assert_eq!(undo.len(), 1);
    for traceparent in forward.iter().chain(&undo).chain(&calls(Trade::Payment, Op::CreateCalled)) {
        assert_eq!(traceparent.split('-').nth(1), Some(TRACE_ID), "{traceparent}");
    }
}
