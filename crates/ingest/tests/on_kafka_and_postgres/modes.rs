//! A flow's own address, in front of an old service: who executes a request, and in which form it is answered.

use axum::http::Method;
use flow::event::{EventKind, JobEvent, JobStatus};
use ingest::config::Config;
use serde_json::{Value, json};
use test_kit::{Ground, eventually};

use crate::old_service::OldService;
use crate::stage::{Answer, Ingest, PATIENCE, accepted_event, ground};

pub(crate) const LEGACY: &str = r#"
flow: legacy
route:
  at: POST /legacy
  upstream: "{{ env.OLD_URL }}/orders"
  hold: 60s
key: "{{ input.customer_id }}"
steps:
  - { id: one, native: one }
"#;
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");
pub(crate) const BODY: &str = r#"{"customer_id":"alice"}"#;

pub(crate) struct Front {
    pub(crate) ground: Ground,
    pub(crate) old: OldService,
    pub(crate) ingest: Ingest,
}

impl Front {
    pub(crate) async fn new() -> Self {
        Self::with(LEGACY).await
    }

    async fn with(flow: &str) -> Self {
        let (ground, old) = (ground().await, OldService::start().await);
        ground.apply(flow).await;
        let ingest = Self::ingest(&ground, &old.url).await;
        Self { ground, old, ingest }
    }

    async fn ingest(ground: &Ground, old: &str) -> Ingest {
        Self::ingest_with(ground, old, |_| {}).await
    }

    pub(crate) async fn ingest_with(ground: &Ground, old: &str, change: impl FnOnce(&mut Config)) -> Ingest {
        let ingest = Ingest::start_in(ground, vec![("OLD_URL".to_owned(), old.to_owned())], |config| {
            config.proxied_max = 2;
            config.proxied_body_bytes_max = 3_000_000;
            change(config);
        })
        .await;
        ingest.ready().await;
        ingest
    }

    /// An answer that is not held to our own contract: it may be the old service's.
    pub(crate) async fn ask(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Response {
        ask(&self.ingest, path, headers, body).await
    }

    pub(crate) async fn flags(&self, version: i64, flags: Value) -> Answer {
        put(&self.ingest, Some(&format!("\"{version}\"")), &flags).await
    }

    /// Sends a request for a job, which ends so soon as it is stored.
    async fn held(&self, headers: &[(&str, &str)]) -> Answer {
        let asking = self.ingest.api.post("/legacy", headers, BODY);
        let ending = async {
            let sql = "select job from ingest.acceptances order by accepted_at desc limit 1";
            let job = eventually(PATIENCE, "a job", async || Some(self.ground.sql(sql)).filter(|job| !job.is_empty()));
            let accepted = accepted_event(&self.ground, &job.await).await;
            self.ground.tell(&accepted).await;
            self.ground.tell(&succeeded(&accepted)).await;
        };
        tokio::join!(asking, ending).0
    }
}

pub(crate) async fn ask(
    ingest: &Ingest,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> reqwest::Response {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.post(format!("http://{}{path}", ingest.address)).body(body).timeout(PATIENCE);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

pub(crate) async fn put(ingest: &Ingest, if_match: Option<&str>, flags: &Value) -> Answer {
    let headers: Vec<(&str, &str)> = if_match.map(|tag| ("if-match", tag)).into_iter().chain([JSON]).collect();
    let body = json!({ "flags": flags, "reason": "a test" }).to_string();
    ingest.api.ask(Method::PUT, "/v1/flags/legacy", &headers, &body).await.unwrap()
}

pub(crate) fn succeeded(accepted: &JobEvent) -> JobEvent {
    let data = Some(json!({ "order": 7 }));
    JobEvent { kind: EventKind::JobSucceeded, status: JobStatus::Succeeded, hop: 1, data, ..accepted.clone() }
}

pub(crate) fn all() -> Value {
    json!({ "durable": { "percent": 100 } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_flags_the_old_service_sees_the_request_and_its_caller_the_answer_as_they_are() {
    let front = Front::new().await;
    let headers = [
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
        ("x-list", "one"),
        ("x-list", "two"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("prefer", "wait=1"),
    ];
    let body = "x".repeat(2_000_000);
    let answer = front.ask("/legacy?a=1&b=%20&status=418", &headers, body.clone()).await;
    assert_eq!(answer.status(), 418);
    let told = answer.headers().clone();
    let lines = |name: &str| -> Vec<&str> { told.get_all(name).iter().map(|line| line.to_str().unwrap()).collect() };
    assert_eq!(lines("set-cookie"), ["a=1", "b=2"]);
    assert_eq!((lines("x-own"), lines("via")), (vec!["1"], vec!["1.1 meanwhile"]));
    assert!(
        lines("keep-alive").is_empty() && lines("cache-control").is_empty() && lines("vary").is_empty(),
        "{told:?}"
    );
    assert_eq!(answer.text().await.unwrap(), "old: 2000000");
    let seen = front.old.seen().pop().unwrap();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/orders?a=1&b=%20&status=418"));
    assert_eq!(seen.body, body);
    let lines =
        |name: &str| -> Vec<&str> { seen.headers.get_all(name).iter().map(|it| it.to_str().unwrap()).collect() };
    assert_eq!((lines("x-list"), lines("content-encoding")), (vec!["one", "two"], vec!["gzip"]));
    assert_eq!((lines("prefer"), lines("x-hop")), (vec!["wait=1"], vec![]));
    assert_eq!(lines("x-forwarded-for"), ["127.0.0.1"]);
    assert!(lines("forwarded")[0].starts_with("for=127.0.0.1;proto=http;host=\"127.0.0.1:"), "{:?}", seen.headers);
    assert!(lines("traceparent")[0].starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{:?}", seen.headers);
    assert!(!lines("traceparent")[0].contains("00f067aa0ba902b7"), "the span is the proxy's own");
    assert_eq!(lines("x-correlation-id").len(), 1);
    front.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_streamed_and_a_caller_that_leaves_ends_the_call() {
    let front = Front::new().await;
    let parts = front.old.stream();
    parts.send("first".to_owned()).unwrap();
    let mut answer = front.ask("/legacy", &[JSON], BODY).await;
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "first");
    parts.send("second".to_owned()).unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "second");
    drop(parts);
    assert_eq!(answer.chunk().await.unwrap(), None);
    let parts = front.old.stream();
    parts.send("first".to_owned()).unwrap();
    let mut answer = front.ask("/legacy", &[JSON], BODY).await;
    answer.chunk().await.unwrap();
    drop(answer);
    // The other side notices when it writes.
    let leaving = async {
        loop {
            let _ = parts.send("more".to_owned());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = front.old.left() => {}
        () = leaving => unreachable!(),
        () = tokio::time::sleep(PATIENCE) => panic!("the call goes on"),
    }
    front.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_old_service_cannot_do_is_told_as_a_problem() {
    let front = Front::with(&LEGACY.replace("hold: 60s", "hold: 300ms")).await;
    let api = &front.ingest.api;
    let slow = api.post("/legacy?sleep_ms=60000", &[], BODY).await;
    assert_eq!((slow.status, slow.problem()), (504, "upstream-timeout"));
    front.old.left().await;
    let headers = [JSON, ("connection", "upgrade"), ("upgrade", "h2c")];
    let upgrade = api.ask(Method::POST, "/legacy", &headers, BODY).await.unwrap();
    assert_eq!((upgrade.status, upgrade.problem()), (501, "upgrade-refused"));
    let large = api.post("/legacy", &[], &"x".repeat(3_000_001)).await;
    assert_eq!((large.status, large.problem()), (413, "payload-too-large"));
    let circle = [("via", "1.1 meanwhile, 1.1 meanwhile, 1.1 meanwhile, 1.1 meanwhile")];
    let circle = api.post("/legacy", &circle, BODY).await;
    assert_eq!((circle.status, circle.problem()), (502, "upstream-failed"));
    assert_eq!(front.old.seen().len(), 1, "only the slow one was asked");
    let (one, two) = (front.old.stream(), front.ask("/legacy", &[JSON], BODY).await);
    let (three, four) = (front.old.stream(), front.ask("/legacy", &[JSON], BODY).await);
    let crowded = api.post("/legacy", &[], BODY).await;
    assert_eq!((crowded.status, crowded.problem()), (503, "temporary-reduced-capacity"));
    drop((one, two, three, four));
    front.ingest.stop().await;
    let nobody = Front::ingest(&front.ground, "http://127.0.0.1:1").await;
    let down = nobody.api.post("/legacy", &[], BODY).await;
    assert_eq!((down.status, down.problem(), down.header("retry-after")), (502, "upstream-failed", "1"));
    nobody.stop().await;
    let nowhere = Ingest::start(&front.ground, |_| {}).await;
    nowhere.ready().await;
    let unset = nowhere.api.post("/legacy", &[], BODY).await;
    assert!(unset.status == 503 && unset.text.contains("env.OLD_URL"), "{}", unset.text);
    nowhere.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_asked_for_nothing_is_held_until_its_job_ends_and_gets_no_202() {
    let front = Front::new().await;
    front.flags(0, all()).await;
    let answer = front.held(&[("idempotency-key", "k-1")]).await;
    assert_eq!((answer.status, answer.json.clone()), (200, json!({ "order": 7 })), "{}", answer.text);
    assert_eq!((answer.header("vary"), answer.header("preference-applied")), ("Prefer", ""));
    let again = front.ingest.api.post("/legacy", &[("idempotency-key", "k-1")], BODY).await;
    assert_eq!((again.status, again.json), (200, json!({ "order": 7 })));
    let prefers = [("prefer", "respond-async")];
    let accepted = front.ingest.api.post("/legacy", &prefers, BODY).await;
    assert_eq!((accepted.status, accepted.header("preference-applied")), (202, "respond-async"));
    let flags = json!({ "durable": { "percent": 100 }, "hold": "100ms", "async_clients": ["shop/2"] });
    front.flags(1, flags).await;
    let late = front.ingest.api.post("/legacy", &[("idempotency-key", "k-2")], BODY).await;
    assert_eq!((late.status, late.problem(), late.header("retry-after")), (504, "answer-late", "1"));
    let job = late.json["job"].as_str().unwrap();
    assert!(late.json["links"]["self"].as_str().unwrap().ends_with(job), "{}", late.text);
    let known = front.ingest.api.post("/legacy", &[("idempotency-key", "k-2"), ("user-agent", "shop/2")], BODY).await;
    assert_eq!((known.status, known.job().as_str(), known.header("idempotent-replayed")), (202, job, "true"));
    assert!(front.old.seen().is_empty());
    front.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_stands_for_a_job_stays_with_it_and_another_request_goes_where_the_flags_say() {
    let front = Front::new().await;
    front.flags(0, all()).await;
    let first = front.held(&[("idempotency-key", "k-1")]).await;
    assert_eq!(first.status, 200);
    let path = "/v1/flags/legacy/rollback";
    let back = front.ingest.api.post(path, &[], r#"{"to":0,"reason":"too slow"}"#).await;
    assert_eq!((back.status, &back.json["version"], &back.json["rollback_to"]), (200, &json!(2), &json!(0)));
    let again = front.ingest.api.post("/legacy", &[("idempotency-key", "k-1")], BODY).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, "true"));
    let other = front.ask("/legacy", &[JSON, ("idempotency-key", "k-2")], BODY).await;
    assert_eq!(other.text().await.unwrap(), format!("old: {}", BODY.len()));
    let seen = front.old.seen();
    assert_eq!((seen.len(), &seen[0].headers["idempotency-key"]), (1, &"k-2".parse().unwrap()));
    front.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_of_a_request_decides_whatever_its_body_is() {
    let front = Front::new().await;
    front.flags(0, json!({ "durable": { "percent": 0, "allow": ["alice"] } })).await;
    let alice = front.ingest.api.post("/legacy", &[("prefer", "respond-async")], BODY).await;
    assert_eq!(alice.status, 202);
    let whole = "x".repeat(1_000_000);
    for body in [r#"{"customer_id":"bob"}"#, "no JSON", "", r#"{"other":1}"#, &whole] {
        let answer = front.ask("/legacy", &[JSON], body.to_owned()).await;
        assert_eq!(answer.text().await.unwrap(), format!("old: {}", body.len()), "the old service judges it");
    }
    front.flags(1, json!({ "durable": { "percent": 0, "by": "header:X-Customer", "allow": ["7"] } })).await;
    let by_header = front.ingest.api.post("/legacy", &[("prefer", "respond-async"), ("x-customer", "7")], BODY).await;
    assert_eq!(by_header.status, 202);
    assert_eq!(front.ask("/legacy", &[JSON, ("x-customer", "8")], BODY).await.status(), 200);
    front.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instance_follows_a_change_and_every_change_is_kept_with_who_and_why() {
    let front = Front::new().await;
    let other = Front::ingest(&front.ground, &front.old.url).await;
    for (if_match, status, problem) in [
        (None, 428, "precondition-required"),
        (Some("\"1\""), 412, "precondition-failed"),
        (Some("1"), 400, "bad-request"),
    ] {
        let answer = put(&front.ingest, if_match, &all()).await;
        assert_eq!((answer.status, answer.problem()), (status, problem), "{}", answer.text);
    }
    let wrong = front.flags(0, json!({ "durable": { "percnt": 1 } })).await;
    assert_eq!((wrong.status, wrong.problem()), (422, "schema-violation"));
    assert!(wrong.text.contains("did you mean `percent`?"), "{}", wrong.text);
    let added = front.flags(0, all()).await;
    assert_eq!(
        (added.status, added.header("etag"), &added.json["effective"]["durable_percent"]),
        (200, "\"1\"", &json!(100.0))
    );
    assert_eq!(front.flags(0, all()).await.json, added.json, "the same request again");
    assert_eq!(front.flags(0, json!({})).await.status, 412);
    let follows = async || {
        let answer = ask(&other, "/legacy", &[JSON, ("prefer", "respond-async")], BODY).await;
        (answer.status() == 202).then_some(())
    };
    eventually(PATIENCE, "the other instance follows", follows).await;
    let listed = other.api.get("/v1/flags").await.json["flags"].clone();
    assert_eq!(
        (&listed[0]["flow"], &listed[0]["version"], listed.as_array().unwrap().len()),
        (&json!("legacy"), &json!(1), 2)
    );
    assert_eq!(put(&other, Some("*"), &json!({})).await.json["version"], 2);
    let unknown = other.api.post("/v1/flags/legacy/rollback", &[], r#"{"to":9,"reason":"x"}"#).await;
    assert_eq!((unknown.status, unknown.problem()), (404, "unknown-flags-version"));
    let back = other.api.post("/v1/flags/legacy/rollback", &[], r#"{"to":1,"reason":"x"}"#).await;
    assert_eq!((back.json["version"].clone(), back.json["flags"].clone()), (json!(3), all()));
    let history = other.api.get("/v1/flags/legacy/history").await.json;
    let versions: Vec<&Value> = history["versions"].as_array().unwrap().iter().map(|it| &it["version"]).collect();
    assert_eq!(versions, [&json!(3), &json!(2), &json!(1)]);
    let last = &history["versions"][2];
    assert_eq!((&last["changed_by"], &last["reason"]), (&json!("default"), &json!("a test")));
    let earlier = other.api.get("/v1/flags/legacy/history?before=2").await.json;
    assert_eq!(earlier["versions"].as_array().unwrap().len(), 1);
    let none =
        other.api.ask(Method::PUT, "/v1/flags/plain", &[JSON, ("if-match", "*")], r#"{"flags":{},"reason":"x"}"#);
    assert_eq!(none.await.unwrap().status, 404);
    other.stop().await;
    front.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_synchronous_form_is_told_and_comes() {
    let front = Front::new().await;
    let end = |enforce: &str, sunset: &str| {
        json!({ "deprecation": { "since": "2026-01-01T00:00:00Z", "sunset": sunset, "enforce": enforce,
                                 "link": "https://docs.example.com/orders" } })
    };
    front.flags(0, end("always", "2126-01-01T00:00:00Z")).await;
    let answer = front.ask("/legacy", &[JSON, ("x-client-id", "shop")], BODY).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["deprecation"]), (200, &"@1767225600".parse().unwrap()));
    assert!(answer.headers().contains_key("sunset") && answer.headers().contains_key("link"));
    let counted = async || {
        let callers = front.ingest.api.get("/v1/flows/legacy/callers").await.json["callers"].clone();
        (callers[0]["requests"] == 1).then_some(callers)
    };
    let callers = eventually(PATIENCE, "the caller is counted", counted).await;
    assert_eq!((&callers[0]["caller"], &callers[0]["form"]), (&json!("shop"), &json!("proxy")));
    front.flags(1, end("when_unused", "2026-01-02T00:00:00Z")).await;
    assert_eq!(front.ask("/legacy", &[JSON], BODY).await.status(), 200, "somebody uses it");
    front.flags(2, end("always", "2026-01-02T00:00:00Z")).await;
    let gone = front.ingest.api.post("/legacy", &[], BODY).await;
    assert_eq!((gone.status, gone.problem(), gone.header("deprecation")), (410, "form-retired", "@1767225600"));
    front.ingest.stop().await;
}
