//! All that belongs to a tenant is told, and goes, wherever it lies.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use store::Error;
use store::Role;
use store::tenants::{BELONGINGS, Of, Pools, count, delete, disable, disabled, enable, export};

use crate::database::Database;

/// In each column of ids of a tenant's rows.
const IDS: [(&str, &str); 2] =
    [("acme", "0190a6f2-7c1e-7cc0-b1f1-00000000aaaa"), ("other", "0190a6f2-7c1e-7cc0-b1f1-00000000bbbb")];

/// `schema.table` of every table that is ours, but for partitions, and its columns with their types.
async fn tables(connection: &mut PgConnection) -> BTreeMap<String, Vec<(String, String, bool)>> {
    let rows: Vec<(String, String, String, bool)> = sqlx::query_as(
        "select table_schema || '.' || table_name, column_name, data_type,
                is_nullable = 'NO' and column_default is null and is_identity = 'NO'
         from information_schema.columns
         join pg_class on pg_class.oid = format('%I.%I', table_schema, table_name)::regclass
         where table_schema in ('ingest', 'orchestrator', 'notifier') and relkind in ('r', 'p') and not relispartition
         order by ordinal_position",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let mut tables: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (table, column, kind, is_needed) in rows {
        tables.entry(table).or_default().push((column, kind, is_needed));
    }
    tables
}

fn is_of_tenants(table: &str) -> bool {
    BELONGINGS.iter().any(|one| one.table == table && !matches!(one.of, Of::Nobody(_)))
}

/// Gives each of both tenants a row in each table that may have some.
async fn fill(database: &Database) {
    let columns = tables(&mut database.superuser().await).await;
    for (tenant, id) in IDS {
        for belonging in BELONGINGS.iter().filter(|one| is_of_tenants(one.table)) {
            let value = |(column, kind, _): &&(String, String, bool)| match kind.as_str() {
                "uuid" => format!("'{id}'"),
                "text" if column == "tenant" => format!("'{tenant}'"),
                "text" => format!("'{tenant}-{column}'"),
                "bytea" => format!("convert_to('{{\"of\":\"{tenant}\"}}', 'UTF8')"),
                "integer" | "bigint" | "smallint" => "1".to_owned(),
                "boolean" => "false".to_owned(),
                "ARRAY" => "'{}'".to_owned(),
                _ => "now()".to_owned(),
            };
            // Secrets too, and whose rows they are.
            let wanted = ["secret", "old_secret", "tenant", "endpoint"];
            let filled: Vec<_> = columns[belonging.table]
                .iter()
                .filter(|(column, _, is_needed)| *is_needed || wanted.contains(&column.as_str()))
                .collect();
            let names: Vec<&str> = filled.iter().map(|(column, ..)| column.as_str()).collect();
            let values: Vec<String> = filled.iter().map(value).collect();
            let names = names.join("\", \"");
            database
                .run(&format!("insert into {} (\"{names}\") values ({})", belonging.table, values.join(", ")))
                .await;
        }
    }
}

async fn told(database: &Database, tenant: &str) -> Vec<serde_json::Value> {
    let pools = Pools::open(&database.url).unwrap();
    let mut told = Vec::new();
    let tell = |line: &str| {
        told.push(serde_json::from_str(line).unwrap());
        Ok::<(), Error>(())
    };
    export(&pools, tenant, tell).await.unwrap();
    told
}

#[tokio::test]
async fn every_table_is_listed_as_a_tenants_or_as_nobodys() {
    let database = Database::fresh().await;
    let tables = tables(&mut database.superuser().await).await;
    let listed: BTreeSet<&str> = BELONGINGS.iter().map(|one| one.table).collect();
    assert_eq!(listed.len(), BELONGINGS.len());
    assert_eq!(listed, tables.keys().map(String::as_str).collect(), "a new table belongs into BELONGINGS");
    for (table, columns) in tables {
        let names_tenant = columns.iter().any(|(column, ..)| column == "tenant");
        assert!(!names_tenant || is_of_tenants(&table), "{table} has a column `tenant`");
    }
}

#[tokio::test]
async fn an_export_tells_each_table_once_but_no_secret_and_nothing_of_others() {
    let database = Database::fresh().await;
    fill(&database).await;
    let lines = told(&database, "acme").await;
    let of: Vec<&str> = lines.iter().map(|line| line["table"].as_str().unwrap()).collect();
    let all: Vec<&str> = BELONGINGS.iter().map(|one| one.table).filter(|table| is_of_tenants(table)).collect();
    assert_eq!(of, all);
    for line in &lines {
        let text = line.to_string();
        assert!(!text.contains("other") && !text.contains("bbbb"), "{text}");
        let row = line["row"].as_object().unwrap();
        for secret in ["secret", "old_secret", "hash"] {
            assert!(!row.contains_key(secret), "{text}");
        }
    }
    let input = |table: &str, column: &str| {
        let line = lines.iter().find(|line| line["table"] == table).unwrap();
        line["row"][column].as_str().unwrap().to_owned()
    };
    assert_eq!(input("ingest.acceptances", "input"), r#"{"of":"acme"}"#);
    assert_eq!(input("notifier.deliveries", "body"), r#"{"of":"acme"}"#);
    // It ends with the first line that cannot be written.
    let refused =
        export(&Pools::open(&database.url).unwrap(), "acme", |_| Err(Error::Corrupt("full".to_owned()))).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn after_a_delete_no_table_has_a_row_of_the_tenant_but_the_audit_log_and_others_keep_theirs() {
    let database = Database::fresh().await;
    fill(&database).await;
    let pools = Pools::open(&database.url).unwrap();
    assert_eq!(count(&pools, "acme").await.unwrap().len(), 21);
    let mut gone = BTreeMap::new();
    delete(&pools, "acme", |table, rows| *gone.entry(table.to_owned()).or_insert(0) += rows).await.unwrap();
    assert_eq!(gone.len(), 21, "{gone:?}");
    assert!(gone.values().all(|rows| *rows == 1), "{gone:?}");
    assert_eq!(count(&pools, "acme").await.unwrap(), []);
    let columns = tables(&mut database.superuser().await).await;
    let mut of_acme = BTreeSet::new();
    for (table, columns) in &columns {
        for (column, ..) in columns {
            let found = format!("{table} where \"{column}\"::text in ('acme', '{}')", IDS[0].1);
            if database.count(&found).await > 0 {
                of_acme.insert(table.as_str());
            }
        }
    }
    let stays = BELONGINGS.iter().filter(|one| matches!(one.of, Of::Stays(_))).map(|one| one.table);
    assert_eq!(of_acme, stays.collect());
    assert_eq!(count(&pools, "other").await.unwrap().len(), 21, "another tenant has all of its rows");
    let mut again = 0;
    delete(&pools, "acme", |_, rows| again += rows).await.unwrap();
    assert_eq!(again, 0);
}

#[tokio::test]
async fn a_delete_that_was_cut_off_goes_on_and_leaves_no_row_whose_owner_is_gone() {
    let database = Database::fresh().await;
    let pools = Pools::open(&database.url).unwrap();
    let many = |table: &str, columns: &str, values: &str| {
        format!("insert into {table} ({columns}) select {values} from generate_series(1, 5000) as number;")
    };
    let id = "('0190a6f2-7c1e-7cc0-b1f1-' || lpad(number::text, 12, '0'))::uuid";
    let facts = "job, tenant, flow, version, key, correlation_id, steps_total, accepted_at";
    let values = format!("{id}, 'acme', 'f', 'v', 'k', 'c', 1, now()");
    let jobs = "status, cursor_partition, cursor, updated_at, history";
    database
        .run(&many("orchestrator.jobs", &format!("{facts}, {jobs}"), &format!("{values}, 'failed', 0, 0, now(), ''")))
        .await;
    database.run(&many("orchestrator.job_events", "job, cursor, lines", &format!("{id}, 1, ''"))).await;
    database.run(&many("ingest.acceptances", &format!("{facts}, input"), &format!("{values}, ''"))).await;
    // Cut off after some batches, at any await.
    let mut batches = 0;
    let cut = tokio_cut(delete(&pools, "acme", |_, _| batches += 1), 40).await;
    assert!(cut, "it was not done by then");
    let orphans = "orchestrator.job_events as beside
         where not exists (select from orchestrator.jobs where jobs.job = beside.job)";
    assert_eq!(database.count(orphans).await, 0);
    delete(&pools, "acme", |_, _| ()).await.unwrap();
    assert_eq!(count(&pools, "acme").await.unwrap(), []);
}

/// Polls a future at most so often, then drops it. True if it was not done.
async fn tokio_cut<F: Future>(future: F, polls: u32) -> bool {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return std::task::Poll::Ready(true);
        }
        left -= 1;
        future.as_mut().poll(context).map(|_| false)
    })
    .await
}

#[tokio::test]
async fn a_tenant_that_is_disabled_has_no_key_and_is_told_until_it_is_enabled() {
    let database = Database::fresh().await;
    let ingest = database.pool(Role::Ingest);
    fill(&database).await;
    disable(&ingest, "acme", "a test").await.unwrap();
    disable(&ingest, "acme", "a test").await.unwrap();
    assert_eq!(disabled(&ingest).await.unwrap(), ["acme"]);
    assert_eq!(database.count("ingest.api_keys where revoked_at is not null and tenant = 'acme'").await, 1);
    assert_eq!(database.count("ingest.api_keys where revoked_at is null and tenant = 'other'").await, 1);
    assert!(enable(&ingest, "acme").await.unwrap());
    assert!(!enable(&ingest, "acme").await.unwrap());
    assert_eq!(disabled(&ingest).await.unwrap(), Vec::<String>::new());
}
