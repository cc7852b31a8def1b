//! Schedules: one job per tick, however many instances run, and whichever version of the flow each of them knows.

use events::decode_slip;
use serde_json::Value;
use test_kit::{Ground, eventually};

use crate::stage::{Ingest, PATIENCE, ground, jobs_stored};

fn flow(on: &str) -> String {
    format!("flow: timed\n{on}\nsteps: [{{ id: one, native: one }}]\n")
}

async fn until(ground: &Ground, condition: &str) {
    let sql = format!("select exists (select from ingest.schedules where {condition})");
    eventually(PATIENCE, condition, async || (ground.sql(&sql) == "t").then_some(())).await;
}

/// The inputs of all jobs, in the order of their ticks.
async fn inputs(ground: &Ground) -> Vec<Value> {
    let mut inputs = Vec::new();
    for record in ground.outbox(&ground.topics.steps("default")) {
        inputs.push(ground.reader.read(record.value.as_deref(), decode_slip).await.unwrap().input);
    }
    inputs.sort_by_key(|input| input["tick"].as_str().map(str::to_owned));
    inputs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tick_starts_one_job_however_many_instances_come_to_it() {
    let ground = ground().await;
    // Its ticks are far away, so that none comes by itself meanwhile.
    ground.apply(&flow("on: { cron: \"0 0 1 * *\", timezone: Asia/Kolkata, missed: all }")).await;
    let first = Ingest::start(&ground, |_| {}).await;
    until(&ground, "terms = '0 0 1 * * Asia/Kolkata'").await;
    first.stop().await;
    assert_eq!(jobs_stored(&ground), 0, "it begins with its application");
    // Nothing ran for a while.
    ground.sql(
        "update ingest.schedules set reached_at = (
            date_trunc('month', now() at time zone 'Asia/Kolkata') - interval '40 months'
         ) at time zone 'Asia/Kolkata'",
    );
    let instances = [Ingest::start(&ground, |_| {}).await, Ingest::start(&ground, |_| {}).await];
    until(&ground, "reached_at > now() - interval '32 days'").await;
    for instance in instances {
        instance.stop().await;
    }
    assert_eq!(jobs_stored(&ground), 40);
    let of_ticks = inputs(&ground).await;
    let mut told: Vec<&str> = of_ticks.iter().map(|input| input["tick"].as_str().unwrap()).collect();
    told.dedup();
    assert_eq!(told.len(), 40, "a tick has two jobs, or another has none");
    assert!(of_ticks[0]["scheduled_at"].as_str().unwrap().ends_with("-01T00:00:00+05:30"), "{}", of_ticks[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ticks_that_were_missed_one_is_made_up_for_and_another_version_begins_anew() {
    let ground = ground().await;
    ground.apply(&flow("on: { cron: \"30 4 * * *\" }")).await;
    let ingest = Ingest::start(&ground, |_| {}).await;
    until(&ground, "terms = '30 4 * * * UTC'").await;
    ingest.stop().await;
    assert_eq!(jobs_stored(&ground), 0, "it begins with its application");
    ground.sql("update ingest.schedules set reached_at = now() - interval '5 days'");
    let ingest = Ingest::start(&ground, |_| {}).await;
    eventually(PATIENCE, "the job of the last tick", async || (jobs_stored(&ground) > 0).then_some(())).await;
    let last = inputs(&ground).await.pop().unwrap();
    assert!(last["tick"].as_str().unwrap().ends_with("T04:30:00.000Z"), "{last}");

    // The ticks of another pattern that lie behind are not missed; it holds while the process runs.
    ground.apply(&flow("on: { cron: \"15 3 1 * *\", missed: all }")).await;
    until(&ground, "terms = '15 3 1 * * UTC' and reached_at > now() - interval '1 minute'").await;
    assert_eq!(jobs_stored(&ground), 1);
    ground.apply(&flow("summary: no more")).await;
    eventually(PATIENCE, "the schedule is gone", async || {
        (ground.sql("select count(*) from ingest.schedules") == "0").then_some(())
    })
    .await;
    ingest.stop().await;
}
