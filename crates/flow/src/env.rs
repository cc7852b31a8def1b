//! The surroundings of a process, as far as flows see them.

use std::collections::BTreeMap;
use std::fmt;

use crate::callback::Callbacks;

/// Variables with this prefix are `secrets.*`, without it.
const SECRET_PREFIX: &str = "MEANWHILE_SECRET_";
/// Variables that flows do not see as `env.*`: they hold credentials, or are ours.
const HIDDEN: [&str; 2] = ["DATABASE_URL", "SCHEMA_REGISTRY_URL"];
const HIDDEN_PREFIXES: [&str; 2] = ["MEANWHILE_", "KAFKA_"];

/// Values of the worker's surroundings, for expressions.
#[derive(Clone, Default)]
pub struct Env {
    /// `env.*`: the worker's environment, as far as flows may see it.
    pub vars: BTreeMap<String, String>,
    /// `secrets.*`: never stored, never logged.
    pub secrets: BTreeMap<String, String>,
    /// The means to make the URLs of callbacks.
    pub callbacks: Callbacks,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("vars", &self.vars)
            .field("secrets", &self.secrets.keys())
            .field("callbacks", &self.callbacks)
            .finish()
    }
}

impl Env {
    /// The part of a process's environment that flows see: all variables as `env.*`, except our own and those with our
    /// credentials; `MEANWHILE_SECRET_<NAME>` as `secrets.<NAME>`.
    pub fn of_process<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let (mut vars, mut secrets) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in variables {
            if let Some(secret) = name.strip_prefix(SECRET_PREFIX) {
                secrets.insert(secret.to_owned(), value.to_owned());
            } else if !HIDDEN.contains(&name) && !HIDDEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                vars.insert(name.to_owned(), value.to_owned());
            }
        }
        Self { vars, secrets, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_see_the_environment_without_our_credentials() {
        let variables = [
            ("INVENTORY_URL", "http://inventory"),
            ("DATABASE_URL", "postgres://u:p@h/d"),
            ("MEANWHILE__KAFKA__SASL_PASSWORD", "p"),
            ("MEANWHILE_SECRET_CARD_TOKEN", "t"),
        ];
        let env = Env::of_process(variables);
        assert_eq!(env.vars.into_keys().collect::<Vec<_>>(), ["INVENTORY_URL"]);
        assert_eq!(env.secrets, BTreeMap::from([("CARD_TOKEN".to_owned(), "t".to_owned())]));
    }
}
