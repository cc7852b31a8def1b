//! The one binary: roles and the command line.

use std::process::ExitCode;

use clap::Parser;
use service_kit::config::{ConfigError, Sources};

mod cli;
mod client;
mod dev_mode;
mod flows;
mod healthcheck;
mod migrate;
mod roles;
mod tail;
mod timeline;

use crate::cli::{Cli, Command, FlowsCommand, JobsCommand};
use crate::roles::Role;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for a configuration that cannot be used, so that supervisors can tell it from a crash (sysexits.h).
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let cli = Cli::parse();
    service_kit::tls::install_ring();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("starting the runtime")),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a command line program")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    if error.is::<ConfigError>() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let sources = Sources::of_process()?;
    match command {
        Command::Ingest => roles::run(&[Role::Ingest], &sources).await,
        Command::Relay => roles::run(&[Role::Relay], &sources).await,
        Command::Workers => roles::run(&[Role::Workers], &sources).await,
        Command::Orchestrator => roles::run(&[Role::Orchestrator], &sources).await,
        Command::Notifier => roles::run(&[Role::Notifier], &sources).await,
        Command::All => roles::run(&Role::ALL, &sources).await,
        Command::Dev(args) => dev_mode::run(args, &sources).await,
        Command::Migrate => migrate::run(&sources).await,
        Command::Config => roles::show_config(&sources),
        Command::Healthcheck(args) => healthcheck::run(args, &sources).await,
        Command::Flows(FlowsCommand::Lint { paths }) => flows::lint(&paths),
        Command::Flows(FlowsCommand::Diff(args)) => flows::diff::run(&args, &sources).await,
        Command::Flows(FlowsCommand::Apply { folder }) => flows::apply(&folder, &sources).await,
        Command::Submit(args) => client::submit(args).await,
        Command::Jobs(JobsCommand::Show { job, follow, json, api }) => client::show(&api.url, &job, follow, json).await,
        Command::Jobs(JobsCommand::Retry { job, key, follow, api }) => {
            client::retry(&api.url, &job, key.as_deref(), follow).await
        }
        Command::Tail(args) => tail::run(args, &sources).await,
    }
}
