//! The arguments of `meanwhile flows`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ApiArgs;

/// `meanwhile flows ...`
#[derive(Debug, Subcommand)]
pub(crate) enum FlowsCommand {
    /// Check definitions, and show each mistake with file, line and remedy
    Lint {
        /// Files or folders
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Show the changes between two versions of flows, whether they break callers, and why
    #[command(
        override_usage = "meanwhile flows diff [OPTIONS] [OLD] <NEW>",
        after_help = "The exit code is 0 when nothing breaks callers, 1 when something does (or cannot be read).\n\n\
                      A change is breaking when a correct caller can notice it: an address, an accepted input, a\n\
                      field of the result or a step is gone, or a failure ends in another way. Changes of how a\n\
                      step works are not breaking: its calls, time-outs, retries, queue. Jobs under way stay on\n\
                      their version."
    )]
    Diff(DiffArgs),
    /// Walk every combination of outcomes of every step, and show what can go wrong, with the shortest story
    #[command(after_help = "The exit code is 0 when each flow is proved, 1 when something was found, 2 when a file\n\
                      cannot be used, 3 when a flow has more states than were to be visited. Nothing is\n\
                      called: no Kafka, no Postgres, no service.\n\n\
                      Steps succeed, are refused, cannot be reached, give no answer (and were done, or not),\n\
                      lose their output; workers stop, deadlines pass, jobs are cancelled, operators send\n\
                      parked jobs on. Found is: an effect that nobody undoes, an expression that cannot be\n\
                      evaluated, a step with `idempotent: false` that runs twice, a job that cannot end, a\n\
                      branch never taken.")]
    Prove(ProveArgs),
    /// Run the test cases that lie beside flows (order.test.yaml beside order.yaml)
    #[command(after_help = "The exit code is 0 when every case is as expected, 1 when one is not, 2 when a file\n\
                      cannot be used. Nothing is called, and no time passes: waits are skipped.")]
    Test(TestArgs),
    /// Make the definitions of a folder the active ones. Jobs under way stay on their version
    Apply {
        /// The folder
        folder: PathBuf,
    },
    /// List the active flows by name
    List {
        /// Show JSON, with each flow's version, in place of names
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show how many jobs of a flow ended how lately, and how long they and their steps took
    Stats(StatsArgs),
}

/// `meanwhile flows stats`
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// The flow's name
    pub(crate) flow: String,
    /// Of this time up to now, by whole minutes: 15m, 1h, ..., at most 24h
    #[arg(long, default_value = "1h")]
    pub(crate) window: String,
    /// Show it as the API sent it
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `meanwhile flows diff`
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The old flows and the new ones, as files or folders. Given only the new flows, it compares them with the active
    /// ones in the database (DATABASE_URL)
    #[arg(required = true, num_args = 1..=2, value_name = "FLOWS")]
    pub(crate) paths: Vec<PathBuf>,
    /// Exit with 0 even if a change is breaking
    #[arg(long)]
    pub(crate) allow_breaking: bool,
}

/// `meanwhile flows prove`
#[derive(Debug, Args)]
pub(crate) struct ProveArgs {
    /// Files or folders
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// An input that a caller may send, as JSON, to begin with; without one, the schema makes it
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Vec<PathBuf>,
    /// Live with a finding: effect-stands:notify
    #[arg(long, value_name = "KIND:STEP")]
    pub(crate) accept: Vec<prove::Accepted>,
    /// Visit so many states of a flow at most
    #[arg(long, default_value_t = 500_000)]
    pub(crate) states_max: usize,
    /// Show the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `meanwhile flows test`
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Files with cases (*.test.yaml), or folders
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Run only cases whose names contain this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
}
