//! Roles, dev mode and the command line, as a library.
//!
//! A team with native steps gets the whole command line around them, `dev` included:
//!
//! ```no_run
//! # async fn book_shipment(call: workers::NativeCall) -> Result<serde_json::Value, workers::NativeError> {
//! #     Ok(call.input)
//! # }
//! fn main() -> std::process::ExitCode {
//!     meanwhile::main(workers::Workers::builder().native("book_shipment", book_shipment).build())
//! }
//! ```

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use service_kit::config::{ConfigError, Sources};
use tokio::runtime::Runtime;
use workers::Workers;

mod acls;
mod audit;
mod breakers;
mod cli;
mod completion;
mod dead_letters;
mod dev_mode;
mod flags;
mod flows;
mod healthcheck;
mod in_database;
mod jobs;
mod keys;
mod known;
mod migrate;
mod recover;
mod roles;
mod skip;
mod table;
mod tail;
mod tenants;
mod timeline;
mod webhooks;

use crate::cli::flows::FlowsCommand;
use crate::cli::jobs::JobsCommand;
use crate::cli::{Cli, Command, RelayArgs, RelayCommand, TopicsCommand};
use crate::roles::Role;

/// The exit code for a configuration that cannot be used, so that supervisors can tell it from a crash (sysexits.h).
const EXIT_CONFIG: u8 = 78;
/// Threads that are still at work when the command has ended are waited for so long.
const STRAGGLERS_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the command that the process's arguments name. Workers run these native steps too.
pub fn main(workers: Workers) -> ExitCode {
    main_with(std::env::args_os(), workers)
}

/// [`main`] with other arguments; the first is the program's name.
pub fn main_with(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>, workers: Workers) -> ExitCode {
    end_with_the_reader();
    let cli = Cli::parse_from(arguments);
    service_kit::tls::install_ring();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("starting the runtime")),
    };
    match to_the_end(runtime, run(cli.command, workers)) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

/// Whoever reads our output may have enough of it (`| head`): then the command ends, and says nothing.
fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panicked| {
        let said = panicked.payload_as_str().unwrap_or_default();
        if said.contains("failed printing to std") && said.contains("Broken pipe") {
            std::process::exit(0);
        }
        usual(panicked);
    }));
}

/// Runs the command. A thread that hangs, in a client of Kafka say, does not keep the process from ending.
fn to_the_end<T>(runtime: Runtime, command: impl Future<Output = T>) -> T {
    let outcome = runtime.block_on(command);
    runtime.shutdown_timeout(STRAGGLERS_TIMEOUT);
    outcome
}

#[expect(clippy::print_stderr, reason = "the last word of a command line program")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    if error.is::<ConfigError>() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
}

async fn run(command: Command, workers: Workers) -> anyhow::Result<ExitCode> {
    let sources = Sources::of_process()?;
    match command {
        Command::Ingest => roles::run(&[Role::Ingest], workers, &sources).await,
        Command::Relay(RelayArgs { command: None }) => roles::run(&[Role::Relay], workers, &sources).await,
        Command::Relay(RelayArgs { command: Some(RelayCommand::Recover(args)) }) => recover::run(&args, &sources).await,
        Command::Workers => roles::run(&[Role::Workers], workers, &sources).await,
        Command::Orchestrator => roles::run(&[Role::Orchestrator], workers, &sources).await,
        Command::Notifier => roles::run(&[Role::Notifier], workers, &sources).await,
        Command::All => roles::run(&Role::ALL, workers, &sources).await,
        Command::Dev(args) => dev_mode::run(args, workers, &sources).await,
        Command::Migrate(arguments) => migrate::run(&sources, &arguments).await,
        Command::Acls(args) => acls::run(&args, &sources),
        Command::Config => roles::show_config(&sources),
        Command::Healthcheck(args) => healthcheck::run(args, &sources).await,
        Command::Flows(FlowsCommand::Lint { paths }) => flows::lint(&paths),
        Command::Flows(FlowsCommand::Diff(args)) => flows::diff::run(&args, &sources).await,
        Command::Flows(FlowsCommand::Prove(args)) => flows::prove::run(&args),
        Command::Flows(FlowsCommand::Test(args)) => flows::test::run(&args),
        Command::Flows(FlowsCommand::Apply { folder }) => flows::apply(&folder, &sources).await,
        Command::Flows(FlowsCommand::List { json, api }) => flows::list(json, &api).await,
        Command::Flows(FlowsCommand::Stats(args)) => flows::stats::run(args).await,
        Command::Submit(args) => jobs::submit(args).await,
        Command::Jobs(JobsCommand::List(args)) => jobs::list::run(args).await,
        Command::Jobs(JobsCommand::Show(args)) => jobs::show(args).await,
        Command::Jobs(JobsCommand::Watch(args)) => jobs::watch(args).await,
        Command::Jobs(JobsCommand::Retry(args)) => jobs::retry(args).await,
        Command::Jobs(JobsCommand::Signal(args)) => jobs::signal(args).await,
        Command::Jobs(JobsCommand::Cancel(args)) => jobs::cancel(args).await,
        Command::DeadLetters(command) => dead_letters::run(command).await,
        Command::Breakers(command) => breakers::run(command).await,
        Command::Flags(command) => flags::run(command).await,
        Command::Webhooks(command) => webhooks::run(command).await,
        Command::Keys(command) => keys::run(command, &sources).await,
        Command::Tenants(command) => tenants::run(command, &sources).await,
        Command::Audit(args) => audit::run(args).await,
        Command::Topics(TopicsCommand::Skip(args)) => skip::run(&args, &sources).await,
        Command::Tail(args) => tail::run(args, &sources).await,
        Command::Completion { shell } => completion::run(shell),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_thread_that_hangs_does_not_keep_the_process_from_ending() {
        let (keep, wait) = channel::<()>();
        let command = async move {
            // Never ends, since the sender is kept.
            let _hanging = tokio::task::spawn_blocking(move || wait.recv());
            7
        };
        assert_eq!(to_the_end(Runtime::new().unwrap(), command), 7);
        drop(keep);
    }
}
