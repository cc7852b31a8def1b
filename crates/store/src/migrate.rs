//! Bringing a database to the form that this build expects.

use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Connection};

use crate::pool::parse_url;
use crate::{Error, Pool};

/// Outside any service's schema, where every role may read it. Not in `public`: that need not be ours.
const SCHEMA: &str = "meanwhile";
const TABLE: &str = "meanwhile.migrations";

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!();
    migrator.create_schema(SCHEMA);
    migrator.dangerous_set_table_name(TABLE);
    migrator
}

/// Applies what is missing. Safe to run from several processes at once, against databases that share a cluster too.
/// The login needs CREATE on the database, and CREATEROLE unless the roles exist (see `deploy/postgres`).
pub async fn migrate(url: &str) -> Result<(), Error> {
    let options = parse_url(url)?.application_name("meanwhile_migrate");
    let mut connection = options.connect().await?;
    // Not `run`: its future could not be spawned (it is not Send for every lifetime).
    migrator().run_direct(None, &mut connection, false).await?;
    Ok(connection.close().await?)
}

/// Refuses with [`Error::NotMigrated`] when the database lacks a migration that this build needs.
pub async fn check_migrated(pool: &Pool) -> Result<(), Error> {
    let newest = sqlx::query_scalar!("select max(version) from meanwhile.migrations where success")
        .fetch_one(pool.raw())
        .await?
        .unwrap_or_default();
    if migrator().iter().all(|migration| migration.version <= newest) {
        Ok(())
    } else {
        Err(Error::NotMigrated(sqlx::Error::RowNotFound))
    }
}
