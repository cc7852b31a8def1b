//! Breakers as operators see and set them.

use axum::http::Method;
use events::breaker::{BreakerSaid, BreakerState};
use events::decode_wait;
use events::wait::Wait;
use serde_json::{Value, json};

use crate::stage::{Answer, Stage};

async fn put(stage: &Stage, downstream: &str, body: &str) -> Answer {
    let path = format!("/v1/breakers/{downstream}");
    stage.ingest.api.ask(Method::PUT, &path, &[("content-type", "application/json")], body).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_told_to_the_owner_of_the_breaker_and_what_is_none_is_refused() {
    let stage = Stage::new().await;
    for (body, state) in [
        (r#"{"state":"open","reason":"until\nnoon"}"#, Some(BreakerState::Open)),
        (r#"{"state":"closed"}"#, Some(BreakerState::Closed)),
        (r#"{"state":"auto"}"#, None),
    ] {
        let answer = put(&stage, "Payment:8080", body).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        let record = stage.ground.outbox(&stage.ground.topics.waits()).pop().unwrap();
        assert_eq!(record.key.as_deref(), Some(&b"payment:8080"[..]));
        let wait = stage.ground.reader.read(record.value.as_deref(), decode_wait).await.unwrap();
        let Wait::Breaker(news) = wait else { panic!("{wait:?}") };
        let reason = body.contains("noon").then(|| "until noon".to_owned());
        assert_eq!(news.said, BreakerSaid::Order { state, reason, by: "default".to_owned() });
    }
    let long = format!(r#"{{"state":"open","reason":"{}"}}"#, "x".repeat(1_001));
    for body in [
        r#"{"state":"half_open"}"#,
        r#"{"reason":"x"}"#,
        r#"{"state":"open","until":"noon"}"#,
        r#"["open","x"]"#,
        &long,
    ] {
        let answer = put(&stage, "payment:8080", body).await;
        assert_eq!((answer.status, answer.problem()), (400, "bad-request"), "{}", answer.text);
    }
    for name in ["%20", "a%2Fb", "a%20b", "%2E%2E%2E"] {
        let answer = put(&stage, name, r#"{"state":"open"}"#).await;
        assert_eq!((answer.status, answer.problem()), (400, "bad-request"), "{name}: {}", answer.text);
    }
    assert_eq!(stage.ground.outbox(&stage.ground.topics.waits()).len(), 3);
    assert_eq!(put(&stage, "nobodys", r#"{"state":"auto"}"#).await.json["known"], false);
    stage.ground.sql(
        "insert into orchestrator.breakers (downstream, phase, epoch, reason, openings)
         values ('erp', 'closed', 1, '', 1)",
    );
    assert_eq!(put(&stage, "ERP", r#"{"state":"auto"}"#).await.json["known"], true);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_says_of_each_breaker_what_it_does_and_how_many_wait_for_it() {
    let stage = Stage::new().await;
    assert_eq!(stage.ingest.api.get("/v1/breakers").await.json, json!({ "breakers": [] }));
    stage.ground.sql(
        "insert into orchestrator.breakers (downstream, phase, epoch, due_at, reason, openings)
         values ('payment:8080', 'paused', 3, now() + interval '5 seconds', '21 of 40 calls failed', 1),
                ('erp', 'recovering', 9, now(), '', 2), ('shop', 'closed', 4, null, '', 1)",
    );
    stage.ground.sql(
        "insert into orchestrator.holds (job, branch, hop, reason, topic, headers, downstream)
         select gen_random_uuid(), '', 1, reason, 't', '', 'payment:8080'
         from unnest(array['breaker', 'breaker', 'limit']) as hold (reason)",
    );
    let listed = stage.ingest.api.get("/v1/breakers").await.json["breakers"].clone();
    let of = |name: &str| listed.as_array().unwrap().iter().map(|it| it[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("downstream"), ["erp", "payment:8080", "shop"]);
    assert_eq!(of("state"), ["half_open", "open", "closed"]);
    assert_eq!(of("waiting"), [0, 2, 0]);
    assert_eq!(of("reason"), [Value::Null, json!("21 of 40 calls failed"), Value::Null]);
    assert!(of("next_probe_at")[1].is_string() && of("next_probe_at")[0].is_null(), "{listed}");
    stage.ingest.stop().await;
}
