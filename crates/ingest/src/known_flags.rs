//! The flags of all flows, as this instance knows them: read from Postgres at the start, at every notification, and
//! now and then, beside the requests. No request asks the database for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flow::flags::Flags;
use parking_lot::RwLock;
use store::Pool;
use store::flags::FlagsVersion;
use tokio_util::sync::CancellationToken;

use crate::followed;

/// The flags of a flow.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// 0: there are none.
    pub(crate) version: i64,
    pub(crate) flags: Flags,
}

#[derive(Default)]
pub(crate) struct KnownFlags(RwLock<HashMap<String, Arc<Known>>>);

impl KnownFlags {
    /// The flags of a flow.
    pub(crate) fn of(&self, flow: &str) -> Arc<Known> {
        self.0.read().get(flow).cloned().unwrap_or_default()
    }

    /// Takes versions in. Of a flow the highest counts, in whatever order they come.
    pub(crate) fn learn(&self, versions: impl IntoIterator<Item = FlagsVersion>) {
        for FlagsVersion { flow, version, document, reason, changed_by, .. } in versions {
            let known = self.of(&flow);
            if known.version >= version {
                continue;
            }
            let flags = match read(&document) {
                Ok(flags) => {
                    tracing::info!(flow, version, changed_by, reason, "flags known");
                    flags
                }
                Err(error) => {
                    tracing::error!(flow, version, error, "flags cannot be read by this version; the ones before stay");
                    known.flags.clone()
                }
            };
            let mut by_flow = self.0.write();
            let entry = by_flow.entry(flow).or_default();
            if entry.version < version {
                *entry = Arc::new(Known { version, flags });
            }
        }
    }
}

fn read(document: &str) -> Result<Flags, String> {
    let document = serde_json::from_str(document).map_err(|error| error.to_string())?;
    let told = |problems: Vec<flow::definition::Problem>| {
        problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
    };
    Flags::read(&document).map_err(told)
}

/// Keeps the flags up to date until shutdown. `listening` is a pool of its own: it gives one connection away for good.
/// `look_every`: the pause between two looks without a notification.
pub(crate) async fn keep(
    known: &KnownFlags,
    (pool, listening): (&Pool, &Pool),
    look_every: Duration,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let read = || async {
        known.learn(store::flags::all(pool).await?);
        Ok(())
    };
    followed::keep("flags", || store::flags::listen(listening), read, look_every, shutdown).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: i64, document: &str) -> FlagsVersion {
        FlagsVersion {
            flow: "order".to_owned(),
            version,
            document: document.to_owned(),
            changed_by: "me".to_owned(),
            reason: "a test".to_owned(),
            rollback_to: None,
            changed_at_ms: 0,
        }
    }

    #[test]
    fn the_highest_version_holds_and_one_that_cannot_be_read_changes_nothing() {
        let known = KnownFlags::default();
        let percent = |known: &KnownFlags| known.of("order").flags.durable.as_ref().map(|durable| durable.basis_points);
        assert_eq!((known.of("order").version, percent(&known)), (0, None));
        known.learn([version(2, r#"{"durable":{"percent":25}}"#), version(1, r#"{"durable":{"percent":1}}"#)]);
        assert_eq!((known.of("order").version, percent(&known)), (2, Some(2_500)));
        known.learn([version(3, r#"{"durable":{"parts":25}}"#)]);
        assert_eq!((known.of("order").version, percent(&known)), (3, Some(2_500)));
    }
}
