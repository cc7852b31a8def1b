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

/// Values for a query's parameters. No plan is made for them; but partitions that they rule out are not shown, and of a
/// range of ids that is null these are all.
fn arguments(query: &str, parameters: usize) -> String {
    let ids = format!("'{}', '{}'", uuid::Uuid::nil(), uuid::Uuid::max());
    match parameters {
        0 => String::new(),
        10 if is_list(query) => format!("('default', {ids}, 50, 'c', 'k', 'order', null, 10000, false)"),
        6 if is_list(query) => format!("({ids}, 'c', 'k', 10000, false)"),
        2 if query.contains("with page as") => format!("('{}', 10000)", uuid::Uuid::nil()),
        3 if query.contains("with page as") => format!("({ids}, 10000)"),
        2 if query.contains("walked_to") => {
            "(max(uuid), 5000)".replace("max(uuid)", &format!("'{}'", uuid::Uuid::max()))
        }
        _ => format!("({})", vec!["null"; parameters].join(", ")),
    }
}

/// True for the queries of lists of jobs.
fn is_list(query: &str) -> bool {
    query.contains("hashtextextended(key, 0)")
}

/// The plan that holds for all parameters, as Postgres makes it for statements that are prepared once.
async fn plan_of(connection: &mut PgConnection, query: &str, parameters: usize) -> serde_json::Value {
    let mut tx = connection.begin().await.unwrap();
    let run = async |tx: &mut PgConnection, sql: String| sqlx::raw_sql(AssertSqlSafe(sql)).execute(tx).await.unwrap();
    run(&mut tx, "set local plan_cache_mode = force_generic_plan".to_owned()).await;
    run(&mut tx, format!("prepare asked as {query}")).await;
    let arguments = arguments(query, parameters);
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

/// The scans of a plan that look for a hash: those that find it by their index, and those that read on until they do.
fn hashed(plan: &serde_json::Value, (found, filtered): (&mut Vec<String>, &mut Vec<String>)) {
    let speaks_of = |part: &str| plan[part].as_str().is_some_and(|condition| condition.contains("hashtext"));
    let name = || format!("{} by {}", plan["Relation Name"], plan["Index Name"]);
    // It is empty here: any way is as good.
    if plan["Relation Name"] == "acceptances_default" {
        return;
    }
    if speaks_of("Index Cond") {
        found.push(name());
    }
    if speaks_of("Filter") {
        filtered.push(name());
    }
    for below in plan["Plans"].as_array().into_iter().flatten() {
        hashed(below, (found, filtered));
    }
}

#[tokio::test]
async fn a_list_finds_a_correlation_id_and_a_key_by_index() {
    let database = Database::fresh().await;
    generated::fill(&database, JOBS).await;
    let mut connection = database.superuser().await;
    let mut looked = 0;
    for (query, parameters) in queries().into_iter().filter(|(query, _)| is_list(query)) {
        let plan = plan_of(&mut connection, &query, parameters).await;
        let (mut found, mut filtered) = (Vec::new(), Vec::new());
        hashed(&plan, (&mut found, &mut filtered));
        assert!(filtered.is_empty(), "{filtered:?} in:\n{query}");
        // Each of both, in each day.
        assert_eq!(found.len(), usize::try_from(2 * generated::DAYS).unwrap(), "{found:?} in:\n{query}");
        looked += 1;
    }
    assert_eq!(looked, 2);
}
