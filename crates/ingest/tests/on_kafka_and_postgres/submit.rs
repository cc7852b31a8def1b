//! From a request to a stored job.

use events::{decode_event, decode_slip};
use flow::event::EventKind;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::stage::{INPUT, PARENT, PREFIX, Stage, trace_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_becomes_a_stored_job_with_its_first_event_and_its_first_slip() {
    let Stage { ground, ingest } = Stage::new().await;
    let headers = [("traceparent", PARENT), ("tracestate", "vendor=1"), ("x-correlation-id", "order 17")];
    let answer = ingest.api.order(&headers, INPUT).await;
    let job = answer.job();
    assert_eq!(answer.header("location"), format!("{PREFIX}/v1/jobs/{job}"));
    assert_eq!(answer.json["links"]["events"], format!("{PREFIX}/v1/jobs/{job}/events"));
    assert_eq!((answer.header("retry-after"), answer.header("x-correlation-id")), ("1", "order 17"));
    assert_eq!(answer.json["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(answer.json["correlation_id"], "order 17");

    let columns = "job, tenant, flow, key, correlation_id, convert_from(input, 'utf8'), steps_total, trace_id";
    let row = ground.sql(&format!("select {columns} from ingest.acceptances"));
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(row, format!("{job}|default|order|c-1|order 17|{INPUT}|2|{trace_id}"));

    let events = ground.outbox(&ground.topics.events());
    let slips = ground.outbox(&ground.topics.steps("default"));
    assert_eq!((events.len(), slips.len()), (1, 1));
    let event = ground.reader.read(events[0].value.as_deref(), decode_event).await.unwrap();
    assert_eq!((event.kind, event.hop, event.job.to_string()), (EventKind::JobAccepted, 0, job.clone()));
    let slip = ground.reader.read(slips[0].value.as_deref(), decode_slip).await.unwrap();
    assert_eq!((slip.hop, slip.step.as_str(), slip.job), (1, "reserve", event.job));
    assert_eq!(slip.input, json!({ "customer_id": "c-1", "qty": 2 }));
    assert_eq!((slip.correlation_id.as_str(), event.correlation_id.as_str()), ("order 17", "order 17"));
    assert_eq!(slips[0].key.as_deref(), Some(&b"default/order/c-1"[..]));
    for record in [&events[0], &slips[0]] {
        let trace = trace_of(record);
        assert_eq!(trace.context.trace_id.to_string(), trace_id);
        assert_ne!(trace.context.span_id, 0x00f0_67aa_0ba9_02b7, "a span of ours");
        assert_eq!(trace.state.as_deref(), Some("vendor=1"));
        assert_eq!(record.header("meanwhile-job-id"), Some(job.as_bytes()));
    }

    let by_route = ingest.api.post("/orders", &[], INPUT).await;
    assert_eq!(by_route.header("location"), format!("{PREFIX}/v1/jobs/{}", by_route.job()));
    assert_ne!(by_route.json["trace_id"], trace_id);
    assert_eq!(by_route.header("x-correlation-id"), by_route.json["correlation_id"]);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_right_after_the_202_never_answers_404() {
    let stage = Stage::new().await;
    let mut clients = JoinSet::new();
    for client in 0..10 {
        let api = stage.ingest.api.clone();
        clients.spawn(async move {
            for number in 0..50 {
                let input = json!({ "customer_id": format!("c-{client}"), "qty": number + 1 }).to_string();
                let job = api.order(&[], &input).await.job();
                let answer = api.get(&format!("/v1/jobs/{job}")).await;
                assert_eq!((answer.status, &answer.json["status"]), (200, &json!("accepted")), "{}", answer.text);
                assert_eq!(answer.json["correlation_id"].as_str().unwrap().len(), 36);
                let steps: Vec<&Value> =
                    answer.json["steps"].as_array().unwrap().iter().map(|step| &step["status"]).collect();
                assert_eq!(steps, ["pending", "pending"]);
            }
        });
    }
    clients.join_all().await;
    assert_eq!(stage.jobs_stored(), 500);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_postgres_refuses_costs_only_itself() {
    let stage = Stage::new().await;
    stage.ground.sql("alter table ingest.acceptances add constraint sound check (key <> 'poison')");
    let mut clients = JoinSet::new();
    for client in 0..40 {
        let api = stage.ingest.api.clone();
        clients.spawn(async move {
            let key = if client % 10 == 0 { "poison".to_owned() } else { format!("c-{client}") };
            let answer = api.order(&[], &json!({ "customer_id": key, "qty": 1 }).to_string()).await;
            assert_eq!(answer.status, if key == "poison" { 500 } else { 202 }, "{}", answer.text);
            assert!(!answer.text.contains("constraint"), "the cause is for the log: {}", answer.text);
        });
    }
    clients.join_all().await;
    assert_eq!(stage.jobs_stored(), 36);
    assert_eq!(stage.ground.outbox(&stage.ground.topics.steps("default")).len(), 36);
    stage.ingest.stop().await;
}
