//! Migrates a database to the form that this build expects.

use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Connection};

use crate::Error;
use crate::pool::parse_url;

/// The schema of the migrations table: outside any service's schema, and not in `public`, which may belong to others.
const SCHEMA: &str = "meanwhile";
const TABLE: &str = "meanwhile.migrations";

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!();
    migrator.create_schema(SCHEMA);
    migrator.dangerous_set_table_name(TABLE);
    migrator
}

/// Applies missing migrations. Safe to run from several processes at once, also on databases that share a cluster.
/// The login needs CREATE on the database, and CREATEROLE unless the roles exist (see `deploy/postgres`).
pub async fn migrate(url: &str) -> Result<(), Error> {
    let options = parse_url(url)?.application_name("meanwhile_migrate");
    let mut connection = options.connect().await?;
    // `run` would not do: its future cannot be spawned (it is not Send for every lifetime).
    migrator().run_direct(None, &mut connection, false).await?;
    Ok(connection.close().await?)
}
