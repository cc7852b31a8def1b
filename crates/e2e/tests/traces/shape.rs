//! One job, one trace: what hangs below what, and what each span tells.

use flow::event::JobStatus;
use serde_json::json;
use test_kit::kcat;

use crate::jaeger::{Span, Tree, jaeger};
use crate::stage::{PATIENCE, Stage, order};

const STEPS: &str = "process {prefix}.steps.default";

/// The names of a trace's spans with the test's own topic prefix put in.
struct Names(String);

impl Names {
    fn of(stage: &Stage) -> Self {
        Self(stage.system.topics().prefix().to_owned())
    }

    fn steps(&self) -> String {
        STEPS.replace("{prefix}", &self.0)
    }

    fn send(&self, topic: &str) -> String {
        format!("send {}.{topic}", self.0)
    }
}

/// The hops of a job from the first on, each the child of the one before (or of a hold between them).
fn hops<'a>(tree: &'a Tree, root: &'a Span, names: &Names) -> Vec<&'a Span> {
    let (steps, waits) = (names.steps(), format!("process {}.waits", names.0));
    let mut hops = vec![tree.only(&root.id, &steps)];
    while let Some(last) = hops.last() {
        let hold = tree.below(&last.id).into_iter().find(|span| span.name == waits);
        let next = tree.below(&hold.unwrap_or(last).id).into_iter().find(|span| span.name == steps);
        let Some(next) = next else { break };
        hops.push(next);
    }
    hops
}

fn told<'a>(spans: &[&'a Span], key: &str) -> Vec<&'a str> {
    spans.iter().map(|span| span.tag(key)).collect()
}

/// The rules for every trace of a job.
fn check_all(tree: &Tree, job: &str) {
    for span in &tree.spans {
        assert_eq!(span.tag("meanwhile.job.id"), job, "{span:?}\n{}", tree.drawn());
        if span.name.starts_with("process ") || span.name.starts_with("send ") {
            assert_eq!(span.tag("messaging.system"), "kafka");
            let (operation, topic) = span.name.split_once(' ').unwrap();
            assert_eq!(span.tag("messaging.operation.name"), operation);
            assert_eq!(span.tag("messaging.operation.type"), operation);
            assert_eq!(span.tag("messaging.destination.name"), topic);
            assert_ne!(span.tag("messaging.kafka.message.key"), "");
        }
        if span.name.starts_with("process ") {
            assert_eq!(span.tag("span.kind"), "consumer");
            assert_ne!(span.tag("messaging.consumer.group.name"), "");
            assert!(span.tag("messaging.destination.partition.id").parse::<u32>().is_ok(), "{span:?}");
            assert!(span.tag("messaging.kafka.offset").parse::<u64>().is_ok(), "{span:?}");
            assert!(span.parent.is_some(), "a child of its cause: {span:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Jaeger: make test-traces"]
async fn a_job_is_one_trace_from_the_request_to_the_last_call() {
    let jaeger = jaeger().await;
    let mut stage = Stage::start(&jaeger.otlp()).await;
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = stage.order(json!({}), Some(caller)).await;
    assert_eq!(traced.trace_id, "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(stage.end_of(traced.job).await, JobStatus::Succeeded);
    let status = stage.system.status(traced.job).await.unwrap();
    assert_eq!(status["trace_id"], traced.trace_id);
    assert_eq!(status["trace_url"], format!("http://jaeger.example/trace/{}", traced.trace_id));

    // The request, two rows of the outbox, three hops with one call each.
    let tree = jaeger.trace_of(&traced.trace_id, 9).await;
    println!("{}", tree.drawn());
    assert_eq!(tree.spans.len(), 9, "{}", tree.drawn());
    let names = Names::of(&stage);
    check_all(&tree, &traced.job.to_string());
    let root = tree.root();
    assert_eq!((root.name.as_str(), root.service.as_str()), ("POST /orders", "meanwhile-ingest"));
    assert_eq!((root.parent.as_deref(), root.tag("span.kind")), (Some("b7ad6b7169203331"), "server"));
    assert_eq!((root.tag("http.route"), root.tag("http.response.status_code")), ("/orders", "202"));
    for topic in ["events", "steps.default"] {
        let sent = tree.only(&root.id, &names.send(topic));
        assert_eq!((sent.service.as_str(), sent.tag("span.kind")), ("meanwhile-relay", "producer"));
    }
    let hops = hops(&tree, root, &names);
    assert_eq!(told(&hops, "meanwhile.step"), ["reserve", "charge", "ship"]);
    for hop in hops {
        assert_eq!((hop.service.as_str(), hop.failure()), ("meanwhile-workers", ("", "")));
        let call = tree.only(&hop.id, &format!("POST {}", hop.tag("meanwhile.step")));
        assert_eq!((call.tag("span.kind"), call.tag("server.address")), ("client", "127.0.0.1"));
        assert!(call.tag("http.response.status_code").starts_with('2'), "{call:?}");
        assert_eq!(call.tag("meanwhile.attempt"), "1");
    }
    stage.system.finish(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Jaeger: make test-traces"]
async fn a_compensated_job_shows_the_refusal_and_each_undo() {
    let jaeger = jaeger().await;
    let mut stage = Stage::start(&jaeger.otlp()).await;
    let traced = stage.order(json!({ "payment": "declined" }), None).await;
    assert_eq!(stage.end_of(traced.job).await, JobStatus::Failed);
    let tree = jaeger.trace_of(&traced.trace_id, 9).await;
    println!("{}", tree.drawn());
    let names = Names::of(&stage);
    check_all(&tree, &traced.job.to_string());
    let root = tree.root();
    assert_eq!(root.parent, None, "nobody's trace goes on");
    let hops = hops(&tree, root, &names);
    assert_eq!(told(&hops, "meanwhile.step"), ["reserve", "charge", "reserve"]);
    assert_eq!(told(&hops, "meanwhile.phase"), ["forward", "forward", "undo"]);
    let charge = tree.only(&hops[1].id, "POST charge");
    let (error_type, description) = charge.failure();
    assert_eq!((error_type, charge.tag("http.response.status_code")), ("402", "402"));
    assert!(!description.is_empty(), "a person is told why: {charge:?}");
    assert_eq!(hops[1].failure(), ("step-failed", description));
    assert_eq!((hops[0].failure(), hops[2].failure()), (("", ""), ("", "")));
    assert_eq!(tree.only(&hops[2].id, "DELETE reserve").tag("meanwhile.phase"), "undo");
    assert_eq!(tree.spans.len(), 9, "{}", tree.drawn());
    stage.system.finish(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Jaeger: make test-traces"]
async fn a_held_retry_shows_both_attempts_and_the_hold_between_them() {
    let jaeger = jaeger().await;
    let mut stage = Stage::start(&jaeger.otlp()).await;
    // The service itself asks for two seconds.
    let traced = stage.order(json!({ "payment": "busy:2" }), None).await;
    assert_eq!(stage.end_of(traced.job).await, JobStatus::Succeeded);
    // As in the plain case, and: one more hop with its call, the hold, and the row that ended it.
    let tree = jaeger.trace_of(&traced.trace_id, 13).await;
    println!("{}", tree.drawn());
    assert_eq!(tree.spans.len(), 13, "{}", tree.drawn());
    let names = Names::of(&stage);
    check_all(&tree, &traced.job.to_string());
    let hops = hops(&tree, tree.root(), &names);
    assert_eq!(told(&hops, "meanwhile.step"), ["reserve", "charge", "charge", "ship"]);
    assert_eq!(told(&hops, "meanwhile.visit"), ["1", "1", "1", "1"], "one visit, two spans");
    assert_ne!(hops[1].failure(), ("", ""));
    assert_eq!(hops[2].failure(), ("", ""));
    let (first, again) = (tree.only(&hops[1].id, "POST charge"), tree.only(&hops[2].id, "POST charge"));
    assert_eq!((first.tag("meanwhile.attempt"), again.tag("meanwhile.attempt")), ("1", "2"));
    assert_eq!((first.tag("meanwhile.retryable"), again.tag("http.request.resend_count")), ("true", "1"));
    let hold = tree.only(&hops[1].id, &format!("process {}.waits", names.0));
    assert_eq!((hold.service.as_str(), hold.tag("meanwhile.hold.reason")), ("meanwhile-orchestrator", "backoff"));
    let rest_ms: u64 = hold.tag("meanwhile.hold.release_after_ms").parse().unwrap();
    let released = tree.only(&hold.id, &names.send("steps.default"));
    assert_eq!(released.service, "meanwhile-relay");
    assert!(released.start_us >= hold.start_us + rest_ms * 1_000, "the rest is the gap before it is sent on");
    stage.system.finish(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Jaeger: make test-traces"]
async fn a_command_continues_its_senders_trace() {
    let jaeger = jaeger().await;
    let mut stage = Stage::start(&jaeger.otlp()).await;
    let (topic, brokers) = (stage.system.topics().commands(), stage.system.brokers().to_owned());
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let header = format!("traceparent=00-{trace_id}-00f067aa0ba902b7-01");
    let command = json!({ "flow": "order", "input": order(&json!({})) }).to_string();
    kcat(&["-P", "-b", &brokers, "-t", &topic, "-k", "bob", "-H", &header], command.as_bytes()).unwrap();
    // The command, two rows of the outbox, three hops with one call each.
    let tree = jaeger.trace_of(trace_id, 9).await;
    println!("{}", tree.drawn());
    let command = tree.named(&format!("process {topic}"))[0];
    assert_eq!((command.service.as_str(), command.parent.as_deref()), ("meanwhile-ingest", Some("00f067aa0ba902b7")));
    let job = command.tag("meanwhile.job.id").parse().unwrap();
    check_all(&tree, &format!("{job}"));
    assert_eq!(hops(&tree, command, &Names::of(&stage)).len(), 3);
    stage.system.note_accepted([job]);
    stage.system.finish(PATIENCE).await.unwrap();
}
