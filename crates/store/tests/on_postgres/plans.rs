//! Every query of the store finds its rows by an index, however many others there are.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::database::Database;
use crate::generated;

/// Jobs in the tables: enough for a scan to cost more than an index.
const JOBS: i64 = 200_000;
/// Tables with fewer rows may be read as a whole.
const SMALL_ROWS: f64 = 1_000.0;

/// The queries that are checked at compile time, as `scripts/tools/prepare-queries` writes them, with their number of
/// parameters.
fn queries() -> Vec<(String, usize)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.sqlx");
    let mut queries = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let parameters = file["describe"]["parameters"]["Left"].as_array().map_or(0, Vec::len);
        let query = file["query"].as_str().unwrap();
        let words = query.lines().filter(|line| !line.starts_with("--")).flat_map(str::split_whitespace);
        // Others have no plan.
        if ["with", "select", "insert", "update", "delete"].contains(&words.take(1).collect::<String>().as_str()) {
            queries.push((query.to_owned(), parameters));
        }
    }
    queries
}

/// The tables of ours that have many rows.
async fn large_tables(connection: &mut PgConnection) -> BTreeSet<String> {
    let tables = "select relname from pg_class join pg_namespace on pg_namespace.oid = relnamespace
         where nspname in ('outbox', 'ingest', 'orchestrator', 'notifier') and relkind = 'r' and reltuples > $1";
    sqlx::query_scalar(tables).bind(SMALL_ROWS).fetch_all(connection).await.unwrap().into_iter().collect()
}

/// The tables that a plan reads as a whole.
fn scanned(plan: &serde_json::Value, tables: &mut BTreeSet<String>) {
    if plan["Node Type"].as_str().is_some_and(|node| node.ends_with("Seq Scan")) {
        tables.insert(plan["Relation Name"].as_str().unwrap().to_owned());
    }
    for below in plan["Plans"].as_array().into_iter().flatten() {
        scanned(below, tables);
    }
}

/// The plan that holds for all parameters, as Postgres makes it for statements that are prepared once.
async fn plan_of(connection: &mut PgConnection, query: &str, parameters: usize) -> serde_json::Value {
    let mut tx = connection.begin().await.unwrap();
    let run = async |tx: &mut PgConnection, sql: String| sqlx::raw_sql(AssertSqlSafe(sql)).execute(tx).await.unwrap();
    run(&mut tx, "set local plan_cache_mode = force_generic_plan".to_owned()).await;
    run(&mut tx, format!("prepare asked as {query}")).await;
    let nulls = vec!["null"; parameters].join(", ");
    let arguments = if parameters == 0 { String::new() } else { format!("({nulls})") };
    let explain = AssertSqlSafe(format!("explain (format json) execute asked{arguments}"));
    let row = sqlx::raw_sql(explain).fetch_one(&mut *tx).await.unwrap();
    let plan: serde_json::Value = serde_json::from_str(row.get_unchecked::<&str, _>(0)).unwrap();
    run(&mut tx, "deallocate asked".to_owned()).await;
    tx.rollback().await.unwrap();
    plan[0]["Plan"].clone()
}

#[tokio::test]
async fn no_query_reads_a_large_table_as_a_whole() {
    let database = Database::fresh().await;
    generated::fill(&database, JOBS).await;
    let mut connection = database.superuser().await;
    let large = large_tables(&mut connection).await;
    assert!(large.len() > 80 && large.contains("holds") && large.contains("idempotency"), "{large:?}");
    let mut wrong = Vec::new();
    for (query, parameters) in queries() {
        let plan = plan_of(&mut connection, &query, parameters).await;
        let mut tables = BTreeSet::new();
        scanned(&plan, &mut tables);
        let tables: Vec<_> = tables.intersection(&large).collect();
        if !tables.is_empty() {
            wrong.push(format!("{tables:?} in:\n{query}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
