//! `meanwhile relay recover`: the way out where the relay refuses to go on.

use std::process::ExitCode;

use process::{Base, Process};
use relay::Relay;
use relay::recover::{Older, Options};
use service_kit::config::Sources;
use service_kit::{CancellationToken, telemetry};

use crate::cli::{OlderRows, RecoverArgs};

/// `meanwhile relay recover`
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the command's answer")]
pub(crate) async fn run(args: &RecoverArgs, sources: &Sources) -> anyhow::Result<ExitCode> {
    let base = Base::load(sources)?;
    telemetry::init(&base.shared.log)?;
    let Process { readiness, clock, .. } = Process::system("recover");
    let relay = Relay::new(relay::Settings::load(&base, sources)?, readiness, clock)?;
    let older = match args.older {
        None => Older::Refuse,
        Some(OlderRows::Delivered) => Older::Delivered,
        Some(OlderRows::Missing) => Older::Missing,
    };
    let options = Options { dry_run: args.dry_run, force: args.force, older };
    let report = relay.recover(options, &CancellationToken::new()).await?;
    print!("{report}");
    if report.is_undecided(older) {
        eprintln!(
            "error: whether the older rows were delivered cannot be told. Look whether their jobs have events, then \
             answer with `--older delivered` or `--older missing`"
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
