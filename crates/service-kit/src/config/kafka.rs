//! `[kafka]`: properties for librdkafka, by their own names. librdkafka says which ones exist.

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::sources::Sources;

/// librdkafka's properties by name, each with where it came from.
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
