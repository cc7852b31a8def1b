//! `meanwhile acls`: the rights at Kafka that each role needs, as commands of Kafka's own tool.

use std::process::ExitCode;

use events::topic::Topics;
use service_kit::config::{Shared, Sources};
use setup::acls::{Client, rights};

use crate::cli::AclsArgs;

/// In a principal: the role.
const ROLE: &str = "{role}";

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) fn run(args: &AclsArgs, sources: &Sources) -> anyhow::Result<ExitCode> {
    let topics = Topics::new(Shared::load(sources)?.topics_prefix);
    for client in Client::ALL {
        let name = client.as_str();
        if args.role.as_deref().is_some_and(|role| role != name) {
            continue;
        }
        println!("# {name}");
        let principal = args.principal.replace(ROLE, name);
        for right in rights(client, &topics, &args.trigger_topics) {
            println!("{}", right.command(&principal));
        }
    }
    Ok(ExitCode::SUCCESS)
}
