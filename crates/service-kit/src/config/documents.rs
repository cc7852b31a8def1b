//! The settings of the store of documents. Workers write into it and read from it; so does ingest.

use std::fmt;

use serde::Deserialize;

use super::error::ConfigError;
use super::redact::redact;
use super::section::{load_shared, wrong_value};
use super::sources::Sources;

/// The kinds of stores, by the beginnings of their URLs.
const SCHEMES: [&str; 4] = ["s3://", "gs://", "az://", "file:///"];
/// Variables that say how to reach a store, and with which credentials, by their beginnings.
const VARIABLES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// The section `[documents]`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DocumentSettings {
    /// The bucket, container or folder, with a prefix; empty: there is no store.
    pub url: String,
    /// Documents of more bytes lie in the store.
    pub inline_bytes_max: usize,
    /// The most bytes of one document.
    pub bytes_max: u64,
    /// Documents that a process writes at once.
    pub transfers_max: usize,
    /// The variables of the store's kind, such as `AWS_ACCESS_KEY_ID`.
    pub options: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    url: String,
    credentials_file: String,
    inline_bytes_max: usize,
    bytes_max: u64,
    transfers_max: usize,
}

impl DocumentSettings {
    pub(super) fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let Section { url, credentials_file, inline_bytes_max, bytes_max, transfers_max } =
            load_shared("documents", sources)?;
        let wrong = |key: &str, expected: &str, found: &str| wrong_value("documents", key, sources, expected, found);
        if !url.is_empty() && !SCHEMES.iter().any(|scheme| url.starts_with(scheme) && url.len() > scheme.len()) {
            let expected = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder";
            return Err(wrong("url", expected, &redact(&url)));
        }
        if transfers_max == 0 {
            return Err(wrong("transfers_max", "1 at least", "0"));
        }
        let mut options: Vec<(String, String)> = sources
            .variables()
            .filter(|(name, _)| VARIABLES.iter().any(|beginning| name.starts_with(beginning)))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        if !credentials_file.is_empty() {
            // Later ones win.
            options.extend(read(&credentials_file)?);
        }
        Ok(Self { url, inline_bytes_max, bytes_max, transfers_max, options })
    }
}

/// The lines `NAME=value` of a file. No error text has any of it in it.
fn read(file: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let refused = |why: String| ConfigError::Invalid {
        section: "documents".to_owned(),
        detail: format!("`credentials_file` (MEANWHILE__DOCUMENTS__CREDENTIALS_FILE): {file}: {why}"),
    };
    let text = std::fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    let mut pairs = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let Some((name, value)) = line.split_once('=') else {
            return Err(refused(format!("line {number} is not NAME=value")));
        };
        let name = name.trim();
        if !VARIABLES.iter().any(|beginning| name.starts_with(beginning)) {
            return Err(refused(format!("line {number} sets no variable that begins with {}", VARIABLES.join(", "))));
        }
        pairs.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok(pairs)
}

impl fmt::Debug for DocumentSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentSettings")
            .field("url", &redact(&self.url))
            .field("options", &self.options.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<DocumentSettings, ConfigError> {
        DocumentSettings::load(&Sources::from_env(variables.iter().copied()))
    }

    #[test]
    fn credentials_come_from_the_environment_or_a_file_and_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        std::fs::write(&file, "# of the store\n\nAWS_SECRET_ACCESS_KEY = hunter2\n").unwrap();
        let settings = read(&[
            ("MEANWHILE__DOCUMENTS__URL", "s3://bucket/documents"),
            ("MEANWHILE__DOCUMENTS__CREDENTIALS_FILE", file.to_str().unwrap()),
            ("AWS_ACCESS_KEY_ID", "me"),
            ("PATH", "/bin"),
        ])
        .unwrap();
        let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(settings.options, [option("AWS_ACCESS_KEY_ID", "me"), option("AWS_SECRET_ACCESS_KEY", "hunter2")]);
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!((read(&[]).unwrap().url.as_str(), settings.inline_bytes_max), ("", 32_768));
    }

    #[test]
    fn what_cannot_be_a_store_is_refused_with_what_would_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        std::fs::write(&file, "AWS_REGION=here\nhunter2\n").unwrap();
        let file = file.to_str().unwrap();
        for (key, value, said) in [
            ("URL", "/var/documents", "expected s3://bucket/prefix"),
            ("URL", "s3://", "file:///folder"),
            ("TRANSFERS_MAX", "0", "1 at least"),
            ("CREDENTIALS_FILE", "/nowhere", "No such file"),
            ("CREDENTIALS_FILE", file, "line 2 is not NAME=value"),
        ] {
            let variable = format!("MEANWHILE__DOCUMENTS__{key}");
            let told = read(&[(&variable, value)]).unwrap_err().to_string();
            assert!(told.contains(said) && told.contains(&variable) && !told.contains("hunter2"), "{told}");
        }
    }
}
