//! The dashboards of a stack that runs already.

use std::time::Duration;

use e2e::panels::{queries, unanswered};
use test_kit::{http_client, repository};

/// Two scrapes: so long after its beginning a series shows.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
#[ignore = "needs a stack that runs, after `make smoke`: scripts/stack/dashboards"]
async fn every_panel_of_the_dashboards_is_answered_by_the_stack() {
    let url = std::env::var("PROMETHEUS_URL").unwrap_or_else(|_| "http://127.0.0.1:9090".to_owned());
    let queries = queries(&repository().join("deploy/grafana/dashboards")).unwrap();
    let empty = unanswered(&http_client(), &url, &queries, PATIENCE).await;
    assert!(empty.is_empty(), "{} of {} queries answer nothing:\n{}", empty.len(), queries.len(), empty.join("\n"));
    println!("all {} queries answer", queries.len());
}
