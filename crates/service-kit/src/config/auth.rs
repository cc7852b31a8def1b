//! The settings of authentication: ingest asks callers who they are, and `meanwhile keys` makes the first key.

use std::fmt;

use serde::Deserialize;

use super::error::ConfigError;
use super::secret::{refused, secret};
use super::section::{load_shared, wrong_value};
use super::sources::Sources;

/// The shortest secret.
const SECRET_BYTES_MIN: usize = 32;
/// The largest difference of clocks: a token that has ended for longer is never taken.
const LEEWAY_S_MAX: u64 = 600;

/// Whom the API answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Anybody, who may do anything.
    #[default]
    Off,
    /// Those who have a key or a token.
    Required,
    /// The same, but off in `meanwhile dev`.
    Auto,
}

/// The section `[auth]`. By default, in code, off.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthSettings {
    pub mode: AuthMode,
    /// Under this secret keys are hashed; empty: without one.
    pub keys_secret: String,
    /// The issuer of tokens; empty: none are taken.
    pub issuer: String,
    pub audience: String,
    /// A URL or the path of a file.
    pub jwks: String,
    pub tenant_claim: String,
    pub leeway_s: u64,
    /// Wrong credentials that an address may show in a minute; 0: no limit.
    pub wrong_per_minute: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    mode: AuthMode,
    keys_secret: String,
    keys_secret_file: String,
    issuer: String,
    audience: String,
    jwks: String,
    tenant_claim: String,
    leeway_s: u64,
    wrong_per_minute: u32,
}

impl AuthSettings {
    pub(super) fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let section: Section = load_shared("auth", sources)?;
        let keys_secret = keys_secret(&section)?;
        let Section { mode, issuer, audience, jwks, tenant_claim, leeway_s, wrong_per_minute, .. } = section;
        let wrong = |key: &str, expected: &str, found: &str| wrong_value("auth", key, sources, expected, found);
        if !issuer.is_empty() {
            let needed = [("audience", &audience), ("jwks", &jwks), ("tenant_claim", &tenant_claim)];
            if let Some((key, _)) = needed.into_iter().find(|(_, value)| value.is_empty()) {
                return Err(wrong(key, "something, since `auth.issuer` is set", ""));
            }
        }
        if leeway_s > LEEWAY_S_MAX {
            return Err(wrong("leeway_s", "600 at most", &leeway_s.to_string()));
        }
        Ok(Self { mode, keys_secret, issuer, audience, jwks, tenant_claim, leeway_s, wrong_per_minute })
    }

    /// True if the API answers only those that say who they are.
    pub fn is_required(&self) -> bool {
        self.mode != AuthMode::Off
    }
}

/// The secret, from the section or from its file. No error text has any of it in it.
fn keys_secret(section: &Section) -> Result<String, ConfigError> {
    let Section { keys_secret, keys_secret_file: file, .. } = section;
    let secret = secret("auth", "keys_secret", keys_secret, file)?;
    let key = if file.is_empty() { "keys_secret" } else { "keys_secret_file" };
    match secret.len() {
        0 if file.is_empty() => Ok(secret),
        SECRET_BYTES_MIN.. => Ok(secret),
        bytes => Err(refused("auth", key, &format!("it has {bytes} bytes of at least {SECRET_BYTES_MIN}"))),
    }
}

impl fmt::Debug for AuthSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthSettings").field("mode", &self.mode).field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Shared, describe};
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<AuthSettings, ConfigError> {
        AuthSettings::load(&Sources::from_env(variables.iter().copied()))
    }

    #[test]
    fn nobody_is_let_in_unasked_unless_somebody_says_so() {
        assert!(read(&[]).unwrap().is_required());
        assert!(!read(&[("MEANWHILE__AUTH__MODE", "off")]).unwrap().is_required());
        let told = read(&[("MEANWHILE__AUTH__MODE", "none")]).unwrap_err().to_string();
        assert!(told.contains("MEANWHILE__AUTH__MODE"), "{told}");
    }

    #[test]
    fn the_secret_comes_from_the_environment_or_a_file_and_is_never_shown() {
        const SECRET: &str = "hunter2hunter2hunter2hunter2hunter2";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, format!("{SECRET}\n")).unwrap();
        let file = file.to_str().unwrap();
        for variable in [("MEANWHILE__AUTH__KEYS_SECRET", SECRET), ("MEANWHILE__AUTH__KEYS_SECRET_FILE", file)] {
            let sources = Sources::from_env([variable]);
            let shared = Shared::load(&sources).unwrap();
            assert_eq!(shared.auth.keys_secret, SECRET);
            assert!(!format!("{:?} {shared:?}", shared.auth).contains("hunter2"));
            assert!(describe(&sources, &[]).unwrap().iter().all(|row| !row.value.contains("hunter2")));
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_variable() {
        for (variables, said) in [
            (&[("MEANWHILE__AUTH__KEYS_SECRET", "hunter2")][..], "7 bytes of at least 32"),
            (&[("MEANWHILE__AUTH__KEYS_SECRET_FILE", "/nowhere")], "No such file"),
            (&[("MEANWHILE__AUTH__ISSUER", "https://login.example.com")], "`auth.audience`"),
            (&[("MEANWHILE__AUTH__LEEWAY_S", "3600")], "600 at most"),
        ] {
            let told = read(variables).unwrap_err().to_string();
            assert!(told.contains(said) && !told.contains("hunter2"), "{told}");
        }
    }
}
