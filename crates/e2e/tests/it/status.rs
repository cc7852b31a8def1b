//! A `GET` right after the 202 never answers 404, and no answer goes back in time.

use serde_json::json;

use crate::client::{order, send};
use crate::stage::Stage;
use crate::turn::beside_others;

const JOBS: usize = 60;

fn rank(status: &str) -> u8 {
    match status {
        "accepted" => 0,
        "running" | "waiting" => 1,
        "compensating" => 2,
        "succeeded" | "failed" => 3,
        other => panic!("a status {other:?}"),
    }
}

/// Submits at one ingest and asks, without pause, at another one, until the job has ended.
async fn watch(client: reqwest::Client, submit_at: String, ask_at: String, number: usize) -> flow::id::JobId {
    let simulate = match number % 4 {
        0 => json!({ "payment": "declined" }),
        1 => json!({ "payment": "busy:1" }),
        _ => json!({ "shipping": "slow:100" }),
    };
    let input = order(&format!("c-{number}"), simulate);
    let job = send(client.post(format!("{submit_at}/orders")).json(&input)).await.job();
    let (mut cursor, mut reached, mut events_seen) = (-1_i64, 0, 0);
    loop {
        let seen = send(client.get(format!("{ask_at}/v1/jobs/{job}"))).await;
        assert_eq!(seen.status, 200, "right after the 202: {seen:?}");
        // Where the machine is slow, attempts tell of their progress behind the cursor.
        let tag = seen.header("etag").trim_matches('"').split("-p").next().unwrap();
        let now: i64 = tag.parse().unwrap();
        assert!(now >= cursor, "the cursor went from {cursor} back to {now}: {seen:?}");
        let status = seen.body["status"].as_str().unwrap();
        assert!(rank(status) >= reached, "from rank {reached} back to {status}");
        let unchanged =
            send(client.get(format!("{ask_at}/v1/jobs/{job}")).header("if-none-match", format!("\"{now}\""))).await;
        assert!([200, 304].contains(&unchanged.status), "{unchanged:?}");
        let events = send(client.get(format!("{ask_at}/v1/jobs/{job}/events"))).await;
        let cursors: Vec<i64> = events.body["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["cursor"].as_str().unwrap().parse().unwrap())
            .collect();
        assert!(cursors.is_sorted_by(|a, b| a < b), "{cursors:?}");
        assert!(cursors.len() >= events_seen, "{} events after {events_seen}", cursors.len());
        (cursor, reached, events_seen) = (now, rank(status), cursors.len());
        if reached == 3 {
            return job;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_there_at_once_and_never_goes_back_in_time() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let second = stage.add(test_kit::Role::Ingest).await;
    let second = &mut stage.system.roles()[second];
    second.wait_until_ready().await.unwrap();
    let (ask_at, submit_at, client) = (second.url(), stage.system.api(), test_kit::http_client());
    let watchers: Vec<_> = (0..JOBS)
        .map(|number| tokio::spawn(watch(client.clone(), submit_at.clone(), ask_at.clone(), number)))
        .collect();
    for watcher in watchers {
        stage.system.note_accepted([watcher.await.unwrap()]);
    }
    stage.finish().await;
}
