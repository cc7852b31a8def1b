//! A queue whose workers stand still takes no new jobs, until they have caught up.

use serde_json::json;
use test_kit::{Role, eventually};

use crate::client::{order, send};
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

/// More than what is no backlog.
const JOBS: usize = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_nobody_works_on_refuses_jobs_and_takes_them_again_once_it_has_caught_up() {
    let _turn = beside_others().await;
    let mut stage = Stage::start_with(|builder| builder.variable("MEANWHILE__INGEST__QUEUE_AGE_MAX_S", "2")).await;
    let (url, client) = (format!("{}/orders", stage.system.api()), test_kit::http_client());
    stage.system.role(Role::Workers).process().kill9();
    let mut jobs = Vec::new();
    for number in 0..JOBS {
        jobs.push(stage.submit("order", &order(&format!("c-{number}"), json!({}))).await);
    }
    let mut number = JOBS;
    let mut submit = async || {
        number += 1;
        send(client.post(&url).json(&order(&format!("c-{number}"), json!({})))).await
    };
    let refused = eventually(PATIENCE, "a job is refused", async || {
        let answer = submit().await;
        if answer.status == 202 {
            jobs.push(answer.job());
            return None;
        }
        Some(answer)
    })
    .await;
    assert_eq!((refused.status, refused.problem()), (503, "temporary-reduced-capacity"), "{refused:?}");
    let after_s: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=300).contains(&after_s), "{after_s} s");

    stage.system.role(Role::Workers).restart().unwrap();
    let taken = eventually(PATIENCE, "jobs are taken again", async || {
        let answer = submit().await;
        (answer.status == 202).then_some(answer)
    })
    .await;
    jobs.push(taken.job());
    stage.system.note_accepted(jobs.iter().copied());
    stage.ends_of(jobs.iter().copied()).await;
    assert_eq!(stage.finish().await.tokens.ends().len(), jobs.len());
}
