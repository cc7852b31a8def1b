//! Deletes finished slips from the steps topics, whose retention is endless, since they carry tokens.

use std::collections::HashMap;
use std::time::Duration;

use bus::TopicPartition;
use bus::admin::Admin;

use crate::desk::Desk;

/// Deletes the records below the committed positions of our partitions, once per `interval`. Never ends.
pub(crate) async fn run(bus: &bus::Settings, interval: Duration, desk: &Desk) {
    let admin = match Admin::new(bus) {
        Ok(admin) if !interval.is_zero() => admin,
        _ => return std::future::pending().await,
    };
    let mut trimmed = HashMap::new();
    loop {
        tokio::time::sleep(interval).await;
        trim(&admin, desk, &mut trimmed).await;
    }
}

async fn trim(admin: &Admin, desk: &Desk, trimmed: &mut HashMap<TopicPartition, i64>) {
    let mut due = desk.committed_offsets();
    due.retain(|(place, offset)| trimmed.get(place) != Some(offset));
    match admin.delete_records(&due).await {
        Ok(()) => trimmed.extend(due),
        // A failure does no harm: the next round tries again.
        Err(error) => {
            let error = service_kit::error_chain(&error);
            tracing::debug!(error, "the steps topics were not trimmed");
        }
    }
}
