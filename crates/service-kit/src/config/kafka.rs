//! `[kafka]`: properties for librdkafka, by their own names. librdkafka says which ones exist. Secrets may come from
//! files instead: `sasl.password.file`.

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::sources::Sources;

/// Properties that may stand in a file, as a mounted secret does.
const IN_FILES: [&str; 5] = [
    "sasl.username",
    "sasl.password",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "ssl.key.password",
];
/// The end of the name under which the file is named.
const FILE: &str = ".file";

/// librdkafka's properties by name, those from files read.
///
/// # Errors
/// A file that cannot be read or is empty, or a property that is set in both ways. No error text has a secret in it.
pub(super) fn kafka_values(sources: &Sources) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut values: BTreeMap<String, String> =
        kafka_properties(sources)?.into_iter().map(|(key, (value, _))| (key, value)).collect();
    for name in IN_FILES {
        let Some(file) = values.remove(&format!("{name}{FILE}")) else { continue };
        let variable = format!("MEANWHILE__KAFKA__{}_FILE", name.replace('.', "_").to_ascii_uppercase());
        let refused = |why: String| ConfigError::Invalid {
            section: "kafka".to_owned(),
            detail: format!("`{name}{FILE}` ({variable}): {why}"),
        };
        let text = std::fs::read_to_string(&file).map_err(|error| refused(format!("{file}: {error}")))?;
        let value = text.trim_end_matches(['\r', '\n']);
        if value.is_empty() {
            return Err(refused(format!("{file} is empty")));
        }
        if values.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(refused(format!("set it or `{name}`, not both")));
        }
    }
    Ok(values)
}

/// The properties by name, each with where it came from.
pub(super) fn kafka_properties(sources: &Sources) -> Result<BTreeMap<String, (String, String)>, ConfigError> {
    let mut properties = BTreeMap::new();
    if let Some(toml::Value::Table(table)) = sources.file().get("kafka") {
        flatten("", table, &mut |name, value| {
            properties.insert(name, (value, sources.file_name().to_owned()));
        });
    }
    for (variable, path, value) in sources.overrides() {
        if let Some((_, rest)) = path.split_first().filter(|(first, rest)| *first == "kafka" && !rest.is_empty()) {
            properties.insert(rest.join(".").replace('_', "."), (value.to_owned(), variable.to_owned()));
        }
    }
    Ok(properties)
}

/// TOML's dotted keys are nested tables: `security.protocol = ".."` is one property again.
fn flatten(prefix: &str, table: &toml::Table, set: &mut impl FnMut(String, String)) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inside) => flatten(&name, inside, set),
            toml::Value::String(text) => set(name, text.clone()),
            other => set(name, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Shared, describe};
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<BTreeMap<String, String>, ConfigError> {
        kafka_values(&Sources::from_env(variables.iter().copied()))
    }

    #[test]
    fn a_password_comes_from_a_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2 \n").unwrap();
        let file = file.to_str().unwrap();
        let variables = [
            ("MEANWHILE__KAFKA__SASL_PASSWORD_FILE", file),
            ("MEANWHILE__KAFKA__SSL_KEY_PEM", "hunter2"),
            ("MEANWHILE__KAFKA__SASL_OAUTHBEARER_CONFIG", "clientSecret=hunter2"),
            ("MEANWHILE__KAFKA__SASL_OAUTHBEARER_CLIENT_SECRET", "hunter2"),
        ];
        let values = read(&variables).unwrap();
        assert_eq!(values["sasl.password"], "hunter2 ");
        assert!(!values.contains_key("sasl.password.file"));
        let sources = Sources::from_env(variables);
        assert!(!format!("{:?}", Shared::load(&sources).unwrap()).contains("hunter2"));
        assert!(describe(&sources, &[]).unwrap().iter().all(|row| !row.value.contains("hunter2")));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_with_its_variable() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        let file = "MEANWHILE__KAFKA__SASL_PASSWORD_FILE";
        for (variables, said) in [
            (vec![(file, "/nowhere")], "/nowhere: No such file"),
            (vec![(file, empty.to_str().unwrap())], "is empty"),
            (vec![(file, "Cargo.toml"), ("MEANWHILE__KAFKA__SASL_PASSWORD", "hunter2")], "not both"),
        ] {
            let told = read(&variables).unwrap_err().to_string();
            assert!(told.contains(said) && told.contains(file) && !told.contains("hunter2"), "{told}");
        }
    }
}
