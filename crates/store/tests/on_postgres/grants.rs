use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use store::Role;

use crate::database::Database;

const OUTBOX: &str = "outbox.messages";
/// These tell who did what: their owner adds to them, and changes nothing.
const ADDED_TO_ONLY: [&str; 3] = ["ingest.flags", "ingest.audit", "ingest.audit_results"];

/// `schema.table` of every table that is ours, with its owner.
async fn tables(connection: &mut PgConnection) -> Vec<(String, String)> {
    sqlx::query_as(
        "select nspname || '.' || relname, relowner::regrole::text
         from pg_class join pg_namespace on pg_namespace.oid = relnamespace
         where nspname in ('outbox', 'ingest', 'orchestrator', 'notifier') and relkind in ('r', 'p')",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

/// The lines of cross-schema-reads.txt as `(role, table)`.
fn listed_reads() -> BTreeSet<(String, String)> {
    include_str!("../../cross-schema-reads.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').map(|(role, table)| (role.to_owned(), table.to_owned())).unwrap())
        .collect()
}

/// Whether the role may run that, rolled back; panics on any other error than missing rights.
async fn may(connection: &mut PgConnection, role: Role, statement: String) -> bool {
    let mut tx = connection.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("set local role {}", role.name()))).execute(&mut *tx).await.unwrap();
    let outcome = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *tx).await;
    tx.rollback().await.unwrap();
    match outcome {
        Ok(_) => true,
        Err(error) => {
            let code = error.as_database_error().unwrap().code().unwrap().into_owned();
            assert_eq!(code, "42501", "{error}");
            false
        }
    }
}

#[tokio::test]
async fn every_role_is_refused_what_it_does_not_own() {
    let database = Database::fresh().await;
    let mut connection = database.superuser().await;
    let listed = listed_reads();
    let mut read = BTreeSet::new();
    for (table, owner) in tables(&mut connection).await {
        for role in Role::ALL {
            let owns = owner == role.name();
            let reads = may(&mut connection, role, format!("select from {table}")).await;
            if reads && !owns {
                read.insert((role.name().to_owned(), table.clone()));
            }
            assert!(reads || !owns, "{} reads its {table}", role.name());
            for write in [format!("delete from {table}"), format!("truncate {table}"), format!("drop table {table}")] {
                let may_write = owns && (!ADDED_TO_ONLY.contains(&table.as_str()) || write.starts_with("drop"));
                assert_eq!(may(&mut connection, role, write.clone()).await, may_write, "{}: {write}", role.name());
            }
            let writes: bool = sqlx::query_scalar("select has_table_privilege($1, $2, 'insert, update')")
                .bind(role.name())
                .bind(&table)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert!(owns == writes || table == OUTBOX, "{} writes {table}", role.name());
        }
    }
    assert_eq!(read, listed, "cross-schema-reads.txt tells exactly who reads what of others");
}

#[tokio::test]
async fn nobody_changes_a_version_of_flags_or_what_the_audit_log_tells() {
    let database = Database::fresh().await;
    let mut connection = database.superuser().await;
    for (table, column) in ADDED_TO_ONLY.into_iter().zip(["reason = ''", "subject = ''", "status = 0"]) {
        for role in Role::ALL {
            let change = format!("update {table} set {column}");
            assert!(!may(&mut connection, role, change).await, "{} {table}", role.name());
        }
    }
}

#[tokio::test]
async fn everybody_appends_to_the_outbox_and_only_the_relay_reads_it() {
    let database = Database::fresh().await;
    let mut connection = database.superuser().await;
    for role in Role::ALL {
        let append = format!("insert into {OUTBOX} (topic, headers) values ('t', '')");
        assert!(may(&mut connection, role, append).await, "{} appends", role.name());
        let reads = may(&mut connection, role, format!("select from {OUTBOX}")).await;
        assert_eq!(reads, role == Role::Relay, "{} reads", role.name());
    }
}

#[tokio::test]
async fn a_pool_acts_as_its_role_whoever_logs_in() {
    let database = Database::fresh().await;
    let error = store::outbox::oldest_age_ms(&database.pool(Role::Ingest), 0).await.unwrap_err();
    assert_eq!(error.sqlstate().as_deref(), Some("42501"), "{error:?}");
    assert!(!error.is_unavailable() && !error.is_row_error());
    let mut tx = database.pool(Role::Notifier).begin().await.unwrap();
    assert!(store::flows::apply(&mut tx, "order", "v1", "{}").await.is_err());
}
