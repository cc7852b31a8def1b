//! The way past a batch that cannot be read.

use std::time::{Duration, Instant};

use super::FollowerHandler;
use super::buffer::Rewinding;
use crate::consumer::{Commands, Start, TopicPartition};

/// The interval at which it is looked whether a batch that cannot be read was passed over.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

impl FollowerHandler {
    /// Goes on behind a batch that cannot be read, once somebody has moved the stored position there.
    pub(super) fn pass_over(&mut self, commands: &mut Commands) {
        let stuck: Vec<(TopicPartition, i64)> = {
            let state = self.shared.lock();
            state.unreadable.iter().map(|(place, (offset, _))| (place.clone(), *offset)).collect()
        };
        if stuck.is_empty() || self.looked_at.elapsed() < LOOK_INTERVAL {
            return;
        }
        self.looked_at = Instant::now();
        let places: Vec<TopicPartition> = stuck.iter().map(|(place, _)| place.clone()).collect();
        let Ok(found) = self.ask(&places) else { return };
        let mut state = self.shared.lock();
        for ((place, offset), position) in stuck.into_iter().zip(found) {
            let Some(position) = position.filter(|position| *position > offset) else { continue };
            tracing::info!(
                topic = place.topic,
                partition = place.partition,
                offset,
                position,
                "a batch is passed over"
            );
            state.unreadable.remove(&place);
            if let Some(buffer) = state.partitions.get_mut(&place) {
                let (records, bytes) = buffer.clear();
                buffer.rewinding = Some(Rewinding::Seeking(position));
                state.count_out(records, bytes);
                commands.seek(place, Start::Offset(position));
            }
        }
    }
}
