use store::flows::{Applied, all, apply};
use store::{Pool, Role};

use crate::database::Database;

async fn applied(pool: &Pool, flow: &str, version: &str) -> Applied {
    let mut tx = pool.begin().await.unwrap();
    let applied = apply(&mut tx, flow, version, &format!("{{\"flow\":\"{flow}\"}}")).await.unwrap();
    tx.commit().await.unwrap();
    applied
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_durable_whatever_the_database_has_as_its_default() {
    let database = Database::fresh().await;
    let note = "create function note() returns trigger language plpgsql as
                $$ begin new.document = current_setting('synchronous_commit'); return new; end $$;
                create trigger note before insert on ingest.flows for each row execute function note();
                do $$ begin
                    execute format('alter database %I set synchronous_commit = off', current_database());
                end $$";
    database.run(note).await;
    let pool = database.pool(Role::Ingest);
    let mut tx = pool.begin().await.unwrap();
    apply(&mut tx, "order", "0123456789ab", "{}").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(all(&pool).await.unwrap()[0].document, "on");
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
