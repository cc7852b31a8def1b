//! The settings of the schema registry, beside its address.

use std::fmt;

use serde::Deserialize;

use super::error::ConfigError;
use super::secret::secret;
use super::section::{load_shared, wrong_value};
use super::sources::Sources;

/// The section `[schema_registry]`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    /// The path of the authorities that are trusted beside the system's own, in PEM; empty: none.
    pub authorities: String,
    /// Empty: nobody is named.
    pub user: String,
    pub password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    authorities: String,
    user: String,
    password: String,
    password_file: String,
}

impl RegistrySettings {
    pub(super) fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let Section { authorities, user, password, password_file } = load_shared("schema_registry", sources)?;
        let password = secret("schema_registry", "password", &password, &password_file)?;
        if user.is_empty() && !password.is_empty() {
            let expected = "the user of `schema_registry.password`";
            return Err(wrong_value("schema_registry", "user", sources, expected, ""));
        }
        Ok(Self { authorities, user, password })
    }
}

impl fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrySettings")
            .field("authorities", &self.authorities)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Shared, describe};
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<RegistrySettings, ConfigError> {
        RegistrySettings::load(&Sources::from_env(variables.iter().copied()))
    }

    #[test]
    fn the_password_comes_from_the_environment_or_a_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2\n").unwrap();
        let file = file.to_str().unwrap();
        let user = ("MEANWHILE__SCHEMA_REGISTRY__USER", "ada");
        for password in
            [("MEANWHILE__SCHEMA_REGISTRY__PASSWORD", "hunter2"), ("MEANWHILE__SCHEMA_REGISTRY__PASSWORD_FILE", file)]
        {
            let sources = Sources::from_env([user, password]);
            let shared = Shared::load(&sources).unwrap();
            assert_eq!((shared.registry.user.as_str(), shared.registry.password.as_str()), ("ada", "hunter2"));
            assert!(!format!("{:?} {shared:?}", shared.registry).contains("hunter2"));
            assert!(describe(&sources, &[]).unwrap().iter().all(|row| !row.value.contains("hunter2")));
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused_without_the_password() {
        let file = ("MEANWHILE__SCHEMA_REGISTRY__PASSWORD_FILE", "/nowhere");
        for (variables, said) in [
            (&[("MEANWHILE__SCHEMA_REGISTRY__PASSWORD", "hunter2")][..], "`schema_registry.user`"),
            (&[file], "/nowhere: No such file"),
            (&[("MEANWHILE__SCHEMA_REGISTRY__PASSWORD", "hunter2"), file], "not both"),
        ] {
            let told = read(variables).unwrap_err().to_string();
            assert!(told.contains(said) && !told.contains("hunter2"), "{told}");
        }
    }
}
