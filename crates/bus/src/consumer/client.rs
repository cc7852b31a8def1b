//! librdkafka's client: how it is made, and how it ends.

use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaResult;

use super::Control;
use super::rebalance::Callbacks;

/// Connects in the background; fails only for settings that make no client.
pub(super) fn make(
    config: &ClientConfig,
    callbacks: Callbacks,
    control: &Control,
) -> KafkaResult<Arc<BaseConsumer<Callbacks>>> {
    let mut consumer = BaseConsumer::from_config_and_context(config, callbacks)?;
    let wake = Arc::clone(&control.wake);
    consumer.set_nonempty_callback(move || wake.signal());
    let consumer = Arc::new(consumer);
    control.membership.begin(&consumer);
    Ok(consumer)
}

/// Others may hold the consumer for a moment (`group_metadata`); the last to let go closes it, here. Closing is what
/// revokes: librdkafka forgets to leave when an unsubscribe is still under way while it closes.
pub(super) fn close(mut consumer: Arc<BaseConsumer<Callbacks>>) {
    loop {
        match Arc::try_unwrap(consumer) {
            Ok(alone) => return drop(alone),
            Err(shared) => consumer = shared,
        }
        std::thread::yield_now();
    }
}
