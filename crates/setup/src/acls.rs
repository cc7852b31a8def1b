//! The rights at Kafka that each role needs, and no more: `meanwhile acls` prints them, and a test runs the whole
//! system with these alone.

use events::topic::Topics;

/// A role, or the operator's `meanwhile migrate`, `flows apply`, `topics skip` and `tail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Ingest,
    Relay,
    Workers,
    Orchestrator,
    Notifier,
    Migrate,
}

impl Client {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Ingest, Self::Relay, Self::Workers, Self::Orchestrator, Self::Notifier, Self::Migrate];

    /// Its name, as on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Relay => "relay",
            Self::Workers => "workers",
            Self::Orchestrator => "orchestrator",
            Self::Notifier => "notifier",
            Self::Migrate => "migrate",
        }
    }
}

/// Some operations on some resources of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    kind: &'static str,
    names: Vec<String>,
    is_prefix: bool,
    operations: &'static [&'static str],
}

impl Right {
    /// The command that grants it.
    pub fn command(&self, principal: &str) -> String {
        let tool = r#"kafka-acls --bootstrap-server "$KAFKA_BROKERS" --command-config admin.properties"#;
        let pattern = if self.is_prefix { " --resource-pattern-type prefixed" } else { "" };
        let operations: String = self.operations.iter().map(|name| format!(" --operation {name}")).collect();
        let names: String = self.names.iter().map(|name| format!(" --{} {name}", self.kind)).collect();
        format!("{tool} --add --allow-principal '{principal}'{operations}{pattern}{names}")
    }
}

type Operations = &'static [&'static str];

fn topic(operations: Operations, names: Vec<String>) -> Right {
    Right { kind: "topic", names, is_prefix: false, operations }
}

fn topics_of(operations: Operations, start: String) -> Right {
    Right { kind: "topic", names: vec![start], is_prefix: true, operations }
}

fn group(operations: Operations, names: Vec<String>) -> Right {
    Right { kind: "group", names, is_prefix: false, operations }
}

fn groups_of(operations: Operations, start: String) -> Right {
    Right { kind: "group", names: vec![start], is_prefix: true, operations }
}

/// A transaction is begun by whoever may write under its id.
fn ids(names: Vec<String>, is_prefix: bool) -> Right {
    Right { kind: "transactional-id", names, is_prefix, operations: &["Write"] }
}

fn of_the_relay(topics: &Topics) -> Vec<Right> {
    let fixed = vec![
        topics.commands(),
        topics.events(),
        topics.waits(),
        topics.cancels(),
        topics.flows(),
        topics.lanes(),
        topics.breakers(),
        topics.relay(),
        topics.dead_letters(),
        topics.audit(),
    ];
    let by_start = [topics.steps(""), topics.commands_of("")];
    let mut rights = vec![topic(&["Write", "DescribeConfigs"], fixed)];
    rights.extend(by_start.map(|start| topics_of(&["Write", "DescribeConfigs"], start)));
    rights.extend([topic(&["Read"], vec![topics.relay()]), ids(vec![topics.relay_id()], false)]);
    rights
}

/// The rights of one client. `triggers` are topics of teams from which jobs start.
pub fn rights(client: Client, topics: &Topics, triggers: &[String]) -> Vec<Right> {
    let steps = || topics.steps("");
    let commands_of_tenants = || topics.commands_of("");
    let backlog = || [topics_of(&["Read"], steps()), group(&["Describe"], vec![topics.workers_group()])];
    let mut rights = match client {
        Client::Ingest => {
            let read = [topics.commands(), topics.events(), topics.flows(), topics.cancels()];
            let read = read.into_iter().chain([topics.progress(), topics.dead_letters()]);
            let groups = triggers.iter().map(|topic| topics.trigger_group(topic));
            vec![
                topic(&["Read"], read.chain(triggers.iter().cloned()).collect()),
                topic(&["Write"], vec![topics.progress()]),
                group(&["Read"], std::iter::once(topics.ingest_group()).chain(groups).collect()),
                topics_of(&["Read"], commands_of_tenants()),
                groups_of(&["Read"], topics.trigger_group(&commands_of_tenants())),
            ]
        }
        Client::Relay => of_the_relay(topics),
        Client::Workers => vec![
            topic(&["Read"], vec![topics.flows(), topics.cancels(), topics.lanes(), topics.breakers()]),
            topics_of(&["Read", "Write", "Delete", "DescribeConfigs"], steps()),
            topic(
                &["Write", "DescribeConfigs"],
                vec![topics.events(), topics.waits(), topics.lanes(), topics.dead_letters()],
            ),
            topic(&["Write"], vec![topics.progress()]),
            group(&["Read"], vec![topics.workers_group()]),
            ids(vec![topics.workers_ids()], true),
        ],
        Client::Orchestrator => vec![
            topic(&["Read"], vec![topics.events(), topics.cancels(), topics.flows(), topics.dead_letters()]),
            topic(&["Read", "Delete"], vec![topics.waits()]),
            group(&["Read"], vec![topics.orchestrator_group(), topics.waits_group()]),
        ],
        Client::Notifier => {
            vec![topic(&["Read"], vec![topics.events()]), group(&["Read"], vec![topics.notifier_group()])]
        }
        Client::Migrate => vec![
            topics_of(&["Create", "Read"], topics.prefix().to_owned() + "."),
            topic(&["Write"], vec![topics.dead_letters()]),
            group(&["Read"], vec![topics.workers_group()]),
            ids(["initial-offsets", "pass-over"].map(|end| topics.workers_ids() + end).into(), false),
        ],
    };
    if matches!(client, Client::Ingest | Client::Orchestrator) {
        rights.extend(backlog());
    }
    // Readers without a group of their own have a name for one all the same, which librdkafka looks up.
    rights.push(groups_of(&["Describe"], topics.prefix().to_owned() + "-"));
    rights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_a_command_that_an_operator_can_run() {
        let rights = rights(Client::Workers, &Topics::new("acme"), &[]);
        assert_eq!(
            rights[1].command("User:CN=workers"),
            "kafka-acls --bootstrap-server \"$KAFKA_BROKERS\" --command-config admin.properties --add \
             --allow-principal 'User:CN=workers' --operation Read --operation Write --operation Delete \
             --operation DescribeConfigs --resource-pattern-type prefixed --topic acme.steps."
        );
    }

    #[test]
    fn every_name_begins_with_the_prefix_but_those_of_triggers() {
        let triggers = ["orders".to_owned()];
        for client in Client::ALL {
            for right in rights(client, &Topics::new("acme"), &triggers) {
                let ours = |name: &String| name.starts_with("acme.") || name.starts_with("acme-") || *name == "orders";
                assert!(right.names.iter().all(ours), "{client:?}: {right:?}");
            }
        }
    }
}
