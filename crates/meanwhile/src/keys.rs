//! `meanwhile keys`: API keys, over HTTP; the first one of a tenant goes into the database.

use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use client::{ApiKey, NewApiKey};
use ingest::auth::api_key::{HashKey, draw, id_of};
use ingest::auth::{Scope, is_tenant};
use service_kit::config::Sources;
use store::api_keys::{self, Created, NewKey};

use crate::cli::keys::{CreateArgs, KeysCommand};
use crate::in_database::{InDatabase, SUBJECT};
use crate::jobs::explained;
use crate::table::table;

/// `meanwhile keys`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(command: KeysCommand, sources: &Sources) -> anyhow::Result<ExitCode> {
    match command {
        KeysCommand::List { json: true, api } => {
            println!("{:#}", api.client()?.api_keys_document().await.map_err(explained)?);
        }
        KeysCommand::List { json: false, api } => {
            let keys = api.client()?.api_keys().await.map_err(explained)?;
            match keys.is_empty() {
                true => println!("there is no key"),
                false => print!("{}", listed(&keys)),
            }
        }
        KeysCommand::Create(args) if args.bootstrap => bootstrap(args, sources).await?,
        KeysCommand::Create(args) => {
            let new = NewApiKey { name: args.name, scopes: args.scopes, expires_in: args.expires_in };
            let made = args.api.client()?.create_api_key(&new).await.map_err(explained)?;
            tell(&made.id, made.key.as_deref().unwrap_or_default());
        }
        KeysCommand::Revoke { id, api } => {
            api.client()?.revoke_api_key(&id).await.map_err(explained)?;
            println!("{id} is revoked: it opens nothing any more");
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
fn tell(id: &str, key: &str) {
    println!("key {id}, which is not shown again:\n{key}");
}

/// Writes a key to the database.
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
async fn bootstrap(args: CreateArgs, sources: &Sources) -> anyhow::Result<()> {
    let CreateArgs { name, scopes, expires_in, tenant, key: given, .. } = args;
    let scopes: Vec<&str> = scopes.iter().map(|word| scope(word)).collect::<anyhow::Result<_>>()?;
    ensure!(is_tenant(&tenant), "`{tenant}` is no name of a tenant: it has letters, digits, `.`, `_` and `-`");
    let unfit = "the key that is given has not the form mw_<16>_<64>, in a-z and 0-9";
    given.as_deref().map(|key| id_of(key).context(unfit)).transpose()?;
    let database = InDatabase::open(sources).await?;
    let expires_at_ms = expires_in.as_deref().map(|text| end(text, database.clock.now_ms())).transpose()?;
    let key = given.clone().unwrap_or_else(|| draw(&database.ids));
    let id = id_of(&key).context(unfit)?;
    let hash = HashKey::new(&database.shared.auth.keys_secret).hash(&key);
    let (tenant, name) = (tenant.as_str(), name.as_str());
    let new = NewKey { id, tenant, name, hash: &hash, scopes: &scopes, created_by: SUBJECT, expires_at_ms };
    let keys_max = u32::MAX;
    // As the API does it: what is done is in the log before.
    let entry = database.begin(tenant, "key.create", id).await?;
    let created = api_keys::create(&database.pool, new, keys_max).await.context("the key is not stored")?;
    database.end(entry, if created == Created::Done { 201 } else { 409 }).await?;
    database.pool.close().await;
    match created {
        Created::Done if given.is_some() => println!("key {id} of {tenant} is there"),
        Created::Done => tell(id, &key),
        Created::Taken if given.is_some() => println!("key {id} was there already"),
        Created::Taken | Created::TooMany => bail!("the key cannot be stored: try again"),
    }
    Ok(())
}

fn scope(word: &str) -> anyhow::Result<&'static str> {
    let known = Scope::ALL.map(Scope::as_str).join(", ");
    Scope::parse(word).map(Scope::as_str).with_context(|| format!("`{word}` is no scope; there are {known}"))
}

fn end(text: &str, now_ms: i64) -> anyhow::Result<i64> {
    let life_ms = flow::definition::parse_duration_ms(text).filter(|life_ms| *life_ms > 0);
    let life_ms = life_ms.with_context(|| format!("--expires-in: `{text}` is not a while such as 12h or 90d"))?;
    Ok(now_ms.saturating_add_unsigned(life_ms))
}

fn listed(keys: &[ApiKey]) -> String {
    let row = |key: &ApiKey| {
        [
            key.id.clone(),
            key.status.clone().unwrap_or_default(),
            key.scopes.join(","),
            key.last_used_at.clone().unwrap_or_else(|| "never used".to_owned()),
            key.expires_at.clone().unwrap_or_default(),
            key.name.replace(char::is_control, " "),
        ]
    };
    table(["KEY", "STATUS", "SCOPES", "LAST USED", "EXPIRES", "NAME"], keys.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_line_that_says_what_it_allows_and_whether_anybody_uses_it() {
        let key = ApiKey {
            id: "4f2a90c1d3e5b687".to_owned(),
            name: "two\nlines".to_owned(),
            scopes: vec!["jobs:submit".to_owned(), "jobs:read".to_owned()],
            expires_at: None,
            status: Some("valid".to_owned()),
            created_by: None,
            last_used_at: None,
            key: None,
        };
        let text = listed(&[key]);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("4f2a90c1d3e5b687  valid   jobs:submit,jobs:read  never used"), "{text}");
        assert!(line.trim_end().ends_with("two lines"), "{text}");
    }

    #[test]
    fn a_scope_that_there_is_not_is_refused_with_those_that_there_are() {
        assert_eq!(scope("operate").unwrap(), "operate");
        let told = scope("admin").unwrap_err().to_string();
        assert!(told.contains("`admin`") && told.contains("jobs:submit"), "{told}");
    }
}
