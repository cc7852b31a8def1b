//! Dead letters over HTTP: listed, shown, sent back once, dropped.

use axum::http::Method;
use events::dead_letter::{self, Failure, burial};
use events::headers::Headers;
use events::{Inbound, Record};
use flow::event::{EventKind, JobStatus};
use flow::id::TokenId;
use flow::slip::HoldReason;
use serde_json::{Value, json};
use store::Role;
use store::dead_letters::{DeadLetter, Original, index};
use store::holds::{NewHold, insert};
use store::jobs::{ObservedEvent, project};
use test_kit::{Ground, sample_event, sample_job};

use crate::stage::{Answer, Stage, trace_of};

/// A command that failed so, as it lies on the dead letters' topic and in the orchestrator's index; its id.
pub(crate) async fn bury(ground: &Ground, class: &str, value: &str, redrives: u32, at_ms: i64) -> String {
    let mut headers = Headers::from([("x-own", Some("stays"))]);
    if redrives > 0 {
        headers.push_text("meanwhile-failure-redrives", redrives);
    }
    let failed = Inbound {
        topic: ground.topics.commands(),
        partition: 1,
        offset: 7,
        key: Some(b"customer-7".to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers,
        ..Inbound::default()
    };
    let letter = dead_letter::record(&ground.topics, &failed, &Failure::once(class, "why it failed", at_ms));
    let (partition, offset) = ground.send(&letter).await;
    let indexed = DeadLetter {
        topic: letter.topic,
        partition,
        offset,
        original: Some(Original { topic: failed.topic, partition: 1, offset: 7 }),
        class: class.to_owned(),
        reason: "why it failed".to_owned(),
        tenant: None,
        flow: serde_json::from_str::<Value>(value).ok().and_then(|value| value["flow"].as_str().map(str::to_owned)),
        step: None,
        attempts: 1,
        key: letter.key,
        headers: letter.headers,
        value_bytes: u32::try_from(value.len()).unwrap(),
        at_ms,
    };
    let mut tx = ground.pool(Role::Orchestrator).begin().await.unwrap();
    index(&mut tx, &[indexed]).await.unwrap();
    tx.commit().await.unwrap();
    format!("{partition}-{offset}")
}

fn commands(ground: &Ground) -> Vec<Record> {
    ground.outbox(&ground.topics.commands())
}

fn ids(answer: &Answer) -> Vec<&str> {
    answer.json["dead_letters"].as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap()).collect()
}

async fn redrive(stage: &Stage, id: &str, body: &Value) -> Answer {
    stage.ingest.api.post(&format!("/v1/dead-letters/{id}/redrive"), &[], &body.to_string()).await
}

const COMMAND: &str = r#"{"flow":"order","input":{"customer_id":"c-1","qty":2}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_are_listed_newest_first_chosen_counted_and_read_page_by_page() {
    let stage = Stage::new().await;
    let (ground, api) = (&stage.ground, &stage.ingest.api);
    let mut buried = vec![];
    for number in 0..5 {
        let class = if number % 2 == 0 { "unknown-flow" } else { "invalid-command" };
        buried.insert(0, bury(ground, class, COMMAND, 0, 1_700_000_000_000 + number / 2).await);
    }
    let all = api.get("/v1/dead-letters").await;
    assert_eq!(all.json["counts"], json!({ "unknown-flow": 3, "invalid-command": 2 }));
    assert_eq!((ids(&all).len(), &all.json["next"]), (5, &Value::Null));
    let (mut paged, mut after) = (vec![], String::new());
    loop {
        let page = api.get(&format!("/v1/dead-letters?limit=2&after={after}")).await;
        paged.extend(ids(&page).into_iter().map(str::to_owned));
        let Some(next) = page.json["next"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!(paged, ids(&all));
    let chosen = api.get("/v1/dead-letters?class=invalid-command").await;
    assert_eq!((ids(&chosen).len(), &chosen.json["counts"]), (2, &json!({ "invalid-command": 2 })));
    let early = api.get("/v1/dead-letters?until=2023-11-14T22:13:20.001Z").await;
    assert_eq!(ids(&early).len(), 2, "{}", early.text);
    let elsewhere = api.get("/v1/dead-letters?topic=elsewhere").await;
    assert_eq!((ids(&elsewhere).len(), &elsewhere.json["counts"]), (0, &json!({})));
    let (order, other) = (api.get("/v1/dead-letters?flow=order").await, api.get("/v1/dead-letters?flow=other").await);
    assert_eq!((ids(&order).len(), ids(&other).len(), &other.json["counts"]), (5, 0, &json!({})));
    assert_eq!(order.json["dead_letters"][0]["flow"], "order");
    assert_eq!(ids(&api.get("/v1/dead-letters?flow=order&step=charge").await).len(), 0);
    for wrong in ["limit=0", "limit=1001", "after=x", "since=yesterday", "colour=red"] {
        let answer = api.get(&format!("/v1/dead-letters?{wrong}")).await;
        assert_eq!((answer.status, answer.problem()), (400, "bad-request"), "{wrong}");
    }
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_goes_back_once_with_its_key_and_its_own_headers() {
    let stage = Stage::new().await;
    let ground = &stage.ground;
    let id = bury(ground, "unknown-flow", COMMAND, 2, 1_700_000_000_000).await;
    let shown = stage.ingest.api.get(&format!("/v1/dead-letters/{id}")).await.json;
    assert_eq!(
        (&shown["status"], &shown["redrives"], &shown["class"]),
        (&json!("open"), &json!(2), &json!("unknown-flow"))
    );
    assert_eq!((&shown["record"]["key"], &shown["record"]["value"]["flow"]), (&json!("customer-7"), &json!("order")));
    for _ in 0..2 {
        let answer = redrive(&stage, &id, &json!({})).await;
        assert_eq!((answer.status, &answer.json["topic"]), (202, &json!(ground.topics.commands())), "{}", answer.text);
    }
    let sent = commands(ground);
    let [record] = &sent[..] else { panic!("sent once: {sent:?}") };
    assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"customer-7"[..]), Some(COMMAND.as_bytes())));
    let failure: Vec<_> = record.headers.iter().filter(|(name, _)| name.starts_with("meanwhile-failure")).collect();
    assert_eq!(failure, [("meanwhile-failure-redrives", Some(&b"3"[..]))]);
    assert_eq!(record.header("x-own"), Some(&b"stays"[..]));
    trace_of(record);
    // It comes back: the count goes on.
    let again = Inbound { headers: record.headers.clone(), ..Inbound::default() };
    let letter = dead_letter::record(&ground.topics, &again, &Failure::once("c", "r", 0));
    assert_eq!(burial(&Inbound { headers: letter.headers, ..Inbound::default() }).unwrap().redrives, 3);
    let dropped = stage.ingest.api.ask(Method::DELETE, &format!("/v1/dead-letters/{id}?reason=late"), &[], "").await;
    assert_eq!(dropped.unwrap().problem(), "already-settled");
    assert!(ids(&stage.ingest.api.get("/v1/dead-letters").await).is_empty());
    assert_eq!(ids(&stage.ingest.api.get("/v1/dead-letters?settled=true").await), [&*id]);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_redrive_at_once_send_it_once() {
    let stage = Stage::new().await;
    let id = bury(&stage.ground, "unknown-flow", COMMAND, 0, 1_700_000_000_000).await;
    let body = json!({});
    let (a, b, c) = tokio::join!(redrive(&stage, &id, &body), redrive(&stage, &id, &body), redrive(&stage, &id, &body));
    assert_eq!([a.status, b.status, c.status], [202; 3]);
    assert_eq!(commands(&stage.ground).len(), 1);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_has_no_effect_is_refused_and_none_is_passed_over() {
    let stage = Stage::new().await;
    let id = bury(&stage.ground, "unknown-flow", COMMAND, 0, 1_700_000_000_000).await;
    let path = format!("/v1/dead-letters/{id}/redrive");
    let untyped = stage.ingest.api.ask(Method::POST, &path, &[], r#"{"key":"mine"}"#).await.unwrap();
    assert_eq!((untyped.status, untyped.problem()), (415, "unsupported-media-type"), "{}", untyped.text);
    let array = redrive(&stage, &id, &json!([null, null, "mine"])).await;
    assert_eq!((array.status, array.problem()), (400, "bad-request"), "{}", array.text);
    assert!(commands(&stage.ground).is_empty());
    let bodies = ["a", "b"].map(|key| json!({ "key": key }));
    let (a, b) = tokio::join!(redrive(&stage, &id, &bodies[0]), redrive(&stage, &id, &bodies[1]));
    let statuses = [a.status, b.status];
    assert!(matches!(statuses, [202, 409] | [409, 202]), "{} {}", a.text, b.text);
    for (body, status) in bodies.iter().zip(statuses) {
        assert_eq!(redrive(&stage, &id, body).await.status, status, "the same order has the same answer");
    }
    let late = redrive(&stage, &id, &json!({ "key": "c" })).await;
    assert_eq!((late.status, late.problem()), (409, "already-settled"));
    assert_eq!(redrive(&stage, &id, &json!({})).await.status, 202, "it went back, as asked");
    assert_eq!(commands(&stage.ground).len(), 1);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_chooses_nothing_and_a_text_that_cannot_be_sought_are_refused() {
    let stage = Stage::new().await;
    bury(&stage.ground, "unknown-flow", COMMAND, 0, 1_700_000_000_000).await;
    for body in ["{}", "[]", r#"["unknown-flow"]"#, r#"{"max":5,"force":true}"#, r#"{"class":"a\u0000b"}"#] {
        let answer = stage.ingest.api.post("/v1/dead-letters:redrive", &[], body).await;
        assert_eq!((answer.status, answer.problem()), (400, "bad-request"), "{body}: {}", answer.text);
    }
    assert!(commands(&stage.ground).is_empty());
    for path in [
        "/v1/dead-letters?class=%00",
        "/v1/dead-letters?step=%00",
        "/v1/dead-letters?after=9223372036854775807.0-1",
        "/v1/jobs?key=%00",
        "/v1/jobs?flow=%00",
        "/v1/jobs?correlation_id=%00",
    ] {
        let answer = stage.ingest.api.get(path).await;
        assert_eq!((answer.status, answer.problem()), (400, "bad-request"), "{path}: {}", answer.text);
    }
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_command_is_held_to_its_flows_schema() {
    let stage = Stage::new().await;
    let id =
        bury(&stage.ground, "schema-violation", r#"{"flow":"order","input":{"qty":0}}"#, 0, 1_700_000_000_000).await;
    let wrong = redrive(&stage, &id, &json!({ "value": { "flow": "order", "input": { "qty": 0 } } })).await;
    assert_eq!((wrong.status, wrong.problem()), (422, "schema-violation"), "{}", wrong.text);
    let unknown = redrive(&stage, &id, &json!({ "value": { "flow": "oder", "input": {} } })).await;
    assert_eq!(unknown.problem(), "unknown-flow");
    for bad in [json!({ "value_base64": "?" }), json!({ "value": {}, "value_base64": "" }), json!({ "value": [1] })] {
        assert_eq!(redrive(&stage, &id, &bad).await.problem(), "bad-request", "{bad}");
    }
    assert!(commands(&stage.ground).is_empty());
    let value: Value = serde_json::from_str(COMMAND).unwrap();
    assert_eq!(redrive(&stage, &id, &json!({ "value": value })).await.status, 202);
    let sent: Value = serde_json::from_slice(commands(&stage.ground)[0].value.as_deref().unwrap()).unwrap();
    assert_eq!(sent, value);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_comes_back_each_time_is_sent_again_only_where_somebody_insists() {
    let stage = Stage::new().await;
    let id = bury(&stage.ground, "unknown-flow", COMMAND, 5, 1_700_000_000_000).await;
    let refused = redrive(&stage, &id, &json!({})).await;
    assert_eq!((refused.status, refused.problem()), (409, "redrive-limit"), "{}", refused.text);
    let edited = bury(&stage.ground, "schema-violation", COMMAND, 5, 1_700_000_000_000).await;
    assert_eq!(redrive(&stage, &edited, &json!({ "key": "another" })).await.status, 202, "an edited one is another");
    assert_eq!(commands(&stage.ground)[0].header("meanwhile-failure-redrives"), Some(&b"1"[..]));
    let many = stage.ingest.api.post("/v1/dead-letters:redrive", &[], r#"{"class":"unknown-flow"}"#).await.json;
    assert_eq!((&many["redriven"], &many["left"][0]["id"]), (&json!(0), &json!(id)));
    assert_eq!(commands(&stage.ground).len(), 1);
    assert_eq!(redrive(&stage, &id, &json!({ "force": true })).await.status, 202);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_go_back_by_choice_and_none_in_a_dry_run() {
    let stage = Stage::new().await;
    let ground = &stage.ground;
    for number in 0..5 {
        let class = if number < 3 { "unknown-flow" } else { "invalid-command" };
        bury(ground, class, COMMAND, 0, 1_700_000_000_000 + number).await;
    }
    let order = async |body: Value| {
        let answer = stage.ingest.api.post("/v1/dead-letters:redrive", &[], &body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json
    };
    let dry = order(json!({ "class": "unknown-flow", "dry_run": true })).await;
    assert_eq!((&dry["chosen"], &dry["redriven"], commands(ground).len()), (&json!(3), &json!(3), 0));
    let first = order(json!({ "class": "unknown-flow", "max": 2 })).await;
    assert_eq!((&first["redriven"], commands(ground).len()), (&json!(2), 2));
    let rest = order(json!({ "class": "unknown-flow", "max": 2, "after": first["next"] })).await;
    assert_eq!((&rest["redriven"], &rest["next"], commands(ground).len()), (&json!(1), &Value::Null, 3));
    let again = order(json!({ "class": "unknown-flow" })).await;
    assert_eq!((&again["chosen"], commands(ground).len()), (&json!(0), 3));
    assert_eq!(ids(&stage.ingest.api.get("/v1/dead-letters").await).len(), 2);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_dropped_is_not_listed_and_cannot_be_sent() {
    let stage = Stage::new().await;
    let id = bury(&stage.ground, "unknown-flow", COMMAND, 0, 1_700_000_000_000).await;
    let drop = async |query: &str| {
        let path = format!("/v1/dead-letters/{id}{query}");
        stage.ingest.api.ask(Method::DELETE, &path, &[], "").await.unwrap()
    };
    assert_eq!(drop("").await.problem(), "bad-request", "a reason is needed");
    for _ in 0..2 {
        assert_eq!(drop("?reason=a%20test").await.status, 204);
    }
    let shown = stage.ingest.api.get(&format!("/v1/dead-letters/{id}")).await.json;
    assert_eq!((&shown["status"], &shown["settled"]["reason"]), (&json!("dropped"), &json!("a test")));
    assert_eq!(redrive(&stage, &id, &json!({})).await.problem(), "already-settled");
    assert!(commands(&stage.ground).is_empty());
    for unknown in ["7-99999", "x", "1"] {
        let answer = stage.ingest.api.get(&format!("/v1/dead-letters/{unknown}")).await;
        assert_eq!((answer.status, answer.problem()), (404, "unknown-dead-letter"));
    }
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_record_kafka_does_not_keep_is_told_apart() {
    let stage = Stage::new().await;
    let id = bury(&stage.ground, "unknown-flow", COMMAND, 0, 1_700_000_000_000).await;
    let (partition, _) = id.split_once('-').unwrap();
    stage.ground.sql("update orchestrator.dead_letters set \"offset\" = 4711");
    let shown = stage.ingest.api.get(&format!("/v1/dead-letters/{partition}-4711")).await;
    assert_eq!((shown.status, &shown.json["record"]), (200, &Value::Null), "{}", shown.text);
    let answer = redrive(&stage, &format!("{partition}-4711"), &json!({})).await;
    assert_eq!((answer.status, answer.problem()), (410, "gone"), "{}", answer.text);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_jobs_name_their_step_and_are_chosen_by_it() {
    let stage = Stage::new().await;
    let (ground, api) = (&stage.ground, &stage.ingest.api);
    let pool = ground.pool(Role::Orchestrator);
    let mut parked = vec![];
    for step in [Some("charge"), Some("ship"), None] {
        let job = sample_job();
        let token = TokenId { job, branch: String::new(), hop: 2 };
        let hold = NewHold::new(token, HoldReason::Attention, Record { topic: "t".to_owned(), ..Record::default() });
        let event = sample_event(job, EventKind::JobParked, JobStatus::NeedsAttention, 1);
        let mut tx = pool.begin().await.unwrap();
        project(&mut tx, &[ObservedEvent { partition: 0, cursor: 1, trace_id: None, event }]).await.unwrap();
        insert(&mut tx, &[NewHold { step: step.map(str::to_owned), ..hold }]).await.unwrap();
        tx.commit().await.unwrap();
        parked.insert(0, job.to_string());
    }
    let all = api.get("/v1/dead-letters?class=parked").await;
    assert_eq!(ids(&all), parked.iter().collect::<Vec<_>>());
    let steps: Vec<&Value> = (0..3).map(|at| &all.json["dead_letters"][at]["step"]).collect();
    assert_eq!(steps, [&Value::Null, &json!("ship"), &json!("charge")]);
    assert_eq!(ids(&api.get("/v1/dead-letters?step=ship").await), [&parked[1]]);
    assert_eq!(ids(&api.get("/v1/dead-letters?class=parked&flow=order&step=charge").await), [&parked[2]]);
    assert!(ids(&api.get("/v1/dead-letters?flow=other&step=charge").await).is_empty());
    ground.sql(&format!("update orchestrator.jobs set tenant = 'other' where job = '{}'", parked[1]));
    let own = api.get("/v1/dead-letters?class=parked").await;
    assert_eq!(ids(&own), [&parked[0], &parked[2]], "another tenant's are not told");
    stage.ingest.stop().await;
}
