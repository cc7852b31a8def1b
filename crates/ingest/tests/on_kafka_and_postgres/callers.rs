//! Callers by form: counts are not lost while the database does not take them.

use serde_json::{Value, json};
use test_kit::eventually;

use crate::modes::{BODY, Front, JSON};
use crate::stage::PATIENCE;
use crate::wait::while_locked;

async fn requests(front: &Front) -> u64 {
    let callers = front.ingest.api.get("/v1/flows/legacy/callers").await.json["callers"].clone();
    callers[0]["requests"].as_u64().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_that_cannot_be_written_in_time_are_added_to_the_next_ones_and_once() {
    let front = Front::new().await;
    let ask = async || front.ask("/legacy", &[JSON, ("x-client-id", "shop")], BODY).await.status();
    while_locked(&front.ground, "ingest.callers", async {
        // Each attempt that was given up waits for its lock a while longer.
        for attempts in ["1", "2"] {
            assert_eq!(ask().await, 200);
            let waiting = "select count(*) from pg_stat_activity where datname = current_database()
                           and wait_event_type = 'Lock' and query like 'insert into ingest.callers%'";
            let tried = async || (front.ground.sql(waiting) == attempts).then_some(());
            eventually(PATIENCE, "an attempt to write", tried).await;
        }
    })
    .await;
    let counted = async |number: u64| {
        let all = async || Some(requests(&front).await).filter(|requests| *requests >= number);
        assert_eq!(eventually(PATIENCE, "all requests are counted", all).await, number, "each once");
    };
    counted(2).await;
    assert_eq!(ask().await, 200);
    counted(3).await;
    front.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_are_listed_for_as_many_days_as_are_asked_for_and_for_their_tenant_alone() {
    let front = Front::new().await;
    front.ground.sql(
        "insert into ingest.callers (flow, tenant, day, caller, form, requests, last_seen)
         select flow, tenant, (now() at time zone 'UTC')::date - days, caller, form, requests,
                now() - days * interval '1 day'
         from (values ('legacy', 'default', 0, 'few', 'sync', 2), ('legacy', 'default', 0, 'many', 'async', 5),
                      ('legacy', 'default', 6, 'late', 'proxy', 1), ('legacy', 'default', 7, 'early', 'sync', 1),
                      ('legacy', 'other', 0, 'foreign', 'sync', 9), ('plain', 'default', 0, 'elsewhere', 'async', 9))
              as used (flow, tenant, days, caller, form, requests)",
    );
    let api = &front.ingest.api;
    let listed = async |query: &str| {
        let answer = api.get(&format!("/v1/flows/legacy/callers{query}")).await;
        assert_eq!((answer.status, &answer.json["flow"]), (200, &json!("legacy")), "{}", answer.text);
        let name = |caller: &Value| caller["caller"].as_str().unwrap().to_owned();
        answer.json["callers"].as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(listed("").await, ["many", "few", "late"], "a week, the latest day first, and on it who asks most");
    assert_eq!(listed("?days=1").await, ["many", "few"]);
    assert_eq!(listed("?days=90").await.len(), 4);
    for wrong in ["days=0", "days=91", "days=-1", "days=x", "dyas=1"] {
        let refused = api.get(&format!("/v1/flows/legacy/callers?{wrong}")).await;
        assert_eq!((refused.status, refused.problem()), (400, "bad-request"), "{wrong}");
    }
    assert_eq!(api.get("/v1/flows/none/callers").await.problem(), "unknown-flow");
    front.ingest.stop().await;
}
