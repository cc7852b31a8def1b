//! The metrics of requests and commands.

use axum::http::Method;
use events::Record;
use events::headers::Headers;
use test_kit::{eventually, measure, metric, prefix};

use crate::stage::{Ingest, PATIENCE, ground};

fn requests(route: &str, method: &str, status: &str) -> Option<f64> {
    let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
    metric(&format!("meanwhile_http_requests_total{{{labels}}}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_by_route_method_and_class_and_no_path_becomes_a_label() {
    measure();
    let ground = ground().await;
    // Metrics are this process's, other tests' too: a route that is nobody else's.
    let name = prefix();
    ground.apply(&format!("flow: {name}\nroute: POST /{name}\nsteps:\n  - {{ id: one, native: one }}\n")).await;
    let ingest = Ingest::start(&ground, |_| {}).await;
    ingest.ready().await;
    let own = format!("/{name}");
    ingest.api.post(&own, &[], "{}").await.job();
    ingest.api.post(&own, &[], "{").await;
    assert_eq!((requests(&own, "POST", "2xx"), requests(&own, "POST", "4xx")), (Some(1.0), Some(1.0)));
    let seconds = format!("meanwhile_http_request_seconds_count{{route=\"{own}\",method=\"POST\"}}");
    assert_eq!(metric(&seconds), Some(2.0));
    let accepted = format!("meanwhile_jobs_accepted_total{{flow=\"{name}\"}}");
    assert_eq!(metric(&accepted), Some(1.0));

    let unknown = format!("/v1/flows/{}/jobs", prefix());
    ingest.api.post(&unknown, &[], "{}").await;
    assert!(requests("/v1/flows/{flow}/jobs", "POST", "4xx").is_some());
    let nowhere = format!("/{}", prefix());
    ingest.api.get(&nowhere).await;
    let method = Method::from_bytes(prefix().to_uppercase().as_bytes()).unwrap();
    ingest.api.ask(method.clone(), &nowhere, &[], "").await.unwrap();
    assert!(requests("(none)", "GET", "4xx").is_some() && requests("(none)", "other", "4xx").is_some());
    let text = measure().render();
    assert!(!text.contains(&nowhere) && !text.contains(method.as_str()) && !text.contains("route=\"/metrics\""));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_command_is_counted_with_its_class() {
    measure();
    let series = "meanwhile_dead_letters_total{role=\"ingest\",class=\"unknown-flow\"}";
    let ground = ground().await;
    let before = metric(series).unwrap_or(0.0);
    let ingest = Ingest::start(&ground, |_| {}).await;
    let command = br#"{"flow":"nobody-knows","input":{}}"#.to_vec();
    ground
        .send(&Record { topic: ground.topics.commands(), key: None, value: Some(command), headers: Headers::default() })
        .await;
    eventually(PATIENCE, "a dead letter", async || metric(series).filter(|letters| *letters > before)).await;
    ingest.stop().await;
}
