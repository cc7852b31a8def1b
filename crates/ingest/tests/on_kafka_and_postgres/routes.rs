//! An address belongs to one flow.

use flow::definition::Definition;
use test_kit::eventually;

use crate::stage::{INPUT, Ingest, PATIENCE, ground};

const OTHER: &str = "flow: other\nroute: POST /orders\nsteps: [{ id: one, native: one }]\n";
const OWN: &str = "flow: other\nroute: POST /healthz\nsteps: [{ id: one, native: one }]\n";
const BOTH: &str = "`POST /orders` is the route of two flows, `order` and `other`";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_taken_is_refused_and_one_from_before_that_is_told_at_the_start() {
    let ground = ground().await;
    let refused = ground.try_apply(OTHER).await.unwrap_err().to_string();
    assert!(refused.contains(BOTH) && refused.contains("nothing was changed"), "{refused}");
    let refused = ground.try_apply(OWN).await.unwrap_err().to_string();
    assert!(refused.contains("`POST /healthz` of flow `other` is one of Meanwhile's own"), "{refused}");
    assert_eq!(ground.sql("select count(*) from ingest.flows where flow = 'other'"), "0");

    // An earlier version applied it all the same.
    let other = Definition::parse_yaml("test.yaml", OTHER, &mut |_| Err("no references".to_owned())).unwrap();
    let (version, document) = (other.version(), other.document());
    ground.sql(&format!("insert into ingest.flows values ('other', '{version}', 1000, '{document}')"));
    let ingest = Ingest::start(&ground, |_| {}).await;
    eventually(PATIENCE, "flows are missing", async || {
        let answer = ingest.api.get("/readyz").await;
        answer.json["detail"].as_str().unwrap_or_default().contains(BOTH).then_some(())
    })
    .await;
    let answer = eventually(PATIENCE, "the doors are open", async || {
        let answer = ingest.api.post("/v1/flows/other/jobs", &[], "{}").await;
        (answer.status == 202).then_some(ingest.api.post("/orders", &[], INPUT).await)
    });
    let answer = answer.await;
    assert_eq!((answer.status, answer.problem()), (503, "not-ready"), "{}", answer.text);
    assert!(answer.json["detail"].as_str().unwrap().contains(BOTH), "{}", answer.text);

    ground.sql("select setval('ingest.flow_revisions', 1000)");
    ground.apply(&OTHER.replace("route: POST /orders\n", "")).await;
    ingest.ready().await;
    assert_eq!(ingest.api.post("/orders", &[], INPUT).await.status, 202);
    ingest.stop().await;
}
