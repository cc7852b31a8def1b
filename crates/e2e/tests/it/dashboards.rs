//! Every panel of the dashboards has something to show while jobs succeed, fail, wait and are retried.

use std::time::Duration;

use client::NewWebhookEndpoint;
use e2e::panels::{queries, unanswered};
use serde_json::json;
use test_kit::{Prometheus, Receiver, Role, eventually, http_client, kcat, repository, submit};

use crate::client::{order, send};
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

/// Rates want something new between two scrapes, which are a second apart.
const BETWEEN_WAVES: Duration = Duration::from_millis(1_500);

/// A series shows two scrapes after its beginning.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);

/// Each way in which a job can go.
const FATES: [(&str, &str); 4] =
    [("inventory", "ok"), ("payment", "declined"), ("payment", "busy:1"), ("shipping", "flaky:1")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_of_the_dashboards_is_answered_by_prometheus() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let targets: Vec<(&str, String)> = stage
        .system
        .roles()
        .iter()
        .map(|process| (process.role().as_str(), process.url().trim_start_matches("http://").to_owned()))
        .collect();
    let prometheus = Prometheus::start(&targets).await.unwrap();
    let (url, client, http) = (prometheus.url(), stage.system.client(), http_client());
    let (brokers, commands) = (stage.system.brokers().to_owned(), stage.system.topics().commands());

    let receiver = Receiver::start().await;
    let endpoint = NewWebhookEndpoint { url: receiver.url(), ..NewWebhookEndpoint::default() };
    client.create_webhook_endpoint(&endpoint).await.unwrap();

    let asked = queries(&repository().join("deploy/grafana/dashboards")).unwrap();
    let asking = unanswered(&http, &url, &asked, SHOWN_WITHIN);
    tokio::pin!(asking);
    let mut jobs = vec![];
    let empty = loop {
        for (service, fate) in FATES {
            let key = uuid::Uuid::now_v7().to_string();
            let input = order(&key, if fate == "ok" { json!({}) } else { json!({ service: fate }) });
            jobs.push(submit(&client, "order", &key, &input).await.unwrap());
        }
        // Modes are those of requests to a flow's own route.
        let routed = http.post(format!("{}/orders", stage.system.api()));
        jobs.push(send(routed.json(&order("modes", json!({})))).await.job());
        kcat(&["-P", "-b", &brokers, "-t", &commands], b"this is no command\n").unwrap();
        tokio::select! {
            empty = &mut asking => break empty,
            () = tokio::time::sleep(BETWEEN_WAVES) => {}
        }
    };
    assert!(empty.is_empty(), "{} of {} queries answer nothing:\n{}", empty.len(), asked.len(), empty.join("\n"));
    stage.ends_of(jobs.iter().copied()).await;
    nothing_waits(&mut stage).await;
    stage.system.note_accepted(jobs);
    stage.finish().await;
}

/// Every transaction has left markers behind the last slip; they are no lag.
async fn nothing_waits(stage: &mut Stage) {
    let orchestrator = stage.system.role(Role::Orchestrator);
    eventually(PATIENCE, "no queue has a slip that is not done", async || {
        let lag = orchestrator.metric("meanwhile_queue_lag", "").await.unwrap();
        let age = orchestrator.metric("meanwhile_queue_oldest_age_seconds", "").await.unwrap();
        (lag == 0.0 && age == 0.0).then_some(())
    })
    .await;
}
