//! Errors in a configuration.

/// A configuration that cannot be used. Its text is made for the person who wrote it; no secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A setting without a default was not given.
    #[error("{variable} is not set: {purpose}, for example {variable}={example}")]
    Missing {
        /// The environment variable that sets it.
        variable: &'static str,
        /// The setting's purpose.
        purpose: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// An unknown key.
    #[error("unknown key `{key}` in {source_name}; {advice}")]
    UnknownKey {
        /// The key's path.
        key: String,
        /// The file or variable in which it stands.
        source_name: String,
        /// The nearest known name, or all of them.
        advice: String,
    },
    /// A value of another type than its default.
    #[error("`{key}` in {source_name}: expected {expected}, found {found}")]
    WrongType {
        /// The key's path.
        key: String,
        /// The file or variable in which it stands.
        source_name: String,
        /// The type of the default.
        expected: String,
        /// The value, unless its name says that it is a secret.
        found: String,
    },
    /// The file cannot be read or is no TOML.
    #[error("configuration file {file}: {detail}")]
    File {
        /// The file's name.
        file: String,
        /// The reason.
        detail: String,
    },
    /// The section as a whole does not fit its settings type.
    #[error("section `{section}`: {detail}")]
    Invalid {
        /// The section's name.
        section: String,
        /// The reason.
        detail: String,
    },
}

impl ConfigError {
    pub(super) fn unknown_key(path: &str, source_name: &str, known: &toml::Table) -> Self {
        let last = path.rsplit('.').next().unwrap_or(path);
        Self::unknown_name(path, last, source_name, known.keys().map(String::as_str))
    }

    pub(super) fn unknown_name<'a>(
        path: &str,
        name: &str,
        source_name: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> Self {
        let mut known: Vec<&str> = known.collect();
        known.sort_unstable();
        let nearest = known
            .iter()
            .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
            .max_by(|left, right| left.0.total_cmp(&right.0))
            .filter(|(likeness, _)| *likeness >= 0.6);
        let advice = match nearest {
            Some((_, nearest)) => format!("did you mean `{nearest}`?"),
            None => format!("known are: {}", known.join(", ")),
        };
        Self::UnknownKey { key: path.to_owned(), source_name: source_name.to_owned(), advice }
    }
}
