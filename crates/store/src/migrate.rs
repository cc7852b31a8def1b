//! Bringing a database to the form that this build expects.

use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Connection};

use crate::Error;
use crate::pool::parse_url;

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
