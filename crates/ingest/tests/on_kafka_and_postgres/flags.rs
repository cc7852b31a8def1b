//! The time until a change of flags holds at another instance.

use std::time::{Duration, Instant};

use serde_json::json;
use test_kit::eventually;

use crate::modes::{BODY, Front, JSON, ask};
use crate::stage::PATIENCE;

const CHANGES: u32 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_told_to_the_other_instance_which_does_not_have_to_look_for_it() {
    let front = Front::new().await;
    // It would find nothing out by itself while this test runs.
    let other = Front::ingest_with(&front.ground, &front.old.url, |config| config.flags_look_s = 3_600).await;
    let mut times: Vec<Duration> = Vec::new();
    for version in 0..CHANGES {
        let (percent, status) = if version % 2 == 0 { (100, 202) } else { (0, 200) };
        let changed = front.flags(i64::from(version), json!({ "durable": { "percent": percent } })).await;
        let put_at = Instant::now();
        assert_eq!(changed.status, 200, "{}", changed.text);
        let holds = async || {
            let answer = ask(&other, "/legacy", &[JSON, ("prefer", "respond-async")], BODY).await;
            (answer.status() == status).then_some(())
        };
        eventually(PATIENCE, "the change holds", holds).await;
        times.push(put_at.elapsed());
    }
    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{CHANGES} changes of flags hold at the other instance after {median:?} (median), {longest:?} (longest)");
    other.stop().await;
    front.ingest.stop().await;
}
