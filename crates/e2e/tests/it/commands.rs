//! The kcat door: records of `commands` become jobs, or dead letters that say why.

use std::collections::BTreeMap;

use serde_json::json;
use test_kit::{eventually, kcat, read_topic};

use crate::client::{order, send};
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_kcat_starts_jobs_and_bad_commands_become_dead_letters() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let (brokers, topics) = (stage.system.brokers().to_owned(), stage.system.topics());
    let valid = json!({ "flow": "order", "input": order("c-1", json!({})), "id": "k-1", "correlation_id": "corr" });
    let mut violating = order("c-1", json!({}));
    violating["qty"] = json!("two");
    let lines = [
        valid.to_string(),
        "{\"flow\": \"order\", ".to_owned(),
        json!({ "flow": "ordr", "input": {} }).to_string(),
        json!({ "flow": "order", "input": violating }).to_string(),
        valid.to_string(),
        json!({ "flow": "order", "input": order("c-9", json!({})), "id": "k-1" }).to_string(),
    ];
    let arguments = ["-P", "-b", &brokers, "-t", &topics.commands(), "-k", "customer-1"];
    kcat(&arguments, format!("{}\n", lines.join("\n")).as_bytes()).unwrap();

    let dead = eventually(PATIENCE, "four dead letters", async || {
        let dead = read_topic(&brokers, &topics.dead_letters()).await.unwrap();
        (dead.len() >= 4).then_some(dead)
    })
    .await;
    let reasons: BTreeMap<String, String> = dead
        .iter()
        .map(|record| {
            let header = |name: &str| {
                let found = record.headers.iter().find(|header| header.0 == name);
                found.map(|header| String::from_utf8_lossy(header.1.unwrap_or_default()).into_owned())
            };
            assert_eq!(header("meanwhile-failure-topic"), Some(topics.commands()));
            let value = String::from_utf8(record.value.as_deref().unwrap().to_vec()).unwrap();
            assert_eq!(record.key.as_deref(), Some("customer-1".as_bytes()));
            (value, header("meanwhile-failure-reason").unwrap())
        })
        .collect();
    let reason = |line: &str| reasons.get(line).unwrap_or_else(|| panic!("no dead letter for {line}: {reasons:?}"));
    assert!(reason(&lines[1]).contains("line 1"), "{reasons:?}");
    assert!(reason(&lines[2]).contains("`order`"), "the nearest name: {reasons:?}");
    assert!(reason(&lines[3]).contains("/qty"), "{reasons:?}");
    assert!(reason(&lines[5]).contains("`id`"), "{reasons:?}");

    // One key space with HTTP: the same id over HTTP is the same job, though not the same request.
    let request = test_kit::http_client().post(format!("{}/v1/flows/order/jobs", stage.system.api()));
    let same = send(request.header("idempotency-key", "\"k-1\"").json(&order("c-1", json!({})))).await;
    let job = match same.status {
        202 => same.job(),
        422 => same.body["job"].as_str().unwrap().parse().unwrap(),
        other => panic!("{other}: {same:?}"),
    };
    stage.system.note_accepted([job]);
    let end = stage.end_of(job).await;
    assert_eq!(end.correlation_id, "corr");
    let left = stage.finish().await;
    assert_eq!(left.tokens.ends().len(), 1, "one job from two equal commands");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_without_id_is_a_job_of_its_own_and_its_header_continues_the_trace() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let (brokers, topics) = (stage.system.brokers().to_owned(), stage.system.topics());
    let line = json!({ "flow": "order", "input": order("c-1", json!({})) }).to_string();
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let header = format!("traceparent=00-{trace_id}-00f067aa0ba902b7-01");
    let arguments = ["-P", "-b", &brokers, "-t", &topics.commands(), "-H", &header];
    kcat(&arguments, format!("{line}\n{line}\n").as_bytes()).unwrap();
    let jobs = eventually(PATIENCE, "two jobs", async || {
        let events = read_topic(&brokers, &topics.events()).await.unwrap();
        let mut jobs: Vec<_> = events.iter().map(|record| record.key.clone().unwrap().to_vec()).collect();
        jobs.sort();
        jobs.dedup();
        (jobs.len() == 2).then_some(jobs)
    })
    .await;
    for job in jobs {
        let job: flow::id::JobId = String::from_utf8(job).unwrap().parse().unwrap();
        stage.system.note_accepted([job]);
        let status = stage.status_at_end(job).await;
        assert_eq!((&status["status"], &status["trace_id"]), (&json!("succeeded"), &json!(trace_id)));
    }
    stage.finish().await;
}
