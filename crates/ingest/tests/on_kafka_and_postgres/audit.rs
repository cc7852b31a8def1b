//! The audit log: nothing is done that it does not tell.

use axum::http::Method;
use events::audit::AuditEntry;
use events::decode_audit_entry;
use ingest::auth::Scope;
use serde_json::{Value, json};
use store::Role;
use test_kit::eventually;

use crate::credentials::{ask, ask_once_known, key, start};
use crate::stage::{INPUT, PATIENCE, ground};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_changes_something_is_told_with_what_on_which_object_and_how_it_ended() {
    let ground = ground().await;
    let ingest = start(&ground).await;
    let (ada, bob) = (key(&ground, "default", &Scope::ALL).await, key(&ground, "default", &Scope::ALL).await);
    for key in [&ada, &bob] {
        ask_once_known(&ingest, key, "/v1/flows").await;
    }
    let job = ask(&ingest, &ada, Method::POST, "/orders", INPUT).await.job();
    assert_eq!(ask(&ingest, &bob, Method::DELETE, &format!("/v1/jobs/{job}"), "").await.status, 202);
    assert_eq!(ask(&ingest, &bob, Method::POST, "/v1/jobs/none/retry", "").await.status, 404);
    let flags = r#"{"flags":{"hold":"1s"},"reason":"a test"}"#;
    assert_eq!(ask(&ingest, &ada, Method::PUT, "/v1/flags/order", flags).await.status, 200);
    let told = async |query: &str| {
        let answer = ask(&ingest, &ada, Method::GET, &format!("/v1/audit{query}"), "").await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        let entries = answer.json["entries"].as_array().unwrap().clone();
        let row = |entry: &Value| {
            assert_eq!(entry["client"], if entry["action"] == "job.submit" { Value::Null } else { json!("127.0.0.1") });
            json!([entry["subject"], entry["action"], entry["object"], entry["status"]])
        };
        entries.iter().map(row).collect::<Vec<_>>()
    };
    let [a, b] = [&ada, &bob].map(|key| format!("key:{}", &key[3..19]));
    let cancel = json!([b, "job.cancel", job, 202]);
    let retry = json!([b, "job.retry", "none", 404]);
    let set = json!([a, "flags.set", "order", 200]);
    assert_eq!(told("").await, [set.clone(), retry.clone(), cancel.clone()]);
    assert_eq!(told(&format!("?subject={b}")).await, [retry, cancel.clone()]);
    assert_eq!(told(&format!("?object={job}")).await, std::slice::from_ref(&cancel));
    assert_eq!(told("?action=flags.set&since=2026-01-01T00:00:00Z").await, [set]);
    assert_eq!(told("?until=2026-01-01T00:00:00Z").await, [Value::Null; 0]);
    assert_eq!(told("?action=job.submit").await, [json!([a, "job.submit", job, 202])]);
    assert_eq!(told(&format!("?action=job.submit&object={job}&subject={b}")).await, [Value::Null; 0]);
    // By pages.
    let first = ask(&ingest, &ada, Method::GET, "/v1/audit?limit=2", "").await;
    let next = first.json["next"].as_str().unwrap();
    assert_eq!(told(&format!("?limit=2&after={next}")).await, [cancel]);
    for wrong in ["?after=x", "?limit=0", "?since=soon", "?subject=%00", "?who=me"] {
        let answer = ask(&ingest, &ada, Method::GET, &format!("/v1/audit{wrong}"), "").await;
        assert_eq!((answer.status, answer.problem()), (400, "bad-request"), "{wrong}: {}", answer.text);
    }
    // The version of the flags names the subject, too.
    assert_eq!(ask(&ingest, &ada, Method::GET, "/v1/flags/order", "").await.json["changed_by"], a.as_str());
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_does_not_take_is_not_done() {
    let ground = ground().await;
    let ingest = start(&ground).await;
    let operator = key(&ground, "default", &Scope::ALL).await;
    ask_once_known(&ingest, &operator, "/v1/flows").await;
    let job = ask(&ingest, &operator, Method::POST, "/orders", INPUT).await.job();
    let records = ground.sql("select count(*) from outbox.messages");
    ground.sql("revoke insert on ingest.audit from meanwhile_ingest");
    let cancel = async || ask(&ingest, &operator, Method::DELETE, &format!("/v1/jobs/{job}"), "").await;
    let refused = cancel().await;
    assert_eq!((refused.status, refused.problem()), (503, "not-ready"), "{}", refused.text);
    assert!(refused.text.contains("nothing was done"), "{}", refused.text);
    assert_eq!(ground.sql("select count(*) from outbox.messages"), records);
    ground.sql("grant insert on ingest.audit to meanwhile_ingest");
    // A process that ends after the deed leaves an entry that says that nobody knows how it ended.
    ground.sql("revoke insert on ingest.audit_results from meanwhile_ingest");
    assert_eq!(cancel().await.status, 202);
    let told = ask(&ingest, &operator, Method::GET, "/v1/audit", "").await;
    assert_eq!(
        (&told.json["entries"][0]["action"], &told.json["entries"][0]["status"]),
        (&json!("job.cancel"), &Value::Null)
    );
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_row_of_the_log_has_its_record_in_the_outbox_and_no_record_is_without_its_row() {
    let ground = ground().await;
    let ingest = start(&ground).await;
    let operator = key(&ground, "acme", &Scope::ALL).await;
    ask_once_known(&ingest, &operator, "/v1/flows").await;
    let entries = async || {
        let mut entries = Vec::new();
        for record in ground.outbox(&ground.topics.audit()) {
            assert_eq!(record.key.as_deref(), Some(&b"acme"[..]));
            entries.push(ground.reader.read(record.value.as_deref(), decode_audit_entry).await.unwrap());
        }
        entries
    };
    assert_eq!(ask(&ingest, &operator, Method::POST, "/v1/jobs/none/retry", "").await.status, 404);
    let told = entries().await;
    let [asked, answered] = &told[..] else { panic!("{told:?}") };
    let stored = ground.sql(
        "select id, subject, action, object, client, trace_id, (extract(epoch from a.at) * 1000)::bigint, status,
                (extract(epoch from r.at) * 1000)::bigint
         from ingest.audit a join ingest.audit_results r using (id)",
    );
    let answer = answered.answer.unwrap();
    let AuditEntry { id, subject, action, object, client, trace_id, at_ms, .. } = answered;
    let (client, trace_id) = (client.as_deref().unwrap(), trace_id.as_deref().unwrap());
    let status = answer.status;
    let row = format!("{id}|{subject}|{action}|{object}|{client}|{trace_id}|{at_ms}|{status}|{}", answer.at_ms);
    assert_eq!(row, stored);
    assert_eq!((action.as_str(), object.as_str(), status), ("job.retry", "none", 404));
    assert_eq!(*asked, AuditEntry { answer: None, ..answered.clone() });
    // Neither is there without the other.
    ground.sql("revoke insert on outbox.messages from meanwhile_ingest");
    assert_eq!(ask(&ingest, &operator, Method::POST, "/v1/jobs/none/retry", "").await.status, 503);
    ground.sql("grant insert on outbox.messages to meanwhile_ingest");
    assert_eq!(ground.sql("select count(*) from ingest.audit"), "1");
    ground.sql("revoke insert on ingest.audit_results from meanwhile_ingest");
    assert_eq!(ask(&ingest, &operator, Method::POST, "/v1/jobs/none/retry", "").await.status, 404);
    let told = entries().await;
    assert_eq!((told.len(), told[2].answer), (3, None), "{told:?}");
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_entries_go_with_their_answers_and_those_of_thirty_days_stay_whatever_is_asked() {
    let ground = ground().await;
    let pool = ground.pool(Role::Ingest);
    let add = |days: u32| {
        ground.sql(&format!(
            "with made as (
                insert into ingest.audit (id, tenant, subject, action, object)
                select (lpad(to_hex((extract(epoch from now() - interval '{days} days') * 1000)::bigint), 12, '0')
                        || '7000a000000000000{days:03}')::uuid, 'acme', 'a test', 'a.b', '{days}'
                returning id
             )
             insert into ingest.audit_results (id, status) select id, 200 from made"
        ));
    };
    [1, 29, 31, 59, 61, 90].into_iter().for_each(add);
    let left = || {
        let left = ground.sql("select string_agg(object, ' ' order by id desc) from ingest.audit");
        assert_eq!(ground.sql("select count(*) from ingest.audit_results"), left.split(' ').count().to_string());
        left
    };
    assert_eq!(store::audit::retire(&pool, 60).await.unwrap(), 2);
    assert_eq!(left(), "1 29 31 59");
    assert_eq!(store::audit::retire(&pool, 0).await.unwrap(), 2);
    assert_eq!(left(), "1 29");
    // The upkeep does it, by the settings.
    [399, 401].into_iter().for_each(add);
    let ingest = start(&ground).await;
    eventually(PATIENCE, "the oldest goes", async || (left() == "1 29 399").then_some(())).await;
    ingest.stop().await;
}
