//! Many jobs in one request.

use axum::http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stage::{Answer, Ingest, PATIENCE, PREFIX, PUBLIC_URL, Stage};

const PATH: &str = "/v1/flows/order/jobs:batch";
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

fn item(customer: &str, qty: u32) -> Value {
    json!({ "input": { "customer_id": customer, "qty": qty } })
}

fn keyed(customer: &str, qty: u32, key: &str) -> Value {
    let mut item = item(customer, qty);
    item["idempotency_key"] = key.into();
    item
}

async fn post_lines(ingest: &Ingest, query: &str, lines: &[String]) -> Answer {
    ingest.api.ask(Method::POST, &format!("{PATH}{query}"), &[LINES], &lines.join("\n")).await.unwrap()
}

fn answers(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn statuses(answers: &[Value]) -> Vec<u64> {
    answers.iter().map(|answer| answer["status"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_item_is_accepted_or_refused_by_itself() {
    let stage = Stage::new().await;
    let first = post_lines(&stage.ingest, "", &[keyed("c-1", 1, "k-1").to_string()]).await;
    let first = answers(&first)[0]["id"].clone();
    let lines = [
        item("c-1", 1).to_string(),
        keyed("c-1", 1, "k-1").to_string(),
        keyed("c-1", 9, "k-1").to_string(),
        item("c-1", 0).to_string(),
        "{".to_owned(),
        String::new(),
        json!({ "input": {}, "inptu": 1 }).to_string(),
        json!({ "input": { "customer_id": "c", "qty": 1 }, "delay": "soon" }).to_string(),
        json!({ "input": { "customer_id": "c", "qty": 1 }, "delay": "1h", "correlation_id": "mine" }).to_string(),
    ];
    let told = answers(&post_lines(&stage.ingest, "", &lines).await);
    assert_eq!(statuses(&told), [202, 202, 422, 422, 400, 400, 400, 202]);
    assert!(told.iter().enumerate().all(|(index, answer)| answer["index"] == index), "{told:?}");
    assert_eq!((&told[1]["id"], &told[1]["replayed"]), (&first, &true.into()));
    let problem = |index: usize| told[index]["problem"]["type"].as_str().unwrap();
    assert_eq!(problem(2), format!("{PUBLIC_URL}/problems/idempotency-key-reused"));
    assert_eq!(problem(3), format!("{PUBLIC_URL}/problems/schema-violation"));
    assert_eq!(told[3]["problem"]["errors"][0]["pointer"], "#/qty");
    let id = told[0]["id"].as_str().unwrap();
    assert_eq!(told[0]["links"]["self"], format!("{PREFIX}/v1/jobs/{id}"));
    assert_eq!(stage.jobs_stored(), 3);
    assert_eq!(stage.ground.sql("select count(*) from ingest.acceptances where correlation_id = 'mine'"), "1");
    assert_eq!(stage.ground.outbox(&stage.ground.topics.waits()).len(), 1, "one starts later");
    assert_eq!(stage.ground.sql("select count(distinct trace_id) from ingest.acceptances"), "3", "a trace each");
    stage.ingest.stop().await;
}

/// Reads until the text holds that many lines of answers, and returns it.
async fn until_lines(stream: &mut TcpStream, text: &mut String, lines: usize) {
    let reading = async {
        while text.matches("\"index\":").count() < lines {
            let mut bytes = [0; 4_096];
            let read = stream.read(&mut bytes).await.unwrap();
            assert!(read > 0, "the answer ended: {text}");
            text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
    };
    timeout(PATIENCE, reading).await.expect("the answer comes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_is_answered_before_the_next_one_is_sent() {
    let stage = Stage::new().await;
    let mut stream = TcpStream::connect(&stage.ingest.address).await.unwrap();
    let head =
        format!("POST {PATH} HTTP/1.1\r\nhost: a\r\n{}: {}\r\ntransfer-encoding: chunked\r\n\r\n", LINES.0, LINES.1);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    for sent in 1..=3 {
        let line = format!("{}\n", item("c-1", sent));
        stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await.unwrap();
        until_lines(&mut stream, &mut text, usize::try_from(sent).unwrap()).await;
        assert_eq!(stage.jobs_stored(), usize::try_from(sent).unwrap(), "{text}");
    }
    // Whoever leaves now has three jobs.
    drop(stream);
    assert_eq!(text.matches("\"status\":202").count(), 3, "{text}");
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_items_are_taken_and_no_more() {
    let stage = Stage::new().await;
    let items: Vec<Value> = (1..=10_000).map(|qty| item(&format!("c-{}", qty % 100), qty)).collect();
    let answer = stage.ingest.api.post(PATH, &[], &Value::from(items.clone()).to_string()).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let told = answer.json["items"].as_array().unwrap();
    assert!(told.len() == 10_000 && told.iter().all(|answer| answer["status"] == 202));
    assert_eq!(stage.jobs_stored(), 10_000);
    let one_more = [items, vec![item("c", 1)]].concat();
    let answer = stage.ingest.api.post(PATH, &[], &Value::from(one_more.clone()).to_string()).await;
    assert_eq!((answer.status, answer.problem()), (413, "payload-too-large"));
    assert_eq!(answer.json["remediation"], "Send smaller batches.");
    assert_eq!(stage.jobs_stored(), 10_000);
    // As a stream, the first ones are accepted, and the answer says which were not.
    let lines: Vec<String> = [one_more, vec![item("c", 2)]].concat().iter().map(Value::to_string).collect();
    let told = answers(&post_lines(&stage.ingest, "", &lines).await);
    assert_eq!(
        (told.len(), told[9_999]["status"].as_u64(), told[10_000]["status"].as_u64()),
        (10_001, Some(202), Some(413))
    );
    assert_eq!(stage.jobs_stored(), 20_000);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_atomic_batch_is_stored_whole_or_not_at_all() {
    let stage = Stage::new().await;
    let good = [keyed("c-1", 1, "a-1"), keyed("c-1", 1, "a-1"), item("c-2", 2)];
    let told = stage.ingest.api.post(&format!("{PATH}?atomic=true"), &[], &json!(good).to_string()).await;
    assert_eq!(told.status, 202, "{}", told.text);
    let told = &told.json["items"];
    assert_eq!((&told[1]["id"], &told[1]["replayed"]), (&told[0]["id"], &true.into()), "one key, one job");
    assert_eq!(stage.jobs_stored(), 2);

    // One that violates the schema, and one whose key stands for another request: nothing of either batch is stored.
    for bad in [item("c-3", 0), keyed("c-3", 7, "a-1")] {
        let lines = [keyed("c-3", 1, "a-2"), bad, item("c-3", 3)].map(|item| item.to_string());
        let answer = post_lines(&stage.ingest, "?atomic=true", &lines).await;
        assert_eq!((answer.status, answer.problem()), (422, "batch-not-accepted"), "{}", answer.text);
        let items = answer.json["items"].as_array().unwrap();
        assert!(items.len() == 1 && items[0]["index"] == 1 && items[0]["problem"]["status"] == 422, "{items:?}");
    }
    assert_eq!(stage.jobs_stored(), 2);
    assert_eq!(stage.ground.outbox(&stage.ground.topics.events()).len(), 2);
    // The key is free again.
    let lines = [keyed("c-3", 1, "a-2").to_string()];
    assert_eq!(answers(&post_lines(&stage.ingest, "?atomic=true", &lines).await)[0].get("replayed"), None);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_item_is_told_its_own_fault_and_spoils_no_other() {
    let stage = Stage::new().await;
    let delayed = |delay: &str| {
        let mut item = keyed("c-2", 1, "later");
        item["delay"] = delay.into();
        item.to_string()
    };
    let lines = [
        item("c-1", 1).to_string(),
        "{\"input\":{\"customer_id\":\"\u{1}?\"}}".replace('\u{1}', "RAW"),
        keyed("c-1", 1, "").to_string(),
        keyed("c-1", 1, "a\0b").to_string(),
        "[{\"customer_id\":\"c\",\"qty\":1}]".to_owned(),
        json!({ "input": {}, "inptu": 1 }).to_string(),
        delayed("1h"),
        delayed("1h"),
        delayed("2h"),
        keyed("c-2", 1, "later").to_string(),
        item("c-1", 2).to_string(),
    ];
    let body: Vec<u8> = lines.join("\n").replace("RAW", "\u{1}").into_bytes();
    let body: Vec<u8> = body.into_iter().map(|byte| if byte == 1 { 0xff } else { byte }).collect();
    let url = format!("http://{}{PATH}", stage.ingest.address);
    let request = test_kit::http_client().post(url).header(LINES.0, LINES.1).body(body);
    let text = request.send().await.unwrap().text().await.unwrap();
    let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(statuses(&told), [202, 400, 400, 400, 400, 400, 202, 202, 422, 422, 202], "{text}");
    let problems: Vec<&str> =
        told.iter().filter_map(|answer| answer["problem"]["type"].as_str()?.rsplit('/').next()).collect();
    let (key, bad) = ("invalid-idempotency-key", "bad-request");
    let reused = "idempotency-key-reused";
    assert_eq!(problems, ["invalid-json", key, key, bad, bad, reused, reused]);
    assert_eq!(told[7]["replayed"], true);
    let detail = told[5]["problem"]["detail"].as_str().unwrap();
    assert!(detail.contains("inptu") && detail.contains("idempotency_key"), "{detail}");
    let bad = json!([keyed("c", 1, "a\0b")]).to_string();
    let atomic = stage.ingest.api.post(&format!("{PATH}?atomic=true"), &[], &bad).await;
    assert_eq!(
        (atomic.status, atomic.problem(), &atomic.json["items"][0]["index"]),
        (422, "batch-not-accepted", &json!(0))
    );
    let whole = stage.ingest.api.post(PATH, &[("idempotency-key", "\"k\"")], "[]").await;
    assert_eq!((whole.status, whole.problem()), (400, "bad-request"), "{}", whole.text);
    assert!(whole.json["remediation"].as_str().unwrap().contains("`idempotency_key`"), "{}", whole.text);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_batch_is_refused_and_a_line_that_is_too_long_ends_it() {
    let stage = Stage::new().await;
    for (kind, query, body, wanted) in [
        ("text/plain", "", "{}", (415, "unsupported-media-type")),
        ("application/json", "", "{\"input\":1}", (400, "invalid-json")),
        ("application/json", "?atomic=perhaps", "[]", (400, "bad-request")),
        ("application/json", "?atomc=true", "[]", (400, "bad-request")),
    ] {
        let path = format!("{PATH}{query}");
        let answer = stage.ingest.api.ask(Method::POST, &path, &[("content-type", kind)], body).await.unwrap();
        assert_eq!((answer.status, answer.problem()), wanted, "{kind} {query}");
    }
    let unknown = stage.ingest.api.post("/v1/flows/ordre/jobs:batch", &[], "[]").await;
    assert_eq!(unknown.problem(), "unknown-flow");
    let long = json!({ "input": { "customer_id": "c", "qty": 1, "note": "x".repeat(600_000) } });
    let lines = [item("c-1", 1).to_string(), long.to_string(), item("c-1", 2).to_string()];
    let told = answers(&post_lines(&stage.ingest, "", &lines).await);
    assert_eq!(statuses(&told), [202, 413]);
    assert!(told[1]["problem"]["detail"].as_str().unwrap().contains("what follows it were not read"), "{told:?}");
    assert_eq!(stage.jobs_stored(), 1);
    assert!(answers(&post_lines(&stage.ingest, "", &[]).await).is_empty());
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_are_read_whole_share_a_budget_and_one_too_many_is_told_to_come_again() {
    // Room for one of unknown length.
    let stage = Stage::with(|config| config.whole_batches_bytes_max = 0).await;
    let api = &stage.ingest.api;
    let mut slow = TcpStream::connect(&stage.ingest.address).await.unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\
         expect: 100-continue\r\nconnection: close\r\n\r\n"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    // It is asked for its body once it has the room.
    let mut go_on = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    timeout(PATIENCE, slow.read_exact(&mut go_on)).await.unwrap().unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100 "), "{}", go_on.escape_ascii());
    slow.write_all(b"1\r\n[\r\n").await.unwrap();
    let one = json!([item("c-1", 1)]).to_string();
    let refused = api.post(PATH, &[], &one).await;
    assert_eq!((refused.status, refused.problem()), (503, "temporary-reduced-capacity"), "{}", refused.text);
    assert_eq!(refused.header("retry-after"), "1");
    // Streams need none of that room.
    let told = answers(&post_lines(&stage.ingest, "", &[item("c-1", 2).to_string()]).await);
    assert_eq!(statuses(&told), [202]);

    // Once the slow one is stored, there is room again.
    slow.write_all(b"1\r\n]\r\n0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    timeout(PATIENCE, slow.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 202"), "{text}");
    assert_eq!(api.post(PATH, &[], &one).await.status, 202);
    stage.ingest.stop().await;
}
