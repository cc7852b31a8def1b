//! The arguments of `meanwhile dead-letters`.

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use client::Choice;
use events::dead_letter::Class;

use super::ApiArgs;

/// Entries of one request.
pub(crate) const PAGE: u32 = 100;

/// The class under which parked jobs are listed.
const PARKED: &str = "parked";

/// The classes that a choice may name.
fn classes() -> impl clap::builder::TypedValueParser<Value = String> {
    PossibleValuesParser::new(Class::ALL.iter().map(|class| class.as_str()).chain([PARKED])).map(|class| class)
}

/// `meanwhile dead-letters ...`
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List them, newest first
    List(ListArgs),
    /// Show one with its record, as JSON; of a parked job its status
    Show {
        /// The id, as `list` tells it
        id: String,
        /// For programs: documents with their bytes, not in words
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Send one back to where it failed, or all that a choice names
    ///
    /// Each goes back once, however often this is called. A record keeps its key, and so its place in the order. Parked
    /// jobs go on too; with `--all`, those stay whose step may have been done and must not be repeated.
    Redrive(RedriveArgs),
    /// Drop one: it is not listed any more. A parked job is cancelled instead (`meanwhile jobs cancel`)
    Drop {
        /// The id, as `list` tells it
        id: String,
        /// Why it is not wanted any more
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// Which ones.
#[derive(Debug, Args)]
pub(crate) struct ChoiceArgs {
    /// Of this class; `parked` for parked jobs
    #[arg(long, value_parser = classes())]
    class: Option<String>,
    /// Records that failed in this topic
    #[arg(long)]
    topic: Option<String>,
    /// About this flow
    #[arg(long)]
    flow: Option<String>,
    /// About this step
    #[arg(long)]
    step: Option<String>,
    /// From this time on, such as 2026-01-05T09:30:00Z
    #[arg(long)]
    since: Option<String>,
    /// Before this time
    #[arg(long)]
    until: Option<String>,
}

impl ChoiceArgs {
    pub(crate) fn choice(self) -> Choice {
        let Self { class, topic, flow, step, since, until } = self;
        Choice { class, topic, flow, step, since, until }
    }
}

/// `meanwhile dead-letters list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// At most so many
    #[arg(long, default_value_t = PAGE, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    /// Show the API's answer in place of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `meanwhile dead-letters redrive`
#[derive(Debug, Args)]
#[command(after_help = "Examples:  meanwhile dead-letters redrive 2-17\n\
                        \x20          meanwhile dead-letters redrive 2-17 --value @command.json\n\
                        \x20          meanwhile dead-letters redrive --all --class unknown-flow --rate 50 --dry-run")]
pub(crate) struct RedriveArgs {
    /// The id, as `list` tells it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) id: Option<String>,
    /// All that the choice names, and that are there now
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// Another value for one record of JSON (a command): JSON, @FILE, or - for standard input
    #[arg(long, conflicts_with = "all")]
    pub(crate) value: Option<String>,
    /// Another key for one record: it takes its place in the order under it
    #[arg(long, conflicts_with = "all")]
    pub(crate) key: Option<String>,
    /// With --all: so many per second at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: u32,
    /// With --all: say how many would be sent, and send none
    #[arg(long, requires = "all")]
    pub(crate) dry_run: bool,
    /// Those too that have come back five times, and with --all parked jobs whose step may be done twice so
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
