//! Steps that call protected services: their tokens, and what becomes of secrets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flow::event::{EventKind, JobEvent, JobStatus};
use serde_json::{Value, json};
use test_kit::{Answer, Receiver, Request, eventually, read_topic, topic_names};
use workers::Workers;

use crate::stage::{PATIENCE, Stage};

const FLOW: &str = r#"
flow: guarded
key: "{{ input.n }}"
steps:
  - id: make
    auth:
      oauth2:
        token_url: "{{ env.LOGIN_URL }}/token"
        client_id: worker
        client_secret: "{{ secrets.LOGIN }}"
        scope: make
    http: { method: POST, url: "{{ env.SHOP_URL }}/make", body: { n: "{{ input.n }}" }, expose: true }
    timeout: 20s
    retry: { attempts: 3, backoff: 1ms..20ms }
    compensate: { http: { method: DELETE, url: "{{ env.SHOP_URL }}/make" } }
  - id: print
    auth: { basic: { username: printer, password: "{{ secrets.PRINTER }}" } }
    http: { method: POST, url: "{{ env.SHOP_URL }}/print", expose: true }
    retry: { attempts: 1 }
"#;
const LOGIN: &str = "log-me-in-5f1c";
const PRINTER: &str = "print-me-7d2e";
/// `worker:log-me-in-5f1c` and `printer:print-me-7d2e`, as their headers have them.
const ENCODED: [&str; 2] = ["d29ya2VyOmxvZy1tZS1pbi01ZjFj", "cHJpbnRlcjpwcmludC1tZS03ZDJl"];
const TOKEN: &str = "a-token-";

struct Guarded {
    stage: Stage,
    login: Receiver,
    shop: Receiver,
}

impl Guarded {
    async fn new() -> Self {
        let (login, shop) = (Receiver::start().await, Receiver::start().await);
        let mut stage = Stage::new(FLOW).await;
        let named = |(name, value): (&str, String)| (name.to_owned(), value);
        stage.env.extend([("LOGIN_URL", login.url()), ("SHOP_URL", shop.url())].map(named));
        let secrets = [("MEANWHILE_SECRET_LOGIN", LOGIN), ("MEANWHILE_SECRET_PRINTER", PRINTER)];
        stage.env.extend(secrets.map(|(name, value)| named((name, value.to_owned()))));
        Self { stage, login, shop }
    }

    /// From now on a new token for each request.
    fn issue(&self, expires_in: u64, delay: Duration) {
        let issued = Arc::new(AtomicUsize::new(0));
        self.login.answer_with(move |_| {
            let number = issued.fetch_add(1, Ordering::Relaxed) + 1;
            let token = format!("{TOKEN}{number}");
            let answer = json!({ "access_token": token, "token_type": "Bearer", "expires_in": expires_in });
            Answer::json(200, &answer).after(delay)
        });
    }

    async fn ends_of(&self, jobs: usize) -> Vec<JobEvent> {
        for n in 0..jobs {
            self.stage.submit(json!({ "n": n.to_string() })).await;
        }
        self.stage.ends().await
    }

    /// The requests of this method and path, and the numbers of the tokens that came with them.
    fn made(&self, method: &str) -> (Vec<Request>, Vec<String>) {
        let is_it = |request: &Request| request.method.as_str() == method && request.uri.path() == "/make";
        let made: Vec<_> = self.shop.requests().into_iter().filter(is_it).collect();
        let token = |request: &Request| request.header("authorization").replace(&format!("Bearer {TOKEN}"), "");
        let tokens = made.iter().map(token).collect();
        (made, tokens)
    }
}

fn failure(end: &JobEvent) -> &Value {
    assert_eq!(end.status, JobStatus::Failed, "{end:?}");
    end.data.as_ref().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_calls_that_want_a_token_ask_for_it_once() {
    let guarded = Guarded::new().await;
    guarded.issue(3_600, Duration::from_millis(500));
    let running = guarded.stage.work("a", Workers::builder().build());
    let ends = guarded.ends_of(50).await;
    assert!(ends.iter().all(|end| end.status == JobStatus::Succeeded), "{ends:?}");
    // And later ones, while it lives.
    guarded.ends_of(1).await;
    running.stop().await;
    let asked = guarded.login.requests();
    assert_eq!(asked.len(), 1, "one request for all");
    assert_eq!((asked[0].method.as_str(), asked[0].uri.path()), ("POST", "/token"));
    assert_eq!(asked[0].header("authorization"), format!("Basic {}", ENCODED[0]));
    assert_eq!(asked[0].header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(asked[0].body, "grant_type=client_credentials&scope=make");
    assert_eq!(guarded.made("POST").1, vec!["1"; 51]);
    let prints = guarded.shop.requests().into_iter().filter(|request| request.uri.path() == "/print");
    let basic = format!("Basic {}", ENCODED[1]);
    assert_eq!(prints.filter(|request| request.header("authorization") == basic).count(), 51);
    guarded.stage.tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_before_it_ends_and_no_call_waits_for_that() {
    let guarded = Guarded::new().await;
    // The service takes no token of which the endpoint has said that it has ended.
    guarded.issue(4, Duration::ZERO);
    let running = guarded.stage.work("a", Workers::builder().build());
    let renewed = eventually(PATIENCE, "another token", async || {
        guarded.ends_of(1).await;
        let (_, tokens) = guarded.made("POST");
        tokens.contains(&"2".to_owned()).then_some(tokens)
    });
    let tokens = renewed.await;
    running.stop().await;
    assert!(tokens.is_sorted(), "{tokens:?}");
    assert!(guarded.login.requests().len() < tokens.len(), "a token is used more than once: {tokens:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_401_a_call_is_made_once_more_with_another_token_and_not_twice() {
    let guarded = Guarded::new().await;
    guarded.issue(3_600, Duration::ZERO);
    let refuses = |token: &'static str| {
        move |request: &Request| match (request.uri.path(), request.headers.get("authorization")) {
            ("/make", Some(value)) if value.to_str().unwrap().starts_with(token) => {
                Answer::json(401, &json!({ "detail": format!("{} has ended", value.to_str().unwrap()) }))
            }
            _ => Answer::json(200, &json!({})),
        }
    };
    guarded.shop.answer_with(refuses("Bearer a-token-1"));
    let running = guarded.stage.work("a", Workers::builder().build());
    let ends = guarded.ends_of(1).await;
    assert_eq!(ends[0].status, JobStatus::Succeeded, "{ends:?}");
    let (made, tokens) = guarded.made("POST");
    assert_eq!(tokens, ["1", "2"]);
    assert_eq!(made[0].header("idempotency-key"), made[1].header("idempotency-key"));
    assert_eq!(made[0].body, made[1].body);

    guarded.shop.answer_with(refuses("Bearer "));
    let ends = guarded.ends_of(1).await;
    let failed = ends.iter().find(|end| end.status == JobStatus::Failed).unwrap();
    let (made, tokens) = guarded.made("POST");
    assert_eq!(tokens, ["1", "2", "2", "3"], "one renewal, and the second no counts");
    assert_eq!(made.len(), 4);
    assert_eq!((&failure(failed)["code"], &failure(failed)["status"]), (&json!("step-failed"), &json!(401)));
    assert_eq!(guarded.made("DELETE").0.len(), 0, "a 401 to the first attempt: nothing was done");
    running.stop().await;
    let told: Vec<_> = guarded.stage.tokens().await.events;
    let told = format!("{told:?}");
    assert!(told.contains("has ended") && told.contains("***"), "the service's words are shown: {told}");
    assert!(!told.contains(TOKEN), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_nothing_is_sent_and_only_what_may_pass_is_tried_again() {
    let guarded = Guarded::new().await;
    // Tokens that have ended when they come. What lay in the partition before the worker came may have been begun by
    // another: this job brings the worker here.
    guarded.issue(0, Duration::ZERO);
    let running = guarded.stage.work("a", Workers::builder().build());
    guarded.ends_of(1).await;
    let made = guarded.shop.requests().len();
    guarded.login.answer_with(|_| Answer::json(400, &json!({ "error": "invalid_client", "hint": LOGIN })));
    let failures = |ends: &[JobEvent]| -> Vec<Value> {
        let failed = ends.iter().filter(|end| end.status == JobStatus::Failed);
        failed.map(|end| failure(end).clone()).collect()
    };
    let refused = failures(&guarded.ends_of(1).await).remove(0);
    assert_eq!((&refused["code"], &refused["attempts"]), (&json!("no-token"), &json!(1)), "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("`invalid_client`") && message.contains("check the client's id"), "{message}");

    guarded.login.answer_with(|_| Answer::status(503));
    let failed = failures(&guarded.ends_of(1).await);
    let down = failed.iter().find(|failure| failure["attempts"] != json!(1)).unwrap();
    assert_eq!((&down["code"], &down["attempts"]), (&json!("no-token"), &json!(3)), "{down}");
    assert_eq!(guarded.shop.requests().len(), made, "neither called nor undone");

    // Once it is back, so is the step: a failure is not kept for longer than a moment.
    guarded.issue(3_600, Duration::ZERO);
    eventually(PATIENCE, "a job that succeeds", async || {
        let ends = guarded.ends_of(1).await;
        (ends.iter().filter(|end| end.status == JobStatus::Succeeded).count() >= 2).then_some(())
    })
    .await;
    running.stop().await;
    guarded.stage.tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_and_tokens_get_into_no_topic_and_no_log() {
    let guarded = Guarded::new().await;
    guarded.issue(3_600, Duration::ZERO);
    // The printer repeats what it was sent, and its words are shown to callers. So the first step is undone.
    guarded.shop.answer_with(|request| match request.uri.path() {
        "/print" => Answer::json(403, &json!({ "detail": format!("no: {}", request.header("authorization")) })),
        _ => Answer::json(200, &json!({})),
    });
    let worker = guarded.stage.process("a", &[("RUST_LOG", "debug")]);
    let ends = guarded.ends_of(3).await;
    assert!(ends.iter().all(|end| failure(end)["step"] == "print"), "{ends:?}");
    assert_eq!(guarded.made("DELETE").1, ["1"; 3], "the undo is authorized too");
    let tokens = guarded.stage.tokens().await;
    let undone = tokens.events.iter().filter(|event| event.kind == EventKind::StepCompensated);
    assert_eq!(undone.count(), 3);
    let log = std::fs::read(worker.log()).unwrap();
    assert!(find(&log, "attempt failed"), "the log tells of attempts");
    let mut looked = vec![("the log".to_owned(), log)];
    let brokers = &guarded.stage.bus.brokers;
    let ours = |name: &String| name.starts_with(guarded.stage.topics.prefix());
    for name in topic_names(brokers).unwrap().into_iter().filter(ours) {
        let records = read_topic(brokers, &name).await.unwrap();
        let bytes = records.into_iter().flat_map(|record| record.value.unwrap_or_default()).collect();
        looked.push((name, bytes));
    }
    assert!(looked.iter().any(|(name, bytes)| name.ends_with(".events") && find(bytes, "no: ")), "events were read");
    for (place, bytes) in &looked {
        for secret in [LOGIN, PRINTER, ENCODED[0], ENCODED[1], TOKEN] {
            assert!(!find(bytes, secret), "`{secret}` is in {place}");
        }
    }
}

fn find(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
