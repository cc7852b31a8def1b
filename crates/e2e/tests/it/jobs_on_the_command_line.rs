//! `meanwhile jobs list` and `watch`, and what a failed step tells of its attempts.

use flow::event::JobStatus;
use serde_json::{Value, json};
use test_kit::eventually;

use crate::client::small_order;
use crate::command_line::meanwhile;
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_listed_and_watched_to_their_ends() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let api = stage.system.api();
    let url = [("MEANWHILE_URL", api.as_str())];
    let good = stage.submit("saga", &small_order("c-1", json!({}))).await.to_string();
    let declined = stage.submit("saga", &small_order("c-2", json!({ "payment": "declined" }))).await.to_string();
    let stuck = small_order("c-3", json!({ "inventory": "undo_error", "payment": "declined" }));
    let parked = stage.submit("patient", &stuck).await;

    for (job, code, end) in
        [(&good, 0, "= succeeded"), (&declined, 1, "= failed"), (&parked.to_string(), 4, "= needs_attention")]
    {
        let (exit, told, _) = meanwhile(&["jobs", "watch", job], &url, "").await;
        assert_eq!(exit, Some(code), "{told}");
        assert!(told.contains(end) && told.contains("reserve") && !told.contains('\u{1b}'), "{told}");
    }
    let unknown = "0190a5c1-0000-7000-8000-000000000000";
    let (exit, _, told) = meanwhile(&["jobs", "watch", unknown], &url, "").await;
    assert!(exit == Some(1) && told.contains("404 Not Found"), "{told}");

    // The projection is moments behind.
    let listed = eventually(PATIENCE, "all three are listed as they are", async || {
        let (_, told, _) = meanwhile(&["jobs", "list", "--since", "1h"], &url, "").await;
        ["succeeded", "failed", "needs_attention"].iter().all(|status| told.contains(status)).then_some(told)
    })
    .await;
    let ids: Vec<&str> = listed.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(ids, [&parked.to_string(), &declined, &good], "newest first: {listed}");
    assert!(listed.lines().nth(1).unwrap().contains("patient  needs_attention  reserve"), "{listed}");
    let (_, told, _) = meanwhile(&["jobs", "list", "--status", "failed,cancelled", "--json"], &url, "").await;
    let document: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&document["jobs"][0]["id"], &document["next"]), (&json!(declined), &Value::Null), "{told}");
    assert_eq!(document["jobs"].as_array().unwrap().len(), 1, "{told}");
    let (_, told, _) = meanwhile(&["jobs", "list", "--key", "c-9"], &url, "").await;
    assert_eq!(told, "no such jobs\n");
    let (exit, _, told) = meanwhile(&["jobs", "list", "--status", "done"], &url, "").await;
    assert!(exit == Some(1) && told.contains("`needs_attention`"), "{told}");

    // A decline was one attempt, whose answer the step does not show.
    let status = stage.system.status(declined.parse().unwrap()).await.unwrap();
    let charge = status["steps"].as_array().unwrap().iter().find(|step| step["id"] == "charge").unwrap();
    let log = charge["error"]["attempt_log"].as_array().unwrap();
    assert_eq!((log.len(), &log[0]["attempt"], &log[0]["status"]), (1, &json!(1), &json!(402)), "{charge}");
    assert!(log[0]["duration_ms"].is_u64() && log[0].get("excerpt").is_none(), "{charge}");

    stage.shop.mend(true);
    meanwhile(&["jobs", "retry", &parked.to_string()], &url, "").await;
    assert_eq!(stage.end_of(parked).await.status, JobStatus::Failed);
    stage.finish().await;
}
