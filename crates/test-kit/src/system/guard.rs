//! A Kafka that asks each role who it is, and lets it do what `meanwhile acls` lists for it, and nothing else.

use anyhow::{Context, Result};

use crate::kafka::{GuardedKafka, Login};
use crate::role::{Role, meanwhile};

/// The operator's commands: they log in under a name of their own.
pub(super) const OPERATOR: &str = "migrate";

/// Starts it with a user for each role, and one for the operator.
pub(super) async fn start() -> Result<GuardedKafka> {
    let users: Vec<String> = Role::ALL.iter().map(|role| role.as_str()).chain([OPERATOR]).map(user).collect();
    GuardedKafka::start(&users.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// Grants what the binary prints.
pub(super) async fn grant(kafka: &GuardedKafka, prefix: &str) -> Result<()> {
    let variables = [("MEANWHILE__TOPICS__PREFIX".to_owned(), prefix.to_owned())];
    let commands = meanwhile(&["acls"], &variables).await.context("meanwhile acls")?;
    kafka.grant(&commands).await
}

/// The settings by which a role logs in.
pub(super) fn variables(kafka: &GuardedKafka, role: &str) -> Result<Vec<(String, String)>> {
    let (brokers, properties) = kafka.login(Login::Scram512, &user(role))?;
    let variable = |name: &str| format!("MEANWHILE__KAFKA__{}", name.replace('.', "_").to_uppercase());
    let properties = properties.into_iter().map(|(name, value)| (variable(&name), value));
    Ok([("KAFKA_BROKERS".to_owned(), brokers)].into_iter().chain(properties).collect())
}

/// The default of `meanwhile acls`.
pub(super) fn user(role: &str) -> String {
    format!("meanwhile-{role}")
}
