//! The settings of brokers and their controller.

use std::path::Path;

use super::{CONTROLLER_ID, Listener};

/// A broker that is its own controller.
pub(super) fn server_properties(port: u16, controller_port: u16, data: &Path, more: &[(String, String)]) -> String {
    let data = data.display();
    let mut text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
num.partitions=6
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.index.size.max.bytes=2097152
log.cleaner.dedupe.buffer.size=16777216
"
    );
    for (name, value) in more {
        text.push_str(&format!("{name}={value}\n"));
    }
    text
}

/// The addresses of a broker's listeners.
fn addresses(port: u16, more: &[Listener], port_of: impl Fn(&Listener) -> u16) -> String {
    let more = more.iter().map(|listener| format!(",{}://127.0.0.1:{}", listener.name, port_of(listener)));
    format!("PLAINTEXT://127.0.0.1:{port}{}", more.collect::<String>())
}

/// More lines for a broker with more listeners.
pub(super) fn more_listeners(port: u16, controller_port: u16, more: &[Listener]) -> String {
    if more.is_empty() {
        return String::new();
    }
    let protocols = more.iter().map(|listener| format!(",{}:{}", listener.name, listener.protocol)).collect::<String>();
    format!(
        "listeners={},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners={}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=PLAINTEXT
",
        addresses(port, more, |listener| listener.port),
        addresses(port, more, |listener| listener.advertised)
    )
}

/// More lines for a broker that is no controller.
pub(super) fn broker_alone(port: u16, controller_port: u16, more: &[Listener]) -> String {
    format!(
        "process.roles=broker
controller.quorum.voters={CONTROLLER_ID}@127.0.0.1:{controller_port}
listeners={}
",
        addresses(port, more, |listener| listener.port)
    )
}

/// More lines for one of several brokers.
pub(super) fn of_many(node: u32, port: u16) -> String {
    let thrice = ["offsets.topic", "transaction.state.log"].map(|topic| format!("{topic}.replication.factor=3\n"));
    format!(
        "node.id={node}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
transaction.state.log.min.isr=2
min.insync.replicas=2
{}",
        thrice.concat()
    )
}

/// The controller's settings, from its broker's.
pub(super) fn controller_alone(broker: &str, data: &Path) -> String {
    let broker_only = ["advertised.listeners=", "inter.broker.listener.name="];
    let lines = broker.lines().filter(|line| !broker_only.iter().any(|name| line.starts_with(name)));
    let voters = broker.lines().rev().find_map(|line| line.strip_prefix("controller.quorum.voters="));
    let address = voters.and_then(|voters| voters.split_once('@')).map_or("", |(_, address)| address);
    let more = [
        "process.roles=controller".to_owned(),
        format!("node.id={CONTROLLER_ID}"),
        format!("listeners=CONTROLLER://{address}"),
        format!("log.dirs={}", data.display()),
    ];
    lines.map(str::to_owned).chain(more).collect::<Vec<_>>().join("\n")
}
