//! `meanwhile flows diff` as an operator calls it before `flows apply`.

use std::process::Command;

use test_kit::{Ground, binary};

fn flow(route: &str, timeout: &str) -> String {
    format!("flow: order\nroute: POST {route}\nsteps:\n  - {{ id: one, native: one, timeout: {timeout} }}\n")
}

/// The exit code, and what is told, when this flow is compared with the active one.
async fn diff(ground: &Ground, flow: &str, more: &[&str]) -> (Option<i32>, String) {
    let folder = std::env::temp_dir().join(format!("meanwhile-flows-diff-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("order.yaml");
    std::fs::write(&file, flow).unwrap();
    let mut command = Command::new(binary().await.unwrap());
    command.args(["flows", "diff"]).arg(&file).args(more).env("DATABASE_URL", &ground.database_url);
    let output = tokio::task::block_in_place(|| command.output().unwrap());
    std::fs::remove_dir_all(&folder).unwrap();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), told.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_break_callers_of_the_active_flows_is_told_before_it_is_applied() {
    let ground = Ground::new().await;
    ground.apply(&flow("/old", "1s")).await;
    ground.apply(&flow("/orders", "1s")).await;
    ground.apply("flow: other\nsteps: [{ id: one, native: one }]\n").await;

    let (code, told) = diff(&ground, &flow("/orders", "1s"), &[]).await;
    assert_eq!((code, told.as_str()), (Some(0), "no flow changed\n"), "the flow that is not named stays");

    let (code, told) = diff(&ground, &flow("/orders", "2s"), &[]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("fine      step one: `timeout`: 1s -> 2s"), "{told}");

    let (code, told) = diff(&ground, &flow("/new", "1s"), &[]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("breaking  route: `POST /orders` is gone"), "{told}");
    assert!(told.ends_with("flows that changed: 1; breaking changes: 1\n"), "{told}");
    assert_eq!(diff(&ground, &flow("/new", "1s"), &["--allow-breaking"]).await.0, Some(0));

    let (code, told) = diff(&ground, "flow: order\n", &[]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("cannot be compared") && told.contains("the flow has no `steps`"), "{told}");
}
