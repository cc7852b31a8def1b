use store::Role;
use store::callers::Used;
use store::flags::NewFlags;

use crate::database::Database;

const NEW: NewFlags<'_> =
    NewFlags { flow: "order", document: "{}", changed_by: "me", reason: "a test", rollback_to: None };

#[tokio::test]
async fn of_two_changes_of_one_version_the_second_is_refused_and_a_repeated_one_found() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let other = NewFlags { reason: "another", ..NEW };
    let outcomes = tokio::join!(store::flags::add(&pool, NEW, 0), store::flags::add(&pool, other, 0));
    let stored = [outcomes.0.unwrap(), outcomes.1.unwrap()];
    assert_eq!(stored.iter().flatten().count(), 1, "{stored:?}");
    let first = stored.into_iter().flatten().next().unwrap();
    assert_eq!((first.version, store::flags::all(&pool).await.unwrap()), (1, vec![first.clone()]));
    let again = NewFlags { reason: &first.reason, ..NEW };
    assert_eq!(store::flags::add(&pool, again, 0).await.unwrap(), Some(first));
    assert_eq!(store::flags::add(&pool, NEW, 5).await.unwrap(), None);
    let second = store::flags::add(&pool, NewFlags { document: "{\"hold\":\"1s\"}", ..NEW }, 1).await.unwrap().unwrap();
    let versions = store::flags::history(&pool, "order", None, 10).await.unwrap();
    assert_eq!(versions.iter().map(|version| version.version).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(store::flags::all(&pool).await.unwrap(), [second]);
    assert_eq!(store::flags::history(&pool, "order", Some(2), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_change_is_heard_and_a_lost_connection_is_told() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let mut listener = store::flags::listen(&database.pool(Role::Ingest)).await.unwrap();
    store::flags::add(&pool, NEW, 0).await.unwrap();
    assert!(listener.heard().await.unwrap());
    let mut superuser = database.superuser().await;
    let sql = "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%'
               and datname = current_database()";
    sqlx::raw_sql(sql).execute(&mut superuser).await.unwrap();
    assert!(!listener.heard().await.unwrap());
}

#[tokio::test]
async fn requests_of_a_caller_add_up_by_day_and_form() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let now_ms = store::watched::now_ms(&database.pool(Role::Orchestrator)).await.unwrap();
    let used = |form, requests, last_seen_ms| Used {
        flow: "order".to_owned(),
        tenant: "acme".to_owned(),
        caller: "shop".to_owned(),
        form,
        requests,
        last_seen_ms,
    };
    let day_ms = 24 * 60 * 60 * 1_000;
    store::callers::add(&pool, &[used("sync", 2, now_ms), used("async", 1, now_ms)]).await.unwrap();
    store::callers::add(&pool, &[used("sync", 3, now_ms - 1), used("sync", 1, now_ms - 40 * day_ms)]).await.unwrap();
    let listed = store::callers::list(&pool, "acme", "order", 30, 10).await.unwrap();
    let told: Vec<_> = listed.iter().map(|usage| (usage.form.as_str(), usage.requests, usage.last_seen_ms)).collect();
    assert_eq!(told, [("sync", 5, now_ms), ("async", 1, now_ms)]);
    assert!(store::callers::list(&pool, "other", "order", 30, 10).await.unwrap().is_empty());
    assert_eq!(store::callers::flows_in_use(&pool, 7).await.unwrap(), ["order"]);
    assert_eq!(store::callers::purge(&pool, 30).await.unwrap(), 1);
}
