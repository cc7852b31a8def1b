//! What a tenant may submit to a flow: requests and bytes in a time, and jobs that are not over.

use axum::http::Method;
use events::Record;
use events::headers::Headers;
use flow::event::{EventKind, JobEvent, JobStatus};
use serde_json::json;
use sfv::{BareItem, List, ListEntry, Parser};
use test_kit::{eventually, metric};

use crate::stage::{Answer, INPUT, Ingest, PATIENCE, Stage, accepted_event, ground, jobs_stored};
use crate::status::project_one;

/// So long that nothing grows while a test runs.
const HOUR_S: i64 = 3_600;

async fn stage(entries: &[&str]) -> Stage {
    Stage::with(|config| {
        config.body_bytes_max = 4_096;
        config.flow_limits = entries.iter().map(ToString::to_string).collect();
    })
    .await
}

/// One item of a field, as draft-ietf-httpapi-ratelimit-headers has them: a string with these parameters, which are
/// integers but for the unit, a string, and the partition, bytes.
#[derive(Debug, PartialEq)]
struct Item {
    name: String,
    numbers: Vec<(String, i64)>,
    unit: Option<String>,
    partition: Vec<u8>,
}

impl Item {
    fn number(&self, name: &str) -> Option<i64> {
        self.numbers.iter().find(|(key, _)| key == name).map(|(_, number)| *number)
    }
}

fn items(answer: &Answer, field: &str) -> Vec<Item> {
    let lines = answer.headers.get_all(field).iter().count();
    assert_eq!(lines, 1, "{field} of {}: {}", answer.status, answer.text);
    let list: List = Parser::new(answer.header(field)).parse().unwrap();
    list.iter().map(item).collect()
}

fn item(entry: &ListEntry) -> Item {
    let ListEntry::Item(found) = entry else { panic!("{entry:?}") };
    let BareItem::String(name) = &found.bare_item else { panic!("{found:?}") };
    let mut item = Item { name: name.as_str().to_owned(), numbers: Vec::new(), unit: None, partition: Vec::new() };
    for (key, value) in &found.params {
        match (key.as_str(), value) {
            ("pk", BareItem::ByteSequence(bytes)) => item.partition.clone_from(bytes),
            ("qu", BareItem::String(unit)) => item.unit = Some(unit.as_str().to_owned()),
            (key @ ("q" | "w" | "r" | "t"), BareItem::Integer(number)) => {
                assert!(i64::from(*number) >= 0);
                item.numbers.push((key.to_owned(), i64::from(*number)));
            }
            other => panic!("{other:?}"),
        }
    }
    item
}

pub(crate) fn left(answer: &Answer, policy: &str) -> i64 {
    let limits = items(answer, "ratelimit");
    limits.iter().find(|item| item.name == policy).and_then(|item| item.number("r")).unwrap()
}

pub(crate) fn hold_to_quota(answer: &Answer, policy: &str) {
    assert_eq!((answer.status, answer.problem()), (429, "quota-exceeded"), "{}", answer.text);
    assert_eq!(answer.json["violated-policies"], json!([policy]), "{}", answer.text);
    let after_s: i64 = answer.header("retry-after").parse().unwrap();
    // The draft: no effective window ends after `Retry-After`.
    let windows = items(answer, "ratelimit").into_iter().filter_map(|item| item.number("t"));
    assert!(after_s >= 1 && windows.into_iter().all(|window| window <= after_s), "{after_s}: {:?}", answer.headers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_their_rate_get_429_and_every_answer_tells_what_is_left() {
    let stage = stage(&["order requests=3/1h jobs=100", "plain requests=100/1m"]).await;
    let api = &stage.ingest.api;
    let first = api.order(&[], INPUT).await;
    assert_eq!(first.status, 202, "{}", first.text);
    let policies = items(&first, "ratelimit-policy");
    let partition = b"order".to_vec();
    let told = |name: &str, numbers: &[(&str, i64)], unit: Option<&str>| Item {
        name: name.to_owned(),
        numbers: numbers.iter().map(|(key, number)| ((*key).to_owned(), *number)).collect(),
        unit: unit.map(str::to_owned),
        partition: partition.clone(),
    };
    assert_eq!(
        policies,
        [told("requests", &[("q", 3), ("w", HOUR_S)], None), told("jobs", &[("q", 100)], Some("concurrent-requests")),]
    );
    assert_eq!(
        items(&first, "ratelimit"),
        [told("requests", &[("r", 2), ("t", HOUR_S / 3)], None), told("jobs", &[("r", 99)], None)]
    );
    // What is refused for another reason counts, too, and so does a flow's own route.
    let bad = api.order(&[], "{}").await;
    assert_eq!((bad.status, left(&bad, "requests"), left(&bad, "jobs")), (422, 1, 99));
    let last = api.post("/orders", &[], INPUT).await;
    assert_eq!((last.status, left(&last, "requests")), (202, 0));
    for path in ["/orders", "/v1/flows/order/jobs"] {
        let refused = api.post(path, &[], INPUT).await;
        hold_to_quota(&refused, "requests");
        assert_eq!(left(&refused, "requests"), 0);
    }
    assert_eq!(stage.jobs_stored(), 2);
    let other = api.post("/v1/flows/plain/jobs", &[], "{}").await;
    assert_eq!((other.status, left(&other, "requests")), (202, 99), "another flow is another matter");
    let status = api.get(&format!("/v1/jobs/{}", other.job())).await;
    assert!(status.status == 200 && !status.headers.contains_key("ratelimit"));
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_beyond_their_rate_get_429_before_they_are_read_where_their_length_is_told() {
    let stage = stage(&["order bytes=5000/1h"]).await;
    let api = &stage.ingest.api;
    let body = |note: usize| json!({ "customer_id": "c", "qty": 1, "note": "x".repeat(note) }).to_string();
    let large = body(3_000);
    let first = api.order(&[], &large).await;
    assert_eq!((first.status, left(&first, "bytes")), (202, 5_000 - i64::try_from(large.len()).unwrap()));
    assert_eq!(items(&first, "ratelimit-policy")[0].unit.as_deref(), Some("content-bytes"));
    let refused = api.order(&[], &large).await;
    hold_to_quota(&refused, "bytes");
    assert_eq!(left(&refused, "bytes"), left(&first, "bytes"), "a refused one takes nothing");
    let small = api.order(&[], &body(10)).await;
    assert_eq!(small.status, 202, "one that fits is taken: {}", small.text);
    // A body of unknown length counts once it is there.
    let url = format!("http://{}/v1/flows/order/jobs", stage.ingest.address);
    let chunk = Ok::<_, std::io::Error>(large.into_bytes());
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter([chunk]));
    let request = test_kit::http_client().post(url).header("content-type", "application/json").body(chunked);
    assert_eq!(request.send().await.unwrap().status(), 429);
    assert_eq!(stage.jobs_stored(), 2);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_of_a_batch_count_one_each_and_an_atomic_one_all_or_none() {
    let stage = stage(&["order requests=5/1h jobs=4"]).await;
    let api = &stage.ingest.api;
    let batch = |items: usize| json!(vec![json!({ "input": { "customer_id": "c", "qty": 1 } }); items]).to_string();
    let path = "/v1/flows/order/jobs:batch";
    let atomic = format!("{path}?atomic=true");
    let never = api.post(&atomic, &[], &batch(6)).await;
    assert_eq!((never.status, never.problem()), (413, "payload-too-large"), "{}", never.text);
    assert_eq!(left(&never, "requests"), 5);
    let whole = api.post(&atomic, &[], &batch(3)).await;
    assert_eq!((whole.status, left(&whole, "requests"), left(&whole, "jobs")), (202, 2, 1), "{}", whole.text);
    hold_to_quota(&api.post(&atomic, &[], &batch(3)).await, "requests");
    hold_to_quota(&api.post(&atomic, &[], &batch(2)).await, "jobs");
    assert_eq!(stage.jobs_stored(), 3);
    stage.ingest.stop().await;

    let ingest = Ingest::start(&stage.ground, |config| {
        config.flow_limits = vec!["order requests=2/1h".to_owned()];
    })
    .await;
    ingest.ready().await;
    let lines = [r#"{"input":{"customer_id":"c","qty":1}}"#; 3].join("\n");
    let headers = [("content-type", "application/x-ndjson")];
    let answer = ingest.api.ask(Method::POST, path, &headers, &lines).await.unwrap();
    assert!(answer.status == 202 && left(&answer, "requests") == 2, "as it was when the answer began");
    let told: Vec<serde_json::Value> = answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let statuses: Vec<_> = told.iter().map(|answer| answer["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [202, 202, 429], "{}", answer.text);
    assert_eq!(told[2]["problem"]["violated-policies"], json!(["requests"]));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_use_up_the_same_allowance_and_wait_in_their_topic_for_more() {
    let stage = stage(&["plain requests=4/1h"]).await;
    let waits = r#"meanwhile_commands_waits_total{flow="plain"}"#;
    let before = metric(waits).unwrap_or(0.0);
    let by_http = stage.ingest.api.post("/v1/flows/plain/jobs", &[], "{}").await;
    assert_eq!((by_http.status, left(&by_http, "requests")), (202, 3));
    let mut records = Vec::new();
    for number in 0..8 {
        let value = json!({ "flow": "plain", "input": { "number": number } }).to_string();
        let topic = stage.ground.topics.commands();
        records.push(Record {
            topic,
            key: Some(b"one".to_vec()),
            value: Some(value.into_bytes()),
            headers: Headers::default(),
        });
    }
    for record in &records {
        stage.ground.send(record).await;
    }
    eventually(PATIENCE, "commands wait", async || metric(waits).filter(|waits| *waits > before)).await;
    assert_eq!(stage.jobs_stored(), 4, "as many as the allowance held");
    hold_to_quota(&stage.ingest.api.post("/v1/flows/plain/jobs", &[], "{}").await, "requests");
    let Stage { ground, ingest } = stage;
    ingest.stop().await;

    // A start begins with whole allowances.
    let mut jobs = 4;
    while jobs < 9 {
        let ingest = Ingest::start(&ground, |config| config.flow_limits = vec!["plain requests=4/1h".to_owned()]).await;
        jobs = (jobs + 4).min(9);
        eventually(PATIENCE, "more are taken", async || (jobs_stored(&ground) >= jobs).then_some(())).await;
        assert_eq!(jobs_stored(&ground), jobs);
        ingest.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_take_places_among_the_jobs_that_are_not_over_and_wait_until_one_ends() {
    let ground = ground().await;
    let of = |flow: &str, number: u32| {
        let value = json!({ "flow": flow, "input": { "number": number } }).to_string();
        let topic = ground.topics.commands();
        Record { topic, key: Some(b"one".to_vec()), value: Some(value.into_bytes()), headers: Headers::default() }
    };
    for number in 0..6 {
        ground.send(&of("plain", number)).await;
    }
    let waits = r#"meanwhile_commands_waits_total{flow="plain"}"#;
    let before = metric(waits).unwrap_or(0.0);
    // All of them come in one batch: it is halved until as many are left as there are places for.
    let ingest = Ingest::start(&ground, |config| config.flow_limits = vec!["plain jobs=4".to_owned()]).await;
    eventually(PATIENCE, "commands wait", async || metric(waits).filter(|waits| *waits > before)).await;
    assert_eq!(jobs_stored(&ground), 4, "as many as there were places for");
    hold_to_quota(&ingest.api.post("/v1/flows/plain/jobs", &[], "{}").await, "jobs");
    let jobs = ground.sql("select job from ingest.acceptances order by accepted_at, job");
    for (number, job) in jobs.lines().enumerate() {
        let accepted = accepted_event(&ground, job).await;
        ground.tell(&accepted).await;
        let ended = JobEvent { kind: EventKind::JobFailed, status: JobStatus::Failed, hop: 3, ..accepted };
        ground.tell(&ended).await;
        let stored = (5 + number).min(6);
        eventually(PATIENCE, "one more is taken", async || (jobs_stored(&ground) >= stored).then_some(())).await;
        assert_eq!(jobs_stored(&ground), stored);
    }
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_flows_of_a_tenant_are_bounded_together_beside_their_own_bounds() {
    let stage = stage(&["** requests=4/1h jobs=2", "order jobs=1"]).await;
    let api = &stage.ingest.api;
    let first = api.order(&[], INPUT).await;
    assert_eq!((first.status, left(&first, "jobs"), left(&first, "tenant-jobs")), (202, 0, 1), "{}", first.text);
    hold_to_quota(&api.order(&[], INPUT).await, "jobs");
    let plain = api.post("/v1/flows/plain/jobs", &[], "{}").await;
    assert_eq!((plain.status, left(&plain, "tenant-requests")), (202, 1), "{}", plain.text);
    hold_to_quota(&api.post("/v1/flows/plain/jobs", &[], "{}").await, "tenant-jobs");
    hold_to_quota(&api.post("/v1/flows/plain/jobs", &[], "{}").await, "tenant-requests");
    assert_eq!(stage.jobs_stored(), 2);
    stage.ingest.stop().await;
}

/// Sends the event by which a job ends.
async fn end(stage: &Stage, accepted: &JobEvent) {
    let ended = JobEvent { kind: EventKind::JobSucceeded, status: JobStatus::Succeeded, hop: 3, ..accepted.clone() };
    stage.ground.tell(&ended).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_are_not_over_are_bounded_and_each_that_ends_makes_room_for_one() {
    let stage = stage(&["order jobs=2"]).await;
    let api = &stage.ingest.api;
    let jobs = [api.order(&[], INPUT).await.job(), api.order(&[], INPUT).await.job()];
    let refused = api.order(&[], INPUT).await;
    hold_to_quota(&refused, "jobs");
    assert_eq!(left(&refused, "jobs"), 0);
    // One that has not been stored holds no place.
    assert_eq!(api.order(&[], "{}").await.status, 422);
    let other = api.post("/v1/flows/plain/jobs", &[], "{}").await;
    assert!(other.status == 202 && !other.headers.contains_key("ratelimit"));

    for (number, job) in jobs.iter().enumerate() {
        let accepted = accepted_event(&stage.ground, job).await;
        // The acceptance that is read is the one that counts already.
        stage.ground.tell(&accepted).await;
        assert_eq!(api.order(&[], INPUT).await.status, 429, "number {number}");
        end(&stage, &accepted).await;
        let answer = eventually(PATIENCE, "there is room", async || {
            let answer = api.order(&[("idempotency-key", job.as_str())], INPUT).await;
            (answer.status != 429).then_some(answer)
        })
        .await;
        assert_eq!((answer.status, left(&answer, "jobs")), (202, 0), "{}", answer.text);
        hold_to_quota(&api.order(&[], INPUT).await, "jobs");
    }
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_starts_counts_what_others_have_accepted_and_takes_part_from_there() {
    let ground = ground().await;
    let first = Ingest::start(&ground, |_| {}).await;
    first.ready().await;
    // Of four jobs two are projected, one of them has ended; one is on Kafka only, one is in the outbox only.
    let mut accepted = Vec::new();
    for _ in 0..4 {
        let job = first.api.order(&[], INPUT).await.job();
        accepted.push(accepted_event(&ground, &job).await);
    }
    first.stop().await;
    let failed = |accepted: &JobEvent| JobEvent {
        kind: EventKind::JobFailed,
        status: JobStatus::Failed,
        hop: 3,
        ..accepted.clone()
    };
    let ended = failed(&accepted[1]);
    for event in [&accepted[0], &accepted[1], &ended] {
        let at = ground.tell(event).await;
        project_one(&ground, at, event).await;
        let (topic, (partition, offset)) = (ground.topics.events(), at);
        ground.sql(&format!(
            "insert into orchestrator.offsets (topic, partition, next_offset) values ('{topic}', {partition}, {})
             on conflict (topic, partition) do update set next_offset = excluded.next_offset",
            offset + 1
        ));
    }
    ground.tell(&accepted[2]).await;
    let ingest = Ingest::start(&ground, |config| config.flow_limits = vec!["order jobs=100".to_owned()]).await;
    ingest.ready().await;
    // Submits that are no input tell what is left, and take nothing.
    let until_left = async |wanted: i64| {
        eventually(PATIENCE, "the count is as it should be", async || {
            (left(&ingest.api.order(&[], "{}").await, "jobs") == wanted).then_some(())
        })
        .await;
    };
    until_left(98).await;
    ground.tell(&accepted[3]).await;
    until_left(97).await;
    ground.tell(&failed(&accepted[0])).await;
    until_left(98).await;
    ingest.stop().await;
}
