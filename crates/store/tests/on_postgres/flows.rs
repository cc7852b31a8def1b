use store::flows::{Applied, all, apply};
use store::{Pool, Role};

use crate::database::Database;

async fn applied(pool: &Pool, flow: &str, version: &str) -> Applied {
    let mut tx = pool.begin().await.unwrap();
    let applied = apply(&mut tx, flow, version, &format!("{{\"flow\":\"{flow}\"}}")).await.unwrap();
    tx.commit().await.unwrap();
    applied
}

#[tokio::test]
async fn the_flow_applied_last_has_the_highest_revision() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let mut revisions = Vec::new();
    for (flow, version) in [("order", "v1"), ("order", "v2"), ("refund", "v1"), ("order", "v1")] {
        match applied(&pool, flow, version).await {
            Applied::Changed { revision } => revisions.push(revision),
            Applied::Unchanged { .. } => panic!("{flow}@{version} was not active"),
        }
    }
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    assert_eq!(applied(&pool, "order", "v1").await, Applied::Unchanged { revision: revisions[3] });
    let flows = all(&pool).await.unwrap();
    let names: Vec<_> = flows.iter().map(|flow| (flow.flow.as_str(), flow.version.as_str())).collect();
    assert_eq!(names, [("order", "v2"), ("refund", "v1"), ("order", "v1")]);
    assert_eq!(flows[2].document, r#"{"flow":"order"}"#);
}
