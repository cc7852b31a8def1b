//! Compares the registry with the records that are on Kafka. A registry that was reset knows none of their ids, or
//! gives them to other schemas.

use std::collections::BTreeSet;

use bus::admin::Admin;
use bus::{Registry, RegistryError, Table};
use events::RecordKind;
use events::schema::subjects;
use events::unframe;
use serde_json::Value;

use crate::Target;

/// Offsets of each partition that are looked at, from its end. Markers of transactions count, too.
const OFFSETS_BACK: i64 = 10;

impl Target {
    /// The schema ids in the latest records that are not the ids of their schemas, each with its topic.
    pub(crate) async fn strange_schema_ids(&self, queues: &BTreeSet<String>) -> anyhow::Result<Vec<String>> {
        let (registry, admin) = (Registry::of(&self.bus)?, Admin::new(&self.bus)?);
        let mut strange = Vec::new();
        for subject in subjects(&self.topics, queues.iter().map(String::as_str)) {
            let offsets = admin.offsets(std::slice::from_ref(&subject.topic)).await?;
            if offsets.values().all(|(start, end)| start == end) {
                continue;
            }
            let (records, _) = Table::load_recent(&self.bus, &subject.topic, OFFSETS_BACK).await?;
            let id = |value: Option<&[u8]>| Some(unframe(value?).ok()?.0);
            let ids: BTreeSet<u32> = records.iter().filter_map(|record| id(record.value.as_deref())).collect();
            for id in ids {
                let is_its_own = match registry.resolve(id).await {
                    Ok(schema) => is_of(subject.kind, &schema),
                    Err(RegistryError::Unknown(_)) => false,
                    Err(error) => return Err(error.into()),
                };
                if !is_its_own {
                    strange.push(format!("{id} ({})", subject.topic));
                }
            }
        }
        Ok(strange)
    }
}

fn is_of(kind: RecordKind, schema: &str) -> bool {
    let Ok(schema) = serde_json::from_str::<Value>(schema) else { return false };
    let name = schema["name"].as_str().unwrap_or_default();
    match schema["namespace"].as_str() {
        Some(namespace) if !name.contains('.') => kind.full_name() == format!("{namespace}.{name}"),
        _ => kind.full_name() == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_known_by_its_full_name() {
        for kind in RecordKind::ALL {
            assert!(RecordKind::ALL.into_iter().all(|other| is_of(kind, other.latest()) == (kind == other)));
        }
        assert!(is_of(RecordKind::Slip, r#"{"type":"record","name":"meanwhile.Slip","fields":[]}"#));
        assert!(!is_of(RecordKind::Slip, r#""string""#) && !is_of(RecordKind::Slip, "none"));
    }
}
