//! Topics read back, as anybody else would see them.

use anyhow::{Context, Result};
use bus::admin::Admin;
use bus::{Settings, Table};
use events::record::Inbound;
use serde_json::Value;

use crate::tool::kcat;

/// All committed records of a topic, in order per partition; none when there is no such topic.
pub async fn read_topic(brokers: &str, topic: &str) -> Result<Vec<Inbound>> {
    if !topic_names(brokers)?.iter().any(|name| name == topic) {
        return Ok(vec![]);
    }
    let (records, _tail) =
        Table::load(&settings(brokers, ""), topic).await.with_context(|| format!("reading {topic}"))?;
    Ok(records)
}

/// The names of all topics of the cluster.
pub fn topic_names(brokers: &str) -> Result<Vec<String>> {
    let listed = kcat(&["-L", "-J", "-b", brokers, "-m", "30"], b"")?;
    let listed: Value = serde_json::from_slice(&listed).context("what kcat lists")?;
    let topics = listed["topics"].as_array().context("kcat lists no topics")?;
    Ok(topics.iter().filter_map(|topic| Some(topic["topic"].as_str()?.to_owned())).collect())
}

/// Deletes a test's topics behind its end, as far as Kafka answers: the partitions of all tests together would take
/// more files than a process may have open.
pub(crate) fn forget(settings: &Settings, prefix: &str) {
    let (settings, prefix) = (settings.clone(), prefix.to_owned());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { anyhow::Ok(Admin::new(&settings)?.delete_topics(&prefix).await?) })
    });
}

/// A test's own settings for Kafka and the registry.
pub(crate) fn settings(brokers: &str, registry_url: &str) -> Settings {
    let mut settings = Settings::new(brokers, registry_url);
    settings.client_id = "test-kit".to_owned();
    settings
}
